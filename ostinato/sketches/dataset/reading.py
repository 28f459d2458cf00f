"""Raw files to pieces: the drawings of a part of a file, and what is to be told of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato.sketches.dataset import ndjson, shards, strokes
from ostinato.sketches.dataset.npz import read_npz

CHUNK = 1 << 22  # bytes of ndjson that a thread takes at a time
BITMAPS = 1 << 13  # bitmaps that a thread takes at a time
SHOWN = 200  # bytes of a malformed line that are kept

NUMBERS = ("lines", "malformed", "without_ink", "unrecognised", "cut", "kept")
"""What is counted, in drawings. Malformed, without ink and unrecognised ones are left out."""


class Told(NamedTuple):
    """What is to be told of a piece."""

    numbers: Counter[str]
    breaks: int = 0  # line feeds
    rejects: Sequence[dict[str, Any]] = ()  # line (of the piece, from 1), reason, text


class Piece(NamedTuple):
    """The drawings of a piece of a raw file."""

    content: NDArray[np.uint8]  # this and the next three as in `shards.Records`
    ends: NDArray[np.int64]
    keys: NDArray[np.uint8]
    key_ends: NDArray[np.int64]
    names: list[str]  # class of each drawing, or the one of all
    splits: NDArray[np.int64] | None  # None: by the hash of the key
    told: Told


class Read(NamedTuple):
    """A piece that is yet to be read."""

    file: str
    size: int  # bytes, about
    read: Callable[[], Piece]


def pieces(
    raw: Path, source: dict[str, Any], *, points: int, only_recognised: bool
) -> Iterator[Read]:
    """The pieces of all raw files of a manifest, in order."""
    kind = {"ndjson": _ndjson, "npz": _npz, "tfds": _tfds}[source["format"]]
    return kind(raw, source, points, only_recognised)


def _ndjson(
    raw: Path, source: dict[str, Any], points: int, only_recognised: bool
) -> Iterator[Read]:
    for file in source["files"]:
        read = partial(_lines, file["category"], source["form"], points, only_recognised)
        for start in range(0, file["bytes"], CHUNK):
            size = min(CHUNK, file["bytes"] - start)
            yield Read(file["path"], size, partial(read, raw / file["path"], start))


def _lines(
    category: str | None, form: str, points: int, only_recognised: bool, path: Path, start: int
) -> Piece:
    """The drawings of the lines that begin in the chunk of ``path`` from ``start``."""
    with path.open("rb") as opened:
        opened.seek(max(0, start - 1))
        if start:
            opened.readline()  # the line that began before
        text = opened.read(max(0, start + CHUNK - opened.tell()))
        if text and not text.endswith(b"\n"):
            text += opened.readline()
    parsed, malformed = ndjson.parse(text)
    faults = ndjson.check(*parsed[1:4], form == "simplified")
    if category is None:
        faults[parsed.words[:, 0] == parsed.words[:, 1]] = ndjson.NO_WORD
    without_ink = faults == ndjson.NO_INK
    wrong = (faults > 0) & ~without_ink
    reasons = [ndjson.FAULTS[fault] for fault in faults[wrong]]
    malformed += zip(parsed.lines[wrong].tolist(), reasons, strict=True)
    unrecognised = (faults == 0) & (parsed.recognised == 0) & only_recognised
    numbers = Counter(
        lines=len(faults) + len(malformed) - len(reasons),
        malformed=len(malformed),
        without_ink=int(without_ink.sum()),
        unrecognised=int(unrecognised.sum()),
    )
    keep = (faults == 0) & ~unrecognised
    if not keep.all():
        parsed = ndjson.chosen(parsed, keep)
    simple, ends = parsed.points, parsed.strokes
    if form == "raw":
        simple, ends = strokes.simplify_all(simple, ends, parsed.drawings)
    rows, ends = strokes.stroke3_all(simple.astype(np.int16), ends, parsed.drawings)
    rows, ends, numbers["cut"] = _cut(rows, ends, points)
    keys, key_ends = shards.pieces(parsed.text, parsed.keys)
    if category is None:
        names = [parsed.text[a:b].tobytes().decode() for a, b in parsed.words.tolist()]
    else:
        names = [category] if len(ends) else []
    numbers["kept"] = len(ends)
    rejects = []
    if malformed:
        lines = text.split(b"\n")
        for line, reason in sorted(malformed):
            shown = lines[line][:SHOWN].decode(errors="replace")
            rejects.append({"line": line + 1, "reason": reason, "text": shown})
    content = rows.reshape(-1).view(np.uint8)
    told = Told(numbers, text.count(b"\n"), rejects)
    return Piece(content, ends * shards.ROW, keys, key_ends, names, None, told)


def _cut(
    rows: NDArray[np.int16], ends: NDArray[np.int64], points: int
) -> tuple[NDArray[np.int16], NDArray[np.int64], int]:
    """The first ``points`` rows of each drawing, then a lift of the pen; and how many were cut."""
    sizes = np.diff(ends, prepend=0)
    long = int((sizes > points).sum())
    if long:
        within = np.arange(len(rows)) - np.repeat(ends - sizes, sizes)
        rows, ends = rows[within < points], np.cumsum(np.minimum(sizes, points))
        rows[ends - 1, 2] = 1
    return rows, ends, long


def _npz(raw: Path, source: dict[str, Any], points: int, only_recognised: bool) -> Iterator[Read]:
    for file in source["files"]:
        read = partial(_sketchrnn, file["category"], points, raw / file["path"])
        yield Read(file["path"], CHUNK, read)


def _sketchrnn(category: str, points: int, path: Path) -> Piece:
    """A file's drawings, each aligned to the top left and scaled to the box."""
    numbers: Counter[str] = Counter()
    drawings, keys, splits = [], [], []
    for split, (name, found) in enumerate(read_npz(path).items()):
        for i, rows in enumerate(found):
            tracks = strokes.from_stroke3(rows.astype(np.float64))
            ink = np.concatenate([*tracks, np.zeros((1, 2))])[: len(rows)]
            corner = ink.min(axis=0, initial=np.inf)
            extent = (ink - corner).max(initial=0)
            if extent > 0:
                boxed = [np.rint((track - corner) * strokes.BOX / extent) for track in tracks]
                drawings.append(strokes.to_stroke3(boxed))
                keys.append(f"{path.stem}/{name}/{i}".encode())
                splits.append(split)
            numbers["lines"] += 1
            numbers["without_ink"] += not extent > 0
    ends = np.cumsum([len(rows) for rows in drawings], dtype=np.int64)
    rows, ends, numbers["cut"] = _cut(
        np.concatenate([np.empty((0, 3), np.int16), *drawings]), ends, points
    )
    numbers["kept"] = len(ends)
    return Piece(
        rows.reshape(-1).view(np.uint8),
        ends * shards.ROW,
        *flat(keys),
        [category] if keys else [],
        np.array(splits, np.int64),
        Told(numbers),
    )


def _tfds(raw: Path, source: dict[str, Any], points: int, only_recognised: bool) -> Iterator[Read]:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw / source["dataset"])
    for split, info in builder.info.splits.items():
        for start in range(0, info.num_examples, BITMAPS):
            stop = min(start + BITMAPS, info.num_examples)
            read = partial(_bitmaps, builder, f"{split}[{start}:{stop}]")
            yield Read(source["dataset"], CHUNK, read)


def _bitmaps(builder: Any, split: str) -> Piece:
    import tensorflow_datasets as tfds

    # One file after the other: the order of examples must not depend on threads.
    order = tfds.ReadConfig(interleave_cycle_length=1)
    names = builder.info.features["label"].names
    found = list(tfds.as_numpy(builder.as_dataset(split, read_config=order)))
    inked = [example for example in found if example["image"].any()]
    content = np.concatenate([np.empty(0, np.uint8), *(e["image"].reshape(-1) for e in inked)])
    numbers = Counter(lines=len(found), without_ink=len(found) - len(inked), kept=len(inked))
    return Piece(
        content,
        np.arange(1, len(inked) + 1) * shards.SIDE**2,
        *flat([example["key_id"] for example in inked]),
        [names[example["label"]] for example in inked],
        None,
        Told(numbers),
    )


def flat(keys: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of all keys, and where each ends."""
    ends = np.cumsum([len(key) for key in keys], dtype=np.int64)
    return np.frombuffer(b"".join(keys), np.uint8), ends
