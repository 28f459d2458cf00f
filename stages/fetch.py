"""Fetch raw data: ``python -m stages.fetch STUDY DATA``."""

from ostinato import download, inputs, params, store
from stages.entry import command, key_of, load_study


def main(study: str, name: str) -> None:
    """Fetch the data set ``name`` of a study into data/raw/<name>.

    A download that was killed or failed leaves its files in scratch/ and continues from there.
    """
    name, loaded = key_of(name), load_study(study)
    blocks = loaded.entry("data", name, "fetch")
    source = params.entry(blocks, "source")
    domain, where = loaded.entry("data", name, "domain"), f"data.{name}.fetch.{source}"
    function = params.function(params.module(domain, "sources"), source)
    block = inputs.found(domain, source, params.entry(blocks, source), where)
    fetch = params.bind(function, block)
    scratch = loaded.scratch("fetch", name, store.digest(source, blocks[source])[:12])
    scratch.mkdir(parents=True, exist_ok=True)
    with store.atomic_folder(loaded.raw_folder(name)) as folder:
        fetch(folder, scratch, loaded.params["seed"])
    store.remove(scratch)
    store.write_json(loaded.urls_file(name), download.states())


if __name__ == "__main__":
    command(main)
