"""Read raw files in chunks: the drawings of a part of a file, and a report on the reading."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16, Int64, Integer, UInt8, UInt64

from ostinato.sketches.dataset import shards
from ostinato.sketches.dataset.sketchrnn_npz import read_npz
from ostinato.sketches.formats import quickdraw, records, strokes
from ostinato.sketches.formats.raw import Form, RawManifest

CHUNK_BYTES = 1 << 22  # of ndjson that a thread reads at a time
CHUNK_BITMAPS = 1 << 13  # that a thread reads at a time
REJECT_BYTES = 200  # of a malformed line that are kept

COUNTS = ("lines", "malformed", "without_ink", "unrecognised", "cut", "kept")
"""The keys of `ReadReport.counts`, in drawings. Malformed drawings, drawings without ink and
unrecognised ones are left out; those that are cut are kept."""


@dataclass(frozen=True)
class Reject:
    """A malformed line.

    Args:
        line: its number in the chunk, from 1.
        reason: why it is malformed.
        text: its first bytes.
    """

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class ReadReport:
    """What was found in a chunk.

    Args:
        counts: by the names in `COUNTS`.
        line_feeds: number of line feeds.
        rejects: the malformed lines.
    """

    counts: Counter[str]
    line_feeds: int = 0
    rejects: Sequence[Reject] = ()


class RawChunk(NamedTuple):
    """The drawings of a chunk of a raw file. The first four fields are as in `records.Records`."""

    content: UInt8[np.ndarray, " byte"]
    ends: Int64[np.ndarray, " drawing"]
    keys: UInt8[np.ndarray, " key_byte"]
    key_ends: Int64[np.ndarray, " drawing"]
    names: list[str]
    """The class of each drawing, or the single class of all."""
    splits: Int64[np.ndarray, " drawing"] | None
    """Index into `shards.SPLITS`; None: the hash of the key determines it."""
    report: ReadReport


class PendingChunk(NamedTuple):
    """A chunk that has not been read yet."""

    file: str
    size: int
    """In bytes, about."""
    read: Callable[[], RawChunk]
    tested: bool = True
    """Whether its drawings may be in the test split."""


def chunks(
    raw: Path, source: RawManifest, *, max_points: int, only_recognised: bool
) -> Iterator[PendingChunk]:
    """The chunks of all raw files of a manifest, in order.

    Args:
        raw: the folder of the files.
        source: its manifest.
        max_points: the number of points that are kept of a longer drawing.
        only_recognised: leave out drawings that Google's game did not recognise.
    """
    read = {"ndjson": _ndjson_chunks, "npz": _npz_chunks, "tfds": _tfds_chunks}[source.format]
    return read(raw, source, max_points, only_recognised)


def _ndjson_chunks(
    raw: Path, source: RawManifest, max_points: int, only_recognised: bool
) -> Iterator[PendingChunk]:
    for file in source.files:
        read = partial(_read_lines, file.category, source.form, max_points, only_recognised)
        for start in range(0, file.bytes, CHUNK_BYTES):
            size = min(CHUNK_BYTES, file.bytes - start)
            read_part = partial(read, raw / file.path, start)
            yield PendingChunk(file.path, size, read_part, file.tested)


def _read_lines(
    category: str | None,
    form: Form | None,
    max_points: int,
    only_recognised: bool,
    path: Path,
    start: int,
) -> RawChunk:
    """The drawings of the lines that begin in the chunk of ``path`` from byte ``start``."""
    with path.open("rb") as opened:
        opened.seek(max(0, start - 1))
        if start:
            opened.readline()  # the line that began in the chunk before
        text = opened.read(max(0, start + CHUNK_BYTES - opened.tell()))
        if text and not text.endswith(b"\n"):
            text += opened.readline()
    parsed, malformed = quickdraw.parse(text)
    faults = quickdraw.check(*parsed[1:4], form == "simplified")
    if category is None:
        faults[parsed.words[:, 0] == parsed.words[:, 1]] = quickdraw.NO_WORD
    without_ink = faults == quickdraw.NO_INK
    wrong = (faults > 0) & ~without_ink
    reasons = [quickdraw.FAULTS[fault] for fault in faults[wrong]]
    malformed += zip(parsed.lines[wrong].tolist(), reasons, strict=True)
    unrecognised = (faults == 0) & (parsed.recognised == 0) & only_recognised
    counts = Counter(
        lines=len(faults) + len(malformed) - len(reasons),
        malformed=len(malformed),
        without_ink=int(without_ink.sum()),
        unrecognised=int(unrecognised.sum()),
    )
    keep = (faults == 0) & ~unrecognised
    if not keep.all():
        parsed = quickdraw.select(parsed, keep)
    points, stroke_ends = parsed.points, parsed.strokes
    if form == "raw":
        points, stroke_ends = strokes.simplify_all(points, stroke_ends, parsed.drawings)
    rows, ends = strokes.stroke3_all(points.astype(np.int16), stroke_ends, parsed.drawings)
    rows, ends, counts["cut"] = _cut(rows, ends, max_points)
    keys, key_ends = records.gather(parsed.text, parsed.keys)
    if category is None:
        names = [parsed.text[a:b].tobytes().decode() for a, b in parsed.words.tolist()]
    else:
        names = [category] if len(ends) else []
    counts["kept"] = len(ends)
    rejects = []
    if malformed:
        lines = text.split(b"\n")
        for line, reason in sorted(malformed):
            beginning = lines[line][:REJECT_BYTES].decode(errors="replace")
            rejects.append(Reject(line + 1, reason, beginning))
    content = rows.reshape(-1).view(np.uint8)
    report = ReadReport(counts, text.count(b"\n"), rejects)
    return RawChunk(content, ends * shards.ROW_BYTES, keys, key_ends, names, None, report)


def find_keys(
    raw: Path, source: RawManifest, wanted: UInt64[np.ndarray, " key"]
) -> dict[str, list[str]]:
    """The places (file:line) of the drawings of ndjson whose keys have one of these hashes, by key.

    Args:
        raw: the folder of the files.
        source: its manifest.
        wanted: `records.digests` of the keys, sorted.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for file in source.files:
        for number, drawing in quickdraw.read_file(raw / file.path):
            if isinstance(drawing, quickdraw.Drawing):
                key = np.frombuffer(drawing.key.encode(), np.uint8)
                digest = records.digests(key, np.array([len(key)]), np.zeros(1, np.uint64))[0]
                if wanted[min(np.searchsorted(wanted, digest), len(wanted) - 1)] == digest:
                    places[drawing.key].append(f"{file.path}:{number}")
    return places


def _cut(
    rows: Int16[np.ndarray, "point 3"], ends: Integer[np.ndarray, " drawing"], max_points: int
) -> tuple[Int16[np.ndarray, "kept_point 3"], Int64[np.ndarray, " drawing"], int]:
    """Cut drawings to ``max_points`` rows, the last of which lifts the pen; count the cut ones."""
    sizes = np.diff(ends, prepend=0)
    long = int((sizes > max_points).sum())
    if long:
        index = np.arange(len(rows)) - np.repeat(ends - sizes, sizes)
        rows, ends = rows[index < max_points], np.cumsum(np.minimum(sizes, max_points))
        rows[ends - 1, 2] = 1
    return rows, ends, long


def _npz_chunks(
    raw: Path, source: RawManifest, max_points: int, only_recognised: bool
) -> Iterator[PendingChunk]:
    for file in source.files:
        assert file.category is not None  # `sources.sketchrnn` names a category for each file
        read = partial(_read_sketchrnn, file.category, max_points, raw / file.path)
        yield PendingChunk(file.path, CHUNK_BYTES, read)


def _read_sketchrnn(category: str, max_points: int, path: Path) -> RawChunk:
    """The drawings of a file, each aligned to the top left and scaled to the box."""
    counts: Counter[str] = Counter()
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
            counts["lines"] += 1
            counts["without_ink"] += not extent > 0
    ends = np.cumsum([len(rows) for rows in drawings], dtype=np.int64)
    rows, ends, counts["cut"] = _cut(
        np.concatenate([np.empty((0, 3), np.int16), *drawings]), ends, max_points
    )
    counts["kept"] = len(ends)
    return RawChunk(
        rows.reshape(-1).view(np.uint8),
        ends * shards.ROW_BYTES,
        *concatenate(keys),
        [category] if keys else [],
        np.array(splits, np.int64),
        ReadReport(counts),
    )


def _tfds_chunks(
    raw: Path, source: RawManifest, max_points: int, only_recognised: bool
) -> Iterator[PendingChunk]:
    import tensorflow_datasets as tfds

    assert source.dataset is not None  # `sources.tfds` names it
    builder = tfds.builder_from_directory(raw / source.dataset)
    for split, info in builder.info.splits.items():
        for start in range(0, info.num_examples, CHUNK_BITMAPS):
            stop = min(start + CHUNK_BITMAPS, info.num_examples)
            read = partial(_read_bitmaps, builder, f"{split}[{start}:{stop}]")
            yield PendingChunk(source.dataset, CHUNK_BYTES, read)


def _read_bitmaps(builder: Any, split: str) -> RawChunk:
    import tensorflow_datasets as tfds

    # One file after the other: the order of examples must not depend on threads.
    order = tfds.ReadConfig(interleave_cycle_length=1)
    names = builder.info.features["label"].names
    found = list(tfds.as_numpy(builder.as_dataset(split, read_config=order)))
    inked = [example for example in found if example["image"].any()]
    content = np.concatenate([np.empty(0, np.uint8), *(e["image"].reshape(-1) for e in inked)])
    counts = Counter(lines=len(found), without_ink=len(found) - len(inked), kept=len(inked))
    return RawChunk(
        content,
        np.arange(1, len(inked) + 1) * shards.SIDE**2,
        *concatenate([example["key_id"] for example in inked]),
        [names[example["label"]] for example in inked],
        None,
        ReadReport(counts),
    )


def concatenate(
    keys: Sequence[bytes],
) -> tuple[UInt8[np.ndarray, " byte"], Int64[np.ndarray, " key"]]:
    """The bytes of all keys, and the end of each key in them."""
    ends = np.cumsum([len(key) for key in keys], dtype=np.int64)
    return np.frombuffer(b"".join(keys), np.uint8), ends
