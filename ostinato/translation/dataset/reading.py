"""Raw files of parallel text to pairs, one after the other: nothing is held but the pair at hand.

What cannot be read is a ``DataError`` that names file and line: two files of unequal length, bytes
that are not UTF-8, a missing column, broken XML or a broken catalog.
"""

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple

from ostinato.errors import DataError

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class Pair(NamedTuple):
    """A text and its translation, as they stand in the file."""

    split: str | None  # of the file, if it has one
    source: str
    target: str
    uncertain: bool = False  # marked as such by its translators


def pairs(raw: Path, about: dict[str, Any]) -> Iterator[Pair]:
    """All pairs of a raw folder whose manifest is ``about``, in the order of its files.

    Raises:
        DataError: see above.
    """
    read = {"moses": _moses, "tsv": _tsv, "tmx": _tmx, "gettext": _gettext}[about["format"]]
    yield from read(raw, about)


def _moses(raw: Path, about: dict[str, Any]) -> Iterator[Pair]:
    names = {(file["split"], file["language"]): file["path"] for file in about["files"]}
    for split in dict.fromkeys(split for split, _ in names):
        first, second = (names[split, language] for language in about["languages"])
        with _opened(raw / first) as one, _opened(raw / second) as two:
            lines = zip_longest(_lines(one, first), _lines(two, second))
            for number, (source, target) in enumerate(lines, 1):
                if source is None or target is None:
                    short, long = (first, second) if source is None else (second, first)
                    raise DataError(
                        f"{long}:{number}: {short} has no such line, it ends after {number - 1}; "
                        "fetch both again, or cut them to the lines that belong together"
                    )
                yield Pair(split, source, target)


def _tsv(raw: Path, about: dict[str, Any]) -> Iterator[Pair]:
    (file,), (first, second) = about["files"], about["columns"]
    with _opened(raw / file["path"]) as table:
        for number, line in enumerate(_lines(table, file["path"]), 1):
            cells = line.split("\t")
            if len(cells) < max(first, second):
                raise DataError(
                    f"{file['path']}:{number}: {len(cells)} columns, {max(first, second)} needed"
                )
            yield Pair(file["split"], cells[first - 1], cells[second - 1])


def _tmx(raw: Path, about: dict[str, Any]) -> Iterator[Pair]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    (file,) = about["files"]
    with _opened(raw / file["path"]) as stream:
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
                    source, target = (texts.get(code, "") for code in about["languages"])
                    yield Pair(file["split"], source, target)
                    body.clear()  # else the tree of all units stays
        except DefusedXmlException as error:
            raise DataError(f"{file['path']}: refused, it declares entities: {error}") from None
        except ParseError as error:
            raise DataError(f"{file['path']}:{error.position[0]}: not XML: {error}") from None


def _gettext(raw: Path, about: dict[str, Any]) -> Iterator[Pair]:
    import polib

    swapped = about["languages"][1] == about["original"]
    for file in about["files"]:
        path = raw / file["path"]
        try:
            if path.suffix == ".mo":
                catalog: Any = polib.mofile(str(path))
            else:
                with path.open("rb") as stream:
                    catalog = polib.pofile("\n".join(_lines(stream, file["path"])) + "\n")
        except DataError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"{file['path']}: not a catalog: {error}") from None
        for entry in catalog:
            if entry.obsolete:
                continue
            plural = entry.msgstr_plural
            found = [(entry.msgid, entry.msgstr)]
            if plural:
                last = plural[max(plural)]
                found = [(entry.msgid, plural[min(plural)]), (entry.msgid_plural, last)]
            for original, translation in found:
                texts = (translation, original) if swapped else (original, translation)
                yield Pair(file["split"], *texts, uncertain="fuzzy" in getattr(entry, "flags", ()))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, of a ``.gz``, or of the one table in a ``.zip``."""
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield packed  # type: ignore[misc]
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if not m.startswith("_") and m[-1] != "/"]
            if len(members) != 1:
                raise DataError(f"{path.name}: expected one table in it, found {members}")
            with archive.open(members[0]) as member:
                yield member
    else:
        with path.open("rb") as plain:
            yield plain


def _lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """Lines that end with a line feed alone: Unicode has others, which stand within texts."""
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
        raise DataError(f"{name}: cut off or broken: {error}; fetch it again") from None
