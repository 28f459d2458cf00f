"""What a raw folder of parallel text contains: its manifest, pairs, and parts without a pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ostinato import store
from ostinato.errors import DataError


class Pair(NamedTuple):
    """A text and its translation, as they are in the file."""

    split: str | None  # of the file, if it has one; "feedback": never test
    source: str
    target: str
    uncertain: bool = False  # marked as uncertain by the translators


class Reject(NamedTuple):
    """A line, a translation unit or a whole catalog that cannot be read."""

    file: str
    line: int | None  # from 1; None: the whole file
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.reason}"


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
