"""The manifest of a folder of raw drawings: which files a source has written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ostinato import store
from ostinato.errors import DataError

Format = Literal["ndjson", "npz", "tfds"]
Form = Literal["simplified", "raw"]


@dataclass(frozen=True)
class RawFile:
    """A file of raw drawings.

    Args:
        path: relative to the folder.
        category: of its drawings; None if each line has its own word.
        bytes: its size.
        sha256: of its content.
        lines: number of lines; None if it is no text.
        url: from which it was downloaded; None if it is local.
        tested: whether its drawings may be in the test split.
    """

    path: str
    category: str | None
    bytes: int
    sha256: str = ""
    lines: int | None = None
    url: str | None = None
    tested: bool = True


@dataclass(frozen=True)
class RawManifest:
    """The content of a raw folder's manifest.json. It has no times: equal input, equal bytes.

    Args:
        source: the function that fetched the drawings.
        format: QuickDraw's ndjson, SketchRNN's npz, or a data set of tensorflow-datasets.
        form: of ndjson: Google's simplification, or raw drawings; else None.
        categories: all categories that are known without reading the files.
        files: all files but the manifest.
        licence: of the drawings; None if unknown.
        per_class: drawings requested for each category.
        dataset: of tfds: the folder of the data set.
        counts: of tfds: the number of drawings by category.
        feedback: of feedback: how many labels came, by what became of them.
    """

    source: str
    format: Format
    form: Form | None
    categories: Sequence[str]
    files: Sequence[RawFile]
    licence: str | None = None
    per_class: int | None = None
    dataset: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    feedback: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "RawManifest":
        """Read the manifest of a raw folder.

        Raises:
            DataError: the folder has none, or it is not that of a source of drawings.
        """
        path = folder / "manifest.json"
        try:
            content = store.read_json(path)
            return cls(**{**content, "files": [RawFile(**file) for file in content["files"]]})
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run `dvc repro` to fetch the data") from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a manifest of raw drawings: {error}") from None

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder."""
        optional = {
            name: value
            for name in ("dataset", "counts", "per_class", "feedback")
            if (value := getattr(self, name))
        }
        content: dict[str, Any] = {
            "source": self.source,
            "licence": self.licence,
            "format": self.format,
            "form": self.form,
            "categories": list(self.categories),
            **optional,
            "files": [_entry(file) for file in self.files],
        }
        store.write_json(folder / "manifest.json", content)


def _entry(file: RawFile) -> dict[str, Any]:
    """A file in the manifest; ``tested`` is left out where it is as usual."""
    return {name: value for name, value in asdict(file).items() if name != "tested" or not value}
