"""Check the whole of a params.yaml and its local inputs: ``python -m stages.check STUDY``.

Every stage checks the file when it starts. As a stage of its own, which all others need and which
runs whenever DVC runs, the check also finds a key that no stage reads, stops before DVC deletes the
output of any other stage (not with --single-item, --downstream and --ignore-errors of `dvc repro`),
and notes the state of the local files that sources read.
"""

from ostinato import inputs, store
from stages.entry import command, load_study


def main(study: str) -> None:
    """Stop with a list of all that is wrong in the params file ``study``, if anything is."""
    loaded = load_study(study)
    for folder in ("results", "ensembles"):  # the report depends on both, also where one is empty
        store.own_path(loaded.folder / folder).mkdir(exist_ok=True)
    inputs.write(loaded)
    # The content is always the same: it makes no stage stale.
    store.write_text(loaded.folder / "data" / ".checked", "params.yaml has passed the check.\n")
    counts = ", ".join(f"{key}: {len(loaded.params[key])}" for key in ("data", "runs", "ensembles"))
    print(f"{study} has no error ({counts})")


if __name__ == "__main__":
    command(main)
