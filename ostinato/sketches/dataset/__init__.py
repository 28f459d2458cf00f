"""The domain's face: raw drawings to a clean and split data set, and that set for training."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tqdm import tqdm

from ostinato import store
from ostinato.errors import DataError
from ostinato.sketches.dataset import shards
from ostinato.sketches.dataset.batches import Data
from ostinato.sketches.dataset.profiles import profile
from ostinato.sketches.dataset.reading import CHUNK, NUMBERS, Read, Told, pieces
from ostinato.sketches.dataset.shards import SPLITS, Records, Shard
from ostinato.units import Count, Fraction, Points

load = Data


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: Fraction,
    test: Fraction,
    max_points: Points,
    only_recognised: bool,
    shard_size: Count,
    workers: Count,
) -> None:
    """Write raw drawings as a tensorflow-datasets data set, clean and split.

    Raw ones are simplified. Drawings without ink, and all but the first of identical drawings of
    a class, are left out and counted. Malformed lines are kept with their reasons in
    ``rejects.ndjson``. A hash of key_id tells the split, so that a drawing stays in its split
    when the data grow; SketchRNN's files keep their own splits.

    Args:
        raw: a folder with a manifest, as the sources fill it.
        folder: an empty folder; gets the data set, ``manifest.json``, ``profile.json`` and
            ``rejects.ndjson``.
        tolerated_rejects: share of the lines that may be malformed.
        validation: share of the drawings.
        test: share of the drawings.
        max_points: of a longer drawing this many points are kept.
        only_recognised: leave out what Google's game did not recognise.
        shard_size: drawings in a file of the training split, about.
        workers: threads.

    Raises:
        DataError: too many malformed lines, a category without drawings, or an empty split.
    """
    if validation + test >= 1:
        raise DataError(f"validation {validation} and test {test} leave nothing to train on")
    shares = dict(zip(SPLITS, (1 - validation - test, validation, test), strict=True))
    source = store.read_json(raw / "manifest.json")
    kind = "bitmap" if source["format"] == "tfds" else "strokes"
    reads = pieces(raw, source, points=max_points, only_recognised=only_recognised)
    with (
        tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as aside,
        ThreadPoolExecutor(workers) as threads,
    ):
        groups = list(_groups(reads))
        paths = [Path(aside, f"{number:06d}") for number in range(len(groups))]
        read = threads.map(partial(_put_aside, shares), groups, paths)
        files, spills = _collected(read, len(groups), folder, tolerated_rejects)
        classes = sorted(set().union(*(spilled.classes for spilled in spills)))
        if missing := sorted(set(source["categories"]) - set(classes)):
            raise DataError(f"{raw}: no drawing is left of {', '.join(map(repr, missing))}")
        kept = sum(numbers["kept"] for numbers in files.values())
        of = max(1, round(kept * shares["train"] / shard_size))
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
    counts = about["splits"]["train"]["classes"]
    found = profile(kind, counts, [shard_size.sample for shard_size in written])
    store.write_json(folder / "profile.json", found)
    store.write_json(folder / "manifest.json", about)


def _groups(reads: Iterable[Read]) -> Iterator[list[Read]]:
    """Neighbouring pieces together, so that many small files do not become as many spills."""
    group: list[Read] = []
    for read in reads:
        group.append(read)
        if sum(read.size for read in group) >= CHUNK:
            yield group
            group = []
    if group:
        yield group


def _put_aside(
    shares: Mapping[str, float], group: Sequence[Read], path: Path
) -> tuple[list[tuple[str, Told]], shards.Spill]:
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
        told.append((file, piece.told))
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
    read: Iterator[tuple[list[tuple[str, Told]], shards.Spill]],
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
        for group, spilled in tqdm(read, "reading", count, unit="part", disable=None):
            spills.append(spilled)
            for file, told in group:
                for reject in told.rejects:
                    reject = {"file": file, **reject, "line": before[file] + reject["line"]}
                    out.write(orjson.dumps(reject, option=orjson.OPT_APPEND_NEWLINE))
                    if len(examples[file]) < 3:
                        examples[file].append(f"{file}:{reject['line']}: {reject['reason']}")
                before[file] += told.breaks
                files[file].update(told.numbers)
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
