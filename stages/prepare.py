"""Prepare a data set, split and cleaned: ``python -m stages.prepare STUDY DATA``."""

from ostinato import params, store
from stages.entry import command, key_of, load_study


def main(study: str, name: str) -> None:
    """Prepare data/raw/<name> into data/<name>, by the data set's block of params.yaml.

    Where the domain prepares in shards, those that a killed process has made are not made again,
    and processes of `stages.prepare_shards` share the work.
    """
    name, loaded = key_of(name), load_study(study)
    dataset = params.module(loaded.entry("data", name, "domain"), "dataset")
    prepare = params.bind(dataset.prepare, loaded.entry("data", name, "prepare"))
    scratch = loaded.shards_folder(name)
    with store.atomic_folder(loaded.data_folder(name)) as folder:
        prepare(loaded.raw_folder(name), folder, *([scratch] if scratch else []))
    if scratch:
        store.remove(scratch.parent)


if __name__ == "__main__":
    command(main)
