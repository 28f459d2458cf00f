"""The domain's face: raw drawings to a clean and split data set, and that set for training."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from tqdm import tqdm

from sequences import store
from sequences.sketches import ndjson, shards, strokes
from sequences.sketches.batches import Data
from sequences.sketches.npz import read_npz
from sequences.sketches.shards import SPLITS, Records, Shard
from sequences.units import Count, Fraction, Points

CHUNK = 1 << 22  # bytes of ndjson that a thread takes at a time
BITMAPS = 1 << 13  # bitmaps that a thread takes at a time
SHOWN = 200  # bytes of a malformed line that are kept

load = Data


class DataError(ValueError):
    """Raw data that cannot be prepared; the message says which, why and what to do."""


class Piece(NamedTuple):
    """What a piece of a raw file came to."""

    content: NDArray[np.uint8]  # this and the next three as in `shards.Records`
    ends: NDArray[np.int64]
    keys: NDArray[np.uint8]
    key_ends: NDArray[np.int64]
    names: list[str]  # class of each drawing, or the one of all
    splits: NDArray[np.int64] | None = None  # None: by the hash of the key
    numbers: Counter[str] = Counter()  # noqa: RUF012 (never changed)
    breaks: int = 0  # line feeds
    rejects: Sequence[dict[str, Any]] = ()  # line (of the piece, from 1), reason, text


class Read(NamedTuple):
    """A piece of a raw file that is yet to be read."""

    file: str
    size: int  # bytes, about
    read: Callable[[], Piece]


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: Fraction,
    test: Fraction,
    points: Points,
    only_recognised: bool,
    shard: Count,
    workers: Count,
) -> None:
    """Write raw drawings as a tensorflow-datasets data set, clean and split.

    Raw ones are simplified. Drawings without ink, and all but the first of identical drawings of
    a class, are left out and counted. Malformed lines are kept with their reasons in
    ``rejects.ndjson``. A hash of key_id tells the split, so that a drawing stays in its split
    when the data grow; SketchRNN's files keep their own splits.

    Args:
        raw: a folder with a manifest, as the sources fill it.
        folder: an empty folder; gets the data set, ``manifest.json`` and ``rejects.ndjson``.
        tolerated_rejects: share of the lines that may be malformed.
        validation: share of the drawings.
        test: share of the drawings.
        points: of a longer drawing this many points are kept.
        only_recognised: leave out what Google's game did not recognise.
        shard: drawings in a file of the training split, about.
        workers: threads.

    Raises:
        DataError: too many malformed lines, a category without drawings, or an empty split.
    """
    if validation + test >= 1:
        raise DataError(f"validation {validation} and test {test} leave nothing to train on")
    shares = dict(zip(SPLITS, (1 - validation - test, validation, test), strict=True))
    source = store.read_json(raw / "manifest.json")
    kind = "bitmap" if source["format"] == "tfds" else "strokes"
    pieces = READERS[source["format"]](raw, source, points, only_recognised)
    with (
        tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as aside,
        ThreadPoolExecutor(workers) as threads,
    ):
        groups = list(_groups(pieces))
        paths = [Path(aside, f"{number:06d}") for number in range(len(groups))]
        read = threads.map(partial(_put_aside, shares), groups, paths)
        files, spills = _collected(read, len(groups), folder, tolerated_rejects)
        classes = sorted(set().union(*(spilled.classes for spilled in spills)))
        if missing := sorted(set(source["categories"]) - set(classes)):
            raise DataError(f"{raw}: no drawing is left of {', '.join(map(repr, missing))}")
        kept = sum(numbers["kept"] for numbers in files.values())
        of = max(1, round(kept * shares["train"] / shard))
        write = partial(shards.write, folder, spills, classes, kind, of)
        written = list(
            tqdm(threads.map(write, range(of)), "writing", of, unit="shard", disable=None)
        )
    about = _summed(source, kind, classes, written, files)
    for split, share in shares.items():
        if share > 0 and split not in about["splits"]:
            raise DataError(f"{raw}: no drawing falls into {split}; fetch more, or raise its share")
    numbers = {key: about[key] for key in ("source", "form", "scale", "splits")}
    shards.describe(folder, kind, classes, written, numbers)
    store.write_json(folder / "manifest.json", about)


def _groups(pieces: Iterable[Read]) -> Iterator[list[Read]]:
    """Neighbouring pieces together, so that many small files do not become as many spills."""
    group: list[Read] = []
    for piece in pieces:
        group.append(piece)
        if sum(piece.size for piece in group) >= CHUNK:
            yield group
            group = []
    if group:
        yield group


def _put_aside(
    shares: Mapping[str, float], group: Sequence[Read], path: Path
) -> tuple[list[tuple[str, Piece]], shards.Spill]:
    """Read a group, hash and spill its drawings; returns what is left to tell of each piece."""
    told, found = [], []
    names: dict[str, int] = {}
    for file, _, read in group:
        piece = read()
        own = [names.setdefault(name, len(names)) for name in piece.names]
        labels = np.array(np.broadcast_to(own, len(piece.ends)), np.int64)
        splits = piece.splits
        if splits is None:
            splits = split_of(piece.keys, piece.key_ends, shares)
        seeds = np.array([_seed(name) for name in names], np.uint64)[labels]
        digests = shards.digests(piece.content, piece.ends, seeds)
        found.append(Records(*piece[:4], labels, splits, digests))
        nothing = np.empty(0, np.uint8)
        told.append((file, piece._replace(content=nothing, keys=nothing, names=[])))
    return told, shards.spill(shards.joined(found), list(names), path)


def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def split_of(
    keys: NDArray[np.uint8], ends: NDArray[np.int64], shares: Mapping[str, float]
) -> NDArray[np.int64]:
    """The split of each key, an index into SPLITS: a function of the key and the shares alone."""
    hashes = shards.digests(keys, ends, np.zeros(len(ends), np.uint64))
    place = (hashes >> np.uint64(11)) * 2.0**-53  # even in 0 to 1
    # Test lies at the bottom and validation above it: what a share gains, train alone loses.
    bounds = np.array([shares["test"], shares["test"] + shares["validation"]])
    splits: NDArray[np.int64] = 2 - np.searchsorted(bounds, place, side="right")
    return splits


def _collected(
    read: Iterator[tuple[list[tuple[str, Piece]], shards.Spill]],
    count: int,
    folder: Path,
    tolerated: float,
) -> tuple[dict[str, Counter[str]], list[shards.Spill]]:
    """The numbers of each file, and all spills; writes the rejects file on the way."""
    files: dict[str, Counter[str]] = defaultdict(Counter)
    before: Counter[str] = Counter()  # line feeds of a file
    examples: dict[str, list[str]] = defaultdict(list)
    spills = []
    with (folder / "rejects.ndjson").open("wb") as out:
        for pieces, spilled in tqdm(read, "reading", count, unit="part", disable=None):
            spills.append(spilled)
            for file, piece in pieces:
                for reject in piece.rejects:
                    reject = {"file": file, **reject, "line": before[file] + reject["line"]}
                    out.write(orjson.dumps(reject, option=orjson.OPT_APPEND_NEWLINE))
                    if len(examples[file]) < 3:
                        examples[file].append(f"{file}:{reject['line']}: {reject['reason']}")
                before[file] += piece.breaks
                files[file].update(piece.numbers)
    total = sum(files.values(), Counter[str]())
    if total["malformed"] > tolerated * total["lines"]:
        share = {file: n["malformed"] / n["lines"] for file, n in files.items() if n["lines"]}
        worst = max(share, key=lambda file: share[file])
        raise DataError(
            f"{total['malformed']} of {total['lines']} lines are malformed, more than "
            f"tolerated_rejects: {tolerated} allows; {share[worst]:.1%} of {worst}:\n  "
            + "\n  ".join(examples[worst])
        )
    return files, spills


def _summed(
    source: dict[str, Any],
    kind: str,
    classes: list[str],
    written: list[Shard],
    files: dict[str, Counter[str]],
) -> dict[str, Any]:
    """The manifest."""
    counts = np.sum([shard.counts for shard in written], axis=0)
    sizes = np.sum([shard.sizes for shard in written], axis=0)
    scale = 1.0
    if kind == "strokes":
        number, total, squares = np.sum([s.moments for s in written], axis=0).tolist()
        scale = (squares / number - (total / number) ** 2) ** 0.5 if number else 1.0
    numbers = sum(files.values(), Counter[str]())
    row = shards.ROW if kind == "strokes" else 1
    return {
        **{key: source[key] for key in ("source", "format", "form")},
        "kind": kind,
        "scale": scale,
        "shards": len(written),
        **{key: numbers[key] for key in NUMBERS},
        "duplicates": sum(shard.duplicates for shard in written),
        "drawings": int(counts.sum()),
        "longest": max(shard.longest for shard in written) // row,
        "mean": sum(shard.content for shard in written) / row / max(1, int(counts.sum())),
        "splits": {
            split: {
                "drawings": int(counts[i].sum()),
                "bytes": int(sizes[i]),
                "classes": dict(zip(classes, counts[i].tolist(), strict=True)),
            }
            for i, split in enumerate(SPLITS)
            if counts[i].sum()
        },
        "classes": classes,
        "files": {file: {key: n[key] for key in NUMBERS} for file, n in files.items()},
    }


NUMBERS = ("lines", "malformed", "without_ink", "unrecognised", "cut", "kept")
"""Counted in every file. Malformed, without ink and unrecognised lines are left out, cut ones
kept, all in another unit than points: drawings."""


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
    breaks = text.count(b"\n")
    return Piece(content, ends * shards.ROW, keys, key_ends, names, None, numbers, breaks, rejects)


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
    rows, ends, numbers["cut"] = _cut(np.concatenate([EMPTY, *drawings]), ends, points)
    numbers["kept"] = len(ends)
    return Piece(
        rows.reshape(-1).view(np.uint8),
        ends * shards.ROW,
        *_joined(keys),
        [category] if keys else [],
        np.array(splits, np.int64),
        numbers,
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
        *_joined([example["key_id"] for example in inked]),
        [names[example["label"]] for example in inked],
        None,
        numbers,
    )


def _joined(keys: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.frombuffer(b"".join(keys), np.uint8), np.cumsum(
        [len(k) for k in keys], dtype=np.int64
    )


EMPTY = np.empty((0, 3), np.int16)
READERS = {"ndjson": _ndjson, "npz": _npz, "tfds": _tfds}  # by the manifest's format
