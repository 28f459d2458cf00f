"""The local files that a study's sources read, as DVC sees them.

A parameter of the type `ostinato.units.Location` is a URL or a path. DVC's graph knows the text of
the parameter, and not the files that it names. The stage `check` runs whenever DVC runs, and writes
the state of these files into ``data/.inputs/<data>.json``, on which the stage `fetch` depends.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ostinato import params, store
from ostinato.data.files import expanded
from ostinato.download import is_url
from ostinato.errors import SourceError
from ostinato.study import Study
from ostinato.task import Json
from ostinato.units import LocationType, type_arguments

logger = logging.getLogger(__name__)

UNREADABLE = "unreadable"  # in place of the md5 of a file without permission
MAX_READ_BYTES = 1 << 30  # of a folder: a larger one is compared by names, sizes and times


def write(study: Study) -> None:
    """Write the state of the local inputs of each data set.

    A file or folder that is not on this computer keeps its last state: there is nothing new in it.
    """
    cache = study.scratch("inputs.json")
    known: dict[str, list[Any]] = store.read_json(cache) if cache.exists() else {}
    seen: dict[str, list[Any]] = {}
    folder = study.inputs_folder
    for name in study.params["data"]:
        file = folder / f"{name}.json"
        former = store.read_json(file) if file.exists() else {}
        states: dict[str, Json] = {}
        for key, value in local_inputs(study, name):
            path = find(value)
            if path.exists():
                states[key] = state(path, known, seen)
            else:
                states[key] = former.get(key)
                if states[key]:
                    logger.info(f"{value} is not on this computer: {name} keeps its last state")
        if states != former or not file.exists():
            store.write_json(file, states)
    for file in folder.glob("[!.]*.json"):  # hidden: another process writes it
        if file.stem not in study.params["data"]:
            file.unlink(missing_ok=True)
    if seen != known:
        store.write_json(cache, seen)


def local_inputs(study: Study, data: str) -> Iterator[tuple[str, str]]:
    """The dotted key and the path of each local input of a data set's source."""
    entry = study.params["data"][data]
    yield from _locations(entry["domain"], entry["fetch"], "")


def found(domain: str, source: str, block: params.Block, where: str) -> params.Block:
    """The block of a source with the paths at which its local inputs were found.

    Args:
        domain: of the source.
        source: its name.
        block: its parameters.
        where: the dotted key of the block, for an error.

    Raises:
        SourceError: there is no such file or folder; names the place where it was looked for.
    """
    changed = dict(block)
    arguments = params.arguments(params.function(params.module(domain, "sources"), source))

    def place(key: str, value: str) -> str:
        if is_url(value):
            return value
        path = find(value)
        if not path.exists():
            raise SourceError(
                f"{where}.{key}: {value}: no such file or folder; it was looked for at {path}"
            )
        return value if Path(value).resolve() == path.resolve() else str(path)

    for key, (hint, _) in arguments.items():
        if _is_location(hint) and (value := block.get(key)):
            several = isinstance(value, list)
            changed[key] = [place(key, v) for v in value] if several else place(key, value)
    return changed


def find(path: str) -> Path:
    """The absolute path of a local input.

    A relative path is from the working directory; in the temporary folder of an experiment, which
    has only the files of git, from the main checkout where the folder has no such file.

    Raises:
        SourceError: the path begins with ``~``, and the user has no home folder.
    """
    here = expanded(path)
    main = Path(os.environ.get("DVC_ROOT", "."), here).absolute()
    return here.absolute() if here.exists() or not main.exists() else main


def state(
    path: Path, known: Mapping[str, list[Any]], seen: dict[str, list[Any]]
) -> dict[str, Json]:
    """The number of files, their bytes, and a digest of their names and contents.

    Args:
        path: of a file or a folder.
        known: md5 by path, with the size and time at which it was computed.
        seen: receives the same for the files of ``path``.
    """
    files = [path] if path.is_file() else _files(path)
    sizes = [file.stat() for file in files]
    total = sum(one.st_size for one in sizes)
    digest = hashlib.md5(usedforsecurity=False)
    for file, one in zip(files, sizes, strict=True):
        name = file.relative_to(path).as_posix() if file != path else ""
        key, stamp = str(file), [one.st_size, one.st_mtime_ns, one.st_ino]
        if path.is_dir() and total > MAX_READ_BYTES:
            content = str(stamp[:2])
        elif known.get(key, [])[:3] == stamp:
            content = known[key][3]
        else:
            content = _md5(file)
        if content != UNREADABLE:
            seen[key] = [*stamp, content]
        digest.update(f"{name}\0{content}\0".encode("utf-8", "surrogateescape"))
    return {"files": len(files), "bytes": total, "md5": digest.hexdigest()}


def _files(folder: Path) -> list[Path]:
    """All files below a folder that are there, in the order of their names."""
    return sorted(_walk(folder, (folder.resolve(),)))


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files below a folder; a link to a folder that contains it is not followed."""
    try:
        found = list(folder.iterdir())
    except PermissionError:  # the source says so
        return
    for path in found:
        if path.is_file():
            yield path
        elif path.is_dir() and (target := path.resolve()) not in above:
            yield from _walk(path, (*above, target))


def _md5(file: Path) -> str:
    """The md5 of a file, or `UNREADABLE`: the source counts such a file, with its reason."""
    try:
        opened = file.open("rb")
    except PermissionError:
        return UNREADABLE
    with opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _locations(domain: str, fetch: params.Block, prefix: str) -> Iterator[tuple[str, str]]:
    source = fetch["source"]
    block = fetch[source]
    arguments = params.arguments(params.function(params.module(domain, "sources"), source))
    for key, (hint, _) in arguments.items():
        value, name = block.get(key), f"{prefix}{source}.{key}"
        if _is_location(hint) and value:
            for number, one in enumerate(value if isinstance(value, list) else [value]):
                if not is_url(one):
                    yield f"{name}[{number}]" if isinstance(value, list) else name, one
        elif isinstance(value, Mapping) and "source" in value:  # a source that reads another one
            inner = "sketches" if domain == "video" else domain  # videos play drawings back
            yield from _locations(inner, value, f"{name}.")


def _is_location(hint: Any) -> bool:
    """Whether a type is `ostinato.units.Location`, or that or null."""
    return any(isinstance(part, LocationType) for part in type_arguments(hint))
