"""Check the whole of a params.yaml: ``python -m stages.check STUDY``.

Every stage checks it when it starts. As a stage of its own, which all others need, the check also
finds a key that no stage reads, and stops before DVC deletes the output of any other stage (not
with --single-item, --downstream and --ignore-errors of `dvc repro`).
"""

from ostinato import store
from stages.entry import command, load_study


def main(study: str) -> None:
    """Stop with a list of all that is wrong in the params file ``study``, if anything is."""
    loaded = load_study(study)
    for folder in ("results", "ensembles"):  # the report depends on both, also where one is empty
        store.own_path(loaded.folder / folder).mkdir(exist_ok=True)
    # The content is always the same: it makes no stage stale.
    store.write_text(loaded.folder / "data" / ".checked", "params.yaml has passed the check.\n")


if __name__ == "__main__":
    command(main)
