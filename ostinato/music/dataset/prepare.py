"""Prepare raw pieces: clean, split, and find their keys."""

import logging
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ostinato import store
from ostinato.data.profile import sorted_sample
from ostinato.errors import DataError
from ostinato.music.formats import raw as raw_pieces
from ostinato.music.formats.keys import KEYS, find_key
from ostinato.music.formats.raw import SPLITS, Piece
from ostinato.music.formats.roll import LOWEST, pack
from ostinato.task import Manifest, Profile
from ostinato.units import Count, Fraction, SplitFraction

LOG = logging.getLogger(__name__)


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: SplitFraction,
    test: SplitFraction,
    min_frames: Count,
) -> None:
    """Write the pieces of each split.

    A piece keeps the split of its source; others are split by a hash of the name.

    Args:
        raw: that a source has filled.
        folder: an empty folder; gets an array file for each split, ``manifest.json`` and
            ``profile.json``.
        tolerated_rejects: fraction of the files that may be broken.
        validation: fraction of the pieces without a split in the validation split.
        test: fraction of the pieces without a split in the test split.
        min_frames: shorter pieces, and pieces without a note, are left out.

    Raises:
        DataError: more files are broken than tolerated, or a split is empty.
    """
    found = raw_pieces.read(raw)
    files = len(found.pieces) + len(found.rejects)
    if len(found.rejects) > tolerated_rejects * files:
        name, reason = next(iter(found.rejects.items()))
        raise DataError(
            f"{raw}: found {len(found.rejects)} broken files of {files}, such as {name}: "
            f"{reason}; expected {tolerated_rejects:.1%} at most; set tolerated_rejects"
        )
    kept = [p for p in found.pieces if len(p.roll) >= max(2, min_frames) and p.roll.any()]
    left_out = len(found.pieces) - len(kept)
    if left_out:
        LOG.info("%d pieces have fewer than %d frames and are left out", left_out, min_frames)
    parts: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    for piece in kept:
        parts[piece.split or split_of(piece.key, validation, test)].append(piece)
    if empty := [split for split, part in parts.items() if not part]:
        raise DataError(
            f"{raw}: no piece is left in the split {' and '.join(empty)}; fetch more "
            "pieces, or lower min_frames"
        )
    styles = sorted({piece.style for piece in kept})
    splits: dict[str, dict[str, int]] = {}
    for split, part in parts.items():
        lengths = np.array([len(piece.roll) for piece in part], np.int64)
        keys = np.array([find_key(piece.roll) for piece in part], np.int32)
        store.write_arrays(
            folder / f"{split}.npz",
            {
                "frames": pack(np.concatenate([piece.roll for piece in part])),
                "ends": np.cumsum(lengths),
                "styles": np.array([styles.index(piece.style) for piece in part], np.int32),
                "musical_keys": keys,
                "keys": np.array([piece.key for piece in part], str),
            },
        )
        splits[split] = {"pieces": len(part), "frames": int(lengths.sum())}
    used = np.flatnonzero(np.any([p.roll.any(axis=0) for p in parts["train"]], axis=0)) + LOWEST
    manifest = Manifest(
        source=found.source,
        examples="pieces",
        splits=splits,
        classes=styles,
        details={
            **{key: value for key, value in found.details.items() if key != "source"},
            "left_out": left_out,
            "lowest": int(used[0]),
            "highest": int(used[-1]),
            "longest": int(max(len(piece.roll) for piece in parts["train"])),
            "key_counts": key_counts(parts["train"]),
        },
    )
    store.write_json(folder / "manifest.json", manifest.to_json())
    store.write_json(folder / "profile.json", profile(parts["train"]).to_json())


def key_counts(pieces: list[Piece]) -> list[int]:
    """How many pieces are in each key of `KEYS`."""
    found = [find_key(piece.roll) for piece in pieces]
    return [found.count(key) for key in range(len(KEYS))]


def split_of(key: str, validation: float, test: float) -> str:
    """The split of a piece, a function of its name and the fractions."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    uniform = int.from_bytes(digest, "little") / 2.0**64
    if uniform < test:
        return "test"
    return "validation" if uniform < test + validation else "train"


def profile(pieces: list[Piece]) -> Profile:
    """The distributions of features of pieces."""
    notes = [piece.roll.sum(axis=1) for piece in pieces]
    pitches = np.concatenate([np.nonzero(piece.roll)[1] for piece in pieces]) + LOWEST
    keys = Counter(find_key(piece.roll) for piece in pieces)
    return Profile(
        examples=len(pieces),
        numbers={
            "frames": sorted_sample(np.array([len(piece.roll) for piece in pieces])),
            "notes_per_frame": sorted_sample(np.array([n.mean() for n in notes])),
            "pitch": sorted_sample(pitches),
        },
        counts={
            "style": dict(sorted(Counter(piece.style for piece in pieces).items())),
            "key": {KEYS[key] if key >= 0 else "none": n for key, n in sorted(keys.items())},
        },
    )
