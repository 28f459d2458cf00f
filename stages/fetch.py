"""The world to raw bytes and a manifest: ``python -m stages.fetch DATA``."""

from pathlib import Path

from ostinato import params, store
from stages import command, key_of, load_study


def main(name: str) -> None:
    """Fetch the data set ``name`` of params.yaml into data/raw/<name>.

    What a killed or failed download has got so far stays in scratch/ and is taken up again.
    """
    name, values = key_of(name), load_study()
    data = params.entry(values, "data", name)
    blocks = params.entry(data, "fetch")
    source = params.entry(blocks, "source")
    sources = params.module(params.entry(data, "domain"), "sources")
    fetch = params.bind(params.function(sources, source), params.entry(blocks, source))
    scratch = Path("scratch", "fetch", name, store.digest(source, blocks[source])[:12])
    scratch.mkdir(parents=True, exist_ok=True)
    with store.atomic_folder(Path("data", "raw", name)) as folder:
        fetch(folder, scratch, values["seed"])
    store.remove(scratch)


if __name__ == "__main__":
    command(main)
