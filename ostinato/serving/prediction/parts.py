"""An output that is written in parts, so that a killed run can continue.

    OUTPUT.parts/run.json          what the parts are made of: model, version, input, options
    OUTPUT.parts/000000.parquet    the rows of a part
    OUTPUT.parts/000000.json       its counts and rejects, written last: only then the part counts

All temporary files are in this folder. In the end the parts are joined in it, and the output, its
list of rejects and its lineage take their names; the output is the last.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from ostinato.errors import StoreError
from ostinato.serving.prediction import tables
from ostinato.serving.prediction.records import Position
from ostinato.task import Json

DESCRIPTION = "run.json"
TEMPORARY = "partial"
LAYOUT = 1  # of the folder


@dataclass(frozen=True)
class Reject:
    """What could not be answered, or not be read.

    Args:
        file: its name.
        place: in the file; empty: the whole file.
        reason: in one line.
    """

    file: str
    place: str
    reason: str


@dataclass(frozen=True)
class Part:
    """A part that is complete.

    Args:
        answered: inputs.
        rejected: inputs, or places of the input.
        rows: of the output.
        next: where the next part begins.
    """

    answered: int
    rejected: int
    rows: int
    next: Position


class Parts:
    """The folder of the parts of one output, for one process at a time: see `opened`."""

    def __init__(self, output: Path, columns: Mapping[str, Any]) -> None:
        self.output, self.columns, self.folder = output, columns, folder_of(output)
        self.done = [_part(marker) for marker in self._markers()]

    @property
    def next(self) -> Position:
        """Where the next part begins."""
        return self.done[-1].next if self.done else Position(0, 0)

    def add(self, rows: Sequence[tables.Row], rejects: Sequence[Reject], part: Part) -> None:
        """Write the next part."""
        name = f"{len(self.done):06}"
        with self._whole(self.folder / f"{name}{self.output.suffix}") as path:
            tables.write(path, rows, self.columns)
        with self._whole(self.folder / f"{name}.json") as path:
            counted = {**asdict(part), "next": list(part.next)}
            path.write_bytes(orjson.dumps({"part": counted, "rejects": rejects}))
        self.done.append(part)

    def rejects(self) -> Iterator[Reject]:
        """The rejects of all parts."""
        for marker in self._markers():
            for reject in orjson.loads(marker.read_bytes())["rejects"]:
                yield Reject(**reject)

    def join(self, lineage: Mapping[str, Json]) -> None:
        """Write the output with its rejects and its lineage, then remove the parts."""
        paths = [
            self.folder / f"{number:06}{self.output.suffix}" for number in range(len(self.done))
        ]
        rejects = rejects_of(self.output)
        with self._whole(self.output) as output:
            tables.join(paths, output, self.columns)
            if any(part.rejected for part in self.done):
                with self._whole(rejects) as path, path.open("wb") as file:
                    for reject in self.rejects():
                        file.write(orjson.dumps(reject, option=orjson.OPT_APPEND_NEWLINE))
            else:
                rejects.unlink(missing_ok=True)
            with self._whole(lineage_of(self.output)) as path:
                path.write_text(json.dumps(lineage, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (self.folder / DESCRIPTION).unlink()  # what a kill leaves now is no run to continue
        shutil.rmtree(self.folder)

    @contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """A temporary path; takes the name of ``path`` when the block ends well."""
        with _written(path):
            temporary = self.folder / f"{TEMPORARY}.{path.name}"
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)

    def _markers(self) -> Iterator[Path]:
        number = 0
        while (marker := self.folder / f"{number:06}.json").exists():
            yield marker
            number += 1


def _part(marker: Path) -> Part:
    content = orjson.loads(marker.read_bytes())["part"]
    return Part(**{**content, "next": Position(*content["next"])})


def folder_of(output: Path) -> Path:
    """The folder of the parts."""
    return output.with_name(f"{output.name}.parts")


def rejects_of(output: Path) -> Path:
    """The list of rejects."""
    return output.with_name(f"{output.name}.rejects.ndjson")


def lineage_of(output: Path) -> Path:
    """The lineage."""
    return output.with_name(f"{output.name}.json")


@contextmanager
def locked(output: Path, description: Mapping[str, Json], overwrite: bool) -> Iterator[None]:
    """Hold the folder of the parts, with those of an earlier run of the same description.

    Args:
        output: to be written.
        description: of all that the parts depend on.
        overwrite: replace an output that exists, and the parts of another run.

    Raises:
        StoreError: another process writes the output, it exists, the folder has parts of another
            run or is none of parts, or cannot be written.
    """
    folder = folder_of(output)
    with _written(folder):
        folder.mkdir(exist_ok=True)
        strange = [file.name for file in folder.iterdir() if not _is_own(file)]
    if strange:
        raise StoreError(f"{folder}: found {strange[0]}; expected parts of an output only")
    lock = FileLock(folder / f"{TEMPORARY}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{output}: another process is writing it") from None
    try:
        _continue(output, folder, {"layout": LAYOUT, **description}, overwrite)
        yield
    finally:
        lock.release()
        if folder.exists() and not (folder / DESCRIPTION).exists():  # nothing was begun
            shutil.rmtree(folder)


def _continue(output: Path, folder: Path, description: Mapping[str, Json], overwrite: bool) -> None:
    file = folder / DESCRIPTION
    former = orjson.loads(file.read_bytes()) if file.exists() else None
    if former == description:
        return
    if former is not None and not overwrite:
        names = sorted(former.keys() | description.keys())
        changed = [name for name in names if former.get(name) != description.get(name)]
        shown = ", ".join(
            f"{name} ({former.get(name)}, now {description.get(name)})"
            if isinstance(description.get(name), str | int | dict)
            else name
            for name in changed
        )
        raise StoreError(
            f"{folder}: an earlier run was not finished, and had another {shown}; repeat that run, "
            "or set --overwrite, which removes its parts"
        )
    if output.exists() and not overwrite:
        raise StoreError(f"{output}: exists; remove it, or set --overwrite, which replaces it")
    for each in folder.iterdir():
        if each.name != f"{TEMPORARY}.lock":
            each.unlink()
    with _written(file):
        temporary = folder / f"{TEMPORARY}.{DESCRIPTION}"
        temporary.write_bytes(orjson.dumps(description))
        temporary.replace(file)


def _is_own(file: Path) -> bool:
    name = file.name
    numbered = file.stem.isdecimal() and file.suffix in (*tables.SUFFIXES, ".json")
    known = numbered or name == DESCRIPTION or name.startswith(TEMPORARY)
    return known and not file.is_dir()  # it may be gone: another process renames its files


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: not written: {error.strerror or error}; the same command continues"
        ) from None
