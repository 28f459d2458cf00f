"""Readers of raw parallel text: one pair at a time, in constant memory.

A file that cannot be read raises a ``DataError`` that names file and line: files of unequal length,
bytes that are not UTF-8, a missing column, malformed XML or a malformed catalog.
"""

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple

from ostinato import store
from ostinato.errors import DataError

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class Pair(NamedTuple):
    """A text and its translation, as they are in the file."""

    split: str | None  # of the file, if it has one
    source: str
    target: str
    uncertain: bool = False  # marked as uncertain by the translators


@dataclass(frozen=True)
class RawFile:
    """A raw file.

    Attributes:
        path: relative to the folder.
        split: train, validation or test; None if the pairs are to be split.
        language: of a file with one language.
    """

    path: str
    split: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class RawManifest:
    """The manifest that a source writes beside its files.

    Attributes:
        source: name of the source.
        format: moses (two files, line by line), tsv, tmx or gettext.
        languages: codes of the source and of the target language.
        files: in the order in which they are read.
        original: of catalogs, the language of the message ids.
        columns: of tables, the columns of the two languages, from 1.
    """

    source: str
    format: str
    languages: list[str]
    files: list[RawFile]
    original: str | None = None
    columns: list[int] | None = None

    @classmethod
    def read(cls, raw: Path) -> "RawManifest":
        """Read the manifest of a raw folder.

        Raises:
            DataError: there is none.
        """
        try:
            content = store.read_json(raw / "manifest.json")
        except FileNotFoundError:
            raise DataError(f"{raw}: no manifest.json; fetch the data first") from None
        files = [
            RawFile(file["path"], file.get("split"), file.get("language"))
            for file in content["files"]
        ]
        return cls(
            content["source"],
            content["format"],
            content["languages"],
            files,
            content.get("original"),
            content.get("columns"),
        )


def read_pairs(raw: Path, manifest: RawManifest) -> Iterator[Pair]:
    """Read all pairs of a raw folder, in the order of its files.

    Raises:
        DataError: a file cannot be read; names file and line.
    """
    readers = {"moses": _moses, "tsv": _tsv, "tmx": _tmx, "gettext": _gettext}
    yield from readers[manifest.format](raw, manifest)


def _moses(raw: Path, manifest: RawManifest) -> Iterator[Pair]:
    names = {(file.split, file.language): file.path for file in manifest.files}
    for split in dict.fromkeys(split for split, _ in names):
        first, second = (names[split, language] for language in manifest.languages)
        with _open_file(raw / first) as one, _open_file(raw / second) as two:
            lines = zip_longest(_lines(one, first), _lines(two, second))
            for number, (source, target) in enumerate(lines, 1):
                if source is None or target is None:
                    short, long = (first, second) if source is None else (second, first)
                    raise DataError(
                        f"{long}:{number}: {short} has only {number - 1} lines; fetch both files "
                        "again, or cut them to the lines that belong together"
                    )
                yield Pair(split, source, target)


def _tsv(raw: Path, manifest: RawManifest) -> Iterator[Pair]:
    (file,), (first, second) = manifest.files, manifest.columns or [1, 2]
    with _open_file(raw / file.path) as table:
        for number, line in enumerate(_lines(table, file.path), 1):
            cells = line.split("\t")
            if len(cells) < max(first, second):
                raise DataError(
                    f"{file.path}:{number}: {len(cells)} columns, {max(first, second)} needed"
                )
            yield Pair(file.split, cells[first - 1], cells[second - 1])


def _tmx(raw: Path, manifest: RawManifest) -> Iterator[Pair]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    (file,) = manifest.files
    with _open_file(raw / file.path) as stream:
        try:
            body: Any = None
            for event, element in iterparse(stream, ("start", "end"), forbid_entities=True):
                if event == "start" and element.tag == "body":
                    body = element
                elif event == "end" and element.tag == "tu":
                    texts: dict[str, str] = {}
                    for variant in element.iter("tuv"):
                        language = variant.get(XML_LANGUAGE) or variant.get("lang") or ""
                        segment = variant.find("seg")
                        if segment is not None:
                            code = language.lower().replace("_", "-").partition("-")[0]
                            texts.setdefault(code, "".join(segment.itertext()))
                    source, target = (texts.get(code, "") for code in manifest.languages)
                    yield Pair(file.split, source, target)
                    body.clear()  # keeps memory constant
        except DefusedXmlException as error:
            raise DataError(f"{file.path}: refused: it declares entities: {error}") from None
        except ParseError as error:
            raise DataError(f"{file.path}:{error.position[0]}: not XML: {error}") from None


def _gettext(raw: Path, manifest: RawManifest) -> Iterator[Pair]:
    import polib

    swapped = manifest.languages[1] == manifest.original
    for file in manifest.files:
        path = raw / file.path
        try:
            if path.suffix == ".mo":
                catalog: Any = polib.mofile(str(path))
            else:
                with path.open("rb") as stream:
                    catalog = polib.pofile("\n".join(_lines(stream, file.path)) + "\n")
        except DataError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"{file.path}: not a gettext catalog: {error}") from None
        for entry in catalog:
            if entry.obsolete:
                continue
            plural = entry.msgstr_plural
            messages = [(entry.msgid, entry.msgstr)]
            if plural:
                last = plural[max(plural)]
                messages = [(entry.msgid, plural[min(plural)]), (entry.msgid_plural, last)]
            for original, translation in messages:
                texts = (translation, original) if swapped else (original, translation)
                yield Pair(file.split, *texts, uncertain="fuzzy" in getattr(entry, "flags", ()))


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, a ``.gz`` file, or the only table of a ``.zip`` file, as bytes."""
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield packed  # type: ignore[misc]
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if not m.startswith("_") and m[-1] != "/"]
            if len(members) != 1:
                raise DataError(f"{path.name}: expected one table, found {members}")
            with archive.open(members[0]) as member:
                yield member
    else:
        with path.open("rb") as plain:
            yield plain


def _lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """Lines that end with a line feed; texts may contain Unicode's other line separators."""
    try:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{name}:{number}: not UTF-8, byte {line[error.start]:#04x} at column "
                    f"{error.start + 1}; convert the file"
                ) from None
            yield text.rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: truncated or corrupt: {error}; fetch it again") from None
