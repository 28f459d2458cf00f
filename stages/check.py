"""Check the whole of params.yaml: ``python -m stages.check``.

Every stage checks it when it starts. As a stage of its own, which all others need, the check also
finds a key that no stage reads, and stops before DVC touches the output of any other stage (not
with --single-item, --downstream and --ignore-errors of `dvc repro`).
"""

from pathlib import Path

from ostinato import store
from stages import command, load_study

CHECKED = Path("data", ".checked")  # its content is always the same: it makes no stage stale


def main() -> None:
    """Stop with a list of all that is wrong in params.yaml, if anything is."""
    load_study()
    store.write_text(CHECKED, "params.yaml has passed the check.\n")


if __name__ == "__main__":
    command(main)
