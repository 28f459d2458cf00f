"""Files as inputs of a model: what a domain's `prediction.py` provides.

A file is read as records, one for each input. A record is parsed only when it is answered, so that
a run that continues skips quickly, and memory holds the inputs of one batch.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel

from ostinato.data.files import list_files, printable
from ostinato.errors import DataError, OstinatoError, SourceError
from ostinato.task import Json, Service

Key = Mapping[str, Json]
"""The columns that tell one input of a file from the others."""


class Record(NamedTuple):
    """An input that is not parsed yet.

    Attributes:
        place: in its file, such as "line 3"; empty where the file is one input.
        size: bytes, by which similar inputs share a batch.
        parse: returns key and input, of the type that the service reads; raises an `OstinatoError`
            where it is malformed.
    """

    place: str
    size: int
    parse: Callable[[], tuple[Key, Any]]


def dump(response: BaseModel) -> list[dict[str, Any]]:
    """A response as one row."""
    return [response.model_dump()]


@dataclass(frozen=True)
class Format:
    """How the files of a domain are read, and what its rows consist of.

    Args:
        noun: for its inputs.
        suffixes: of the files that are read in a folder.
        keys: columns of the key, with their types.
        batch_size: inputs that the service gets at once.
        read: ``read(path, service, *, ...)``: the records of a file; the keyword-only arguments are
            options of the command. A broken file raises a `DataError`.
        columns: of a row besides the key, with their types.
        rows: of a response.
        left_out: options of requests whose answers do not fit a table.
    """

    noun: str
    suffixes: Collection[str]
    keys: Mapping[str, Any]
    batch_size: int
    read: Callable[..., Iterator[Record]]
    columns: Callable[[Service], Mapping[str, Any]]
    rows: Callable[[BaseModel], list[dict[str, Any]]] = dump
    left_out: Collection[str] = ()


def fields(response: type[BaseModel]) -> dict[str, Any]:
    """The types of a response's fields."""
    return {name: field.annotation for name, field in response.model_fields.items()}


def refused(place: str, reason: str, size: int = 0) -> Record:
    """The record of something that cannot be read."""

    def parse() -> NoReturn:
        raise DataError(reason)

    return Record(place, size, parse)


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Args:
        path: of the file.
        name: in rows and messages: relative to the folder of the command.
        bytes: its size.
        modified: time of the last change, in nanoseconds.
        sha256: of its content.
    """

    path: Path
    name: str
    bytes: int
    modified: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> "InputFile":
        """Read the digest of a file.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            stat = path.stat()
        except OSError as error:
            raise SourceError(f"{printable(path)}: {error.strerror}") from None
        return cls(path, name, stat.st_size, stat.st_mtime_ns, digest)

    def is_unchanged(self) -> bool:
        """Whether the file has the size and the time that it had."""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.modified)


def find_files(path: Path, suffixes: Collection[str]) -> tuple[list[InputFile], str]:
    """The files that a path names, and a line about those of a folder that are not read.

    Args:
        path: of a file with any suffix, or of a folder; its subfolders are included.
        suffixes: of the files in a folder.

    Raises:
        SourceError: there is no such file or folder, nothing to read in it, or a link leads out.
    """
    if path.is_file():
        return [InputFile.of(path, printable(Path(path.name)))], ""
    if not path.exists():
        raise SourceError(f"{printable(path)}: no such file or folder")
    found = list_files(path, suffixes)
    if not found.files:
        expected = ", ".join(sorted(suffixes))
        raise SourceError(f"{found.summary()}; expected files that end with {expected}")
    files = [InputFile.of(file, printable(file.relative_to(found.root))) for file in found.files]
    return files, found.summary() if found.skipped else ""


class Position(NamedTuple):
    """A place in the input: the number of a file, and of a record in it."""

    file: int
    record: int


class Located(NamedTuple):
    """A record with its file, and the position of the record after it."""

    file: InputFile
    record: Record
    next: Position


def read_from(
    files: Sequence[InputFile], read: Callable[[Path], Iterator[Record]], start: Position
) -> Iterator[Located]:
    """The records of all files from a position on; a broken file becomes a record that says so."""
    for index, file in enumerate(files[start.file :], start.file):
        skipped = start.record if index == start.file else 0
        records = _until_broken(file, read)
        for number, record in enumerate(islice(records, skipped, None), skipped + 1):
            yield Located(file, record, Position(index, number))


def _until_broken(file: InputFile, read: Callable[[Path], Iterator[Record]]) -> Iterator[Record]:
    try:
        yield from read(file.path)
    except OstinatoError as error:
        yield refused("", str(error))
    except OSError as error:
        yield refused("", f"not readable: {error.strerror or error}")
