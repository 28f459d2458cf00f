"""Raw bytes to a TFDS data set, split and cleaned: ``python -m stages.prepare DATA``."""

from pathlib import Path

from ostinato import params, store
from ostinato.tracking import mirror
from stages import command, key_of, load_study


def main(name: str) -> None:
    """Prepare data/raw/<name> into data/<name>, by the data set's block of params.yaml."""
    name, values = key_of(name), load_study()
    data = params.entry(values, "data", name)
    examples = params.module(params.entry(data, "domain"), "dataset")
    prepare = params.bind(examples.prepare, params.entry(data, "prepare"))
    with store.atomic_folder(Path("data", name)) as folder:
        prepare(Path("data", "raw", name), folder)
    mirror.mirror("prepare", name)


if __name__ == "__main__":
    command(main)
