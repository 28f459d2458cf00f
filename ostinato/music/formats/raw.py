"""Raw data of the domain: pieces.npz and manifest.json, as each source writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ostinato import store
from ostinato.errors import DataError
from ostinato.music.formats.roll import NOTES, Roll, pack, unpack
from ostinato.task import Json

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Piece:
    """A piece of music.

    Args:
        key: its name, unique in a data set.
        roll: which notes sound in each frame.
        style: name of the group that it belongs to.
        split: that its source puts it into; empty: none.
    """

    key: str
    roll: Roll
    style: str
    split: str = ""


@dataclass(frozen=True)
class RawPieces:
    """What a source has fetched.

    Args:
        source: its name.
        frames_per_quarter: frames of a quarter note.
        quarters_per_bar: of written pieces.
        quarters_per_minute: of written pieces.
        pieces: all of them.
        rejects: the reason of each file that is no piece, by its name.
    """

    source: str
    frames_per_quarter: int
    quarters_per_bar: int
    quarters_per_minute: float
    pieces: Sequence[Piece]
    rejects: dict[str, str] = field(default_factory=dict)

    @property
    def details(self) -> dict[str, Json]:
        """The fields that are kept as JSON."""
        return {
            "source": self.source,
            "frames_per_quarter": self.frames_per_quarter,
            "quarters_per_bar": self.quarters_per_bar,
            "quarters_per_minute": self.quarters_per_minute,
            "rejects": self.rejects,
        }


def write(folder: Path, raw: RawPieces) -> None:
    """Write what a source has fetched."""
    rolls = [piece.roll for piece in raw.pieces] or [np.zeros((0, NOTES), bool)]
    texts = {
        name: np.array([getattr(piece, name) for piece in raw.pieces], str)
        for name in ("key", "style", "split")
    }
    lengths = np.array([len(piece.roll) for piece in raw.pieces], np.int64)
    frames = pack(np.concatenate(rolls))
    store.write_arrays(folder / "pieces.npz", {**texts, "lengths": lengths, "frames": frames})
    store.write_json(folder / "manifest.json", raw.details)


def read(folder: Path) -> RawPieces:
    """Read what `write` has written.

    Raises:
        DataError: the manifest has other fields.
    """
    arrays = store.read_arrays(folder / "pieces.npz")
    ends = np.cumsum(arrays["lengths"])
    rolls = np.split(unpack(arrays["frames"]), ends[:-1])
    columns = (arrays[name].tolist() for name in ("key", "style", "split"))
    rows = zip(*columns, rolls, strict=False)
    pieces = [Piece(key, roll, style, split) for key, style, split, roll in rows]
    found = store.read_json(folder / "manifest.json")
    try:
        return RawPieces(pieces=pieces, **found)
    except TypeError:
        raise DataError(
            f"{folder / 'manifest.json'}: found {sorted(found)}; expected what a source of the "
            "domain music writes; `dvc repro` fetches it again"
        ) from None
