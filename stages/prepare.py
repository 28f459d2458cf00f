"""Prepare a data set, split and cleaned: ``python -m stages.prepare STUDY DATA``."""

from ostinato import params, store
from stages.entry import command, key_of, load_study


def main(study: str, name: str) -> None:
    """Prepare data/raw/<name> into data/<name>, by the data set's block of params.yaml."""
    name, loaded = key_of(name), load_study(study)
    dataset = params.module(loaded.entry("data", name, "domain"), "dataset")
    prepare = params.bind(dataset.prepare, loaded.entry("data", name, "prepare"))
    with store.atomic_folder(loaded.data_folder(name)) as folder:
        prepare(loaded.raw_folder(name), folder)


if __name__ == "__main__":
    command(main)
