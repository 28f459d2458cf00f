"""Drawings a second from ndjson to prepared shards, against the tutorial's way.

    python -m bench.ingest [FOLDER] [--drawings 200000] [--rounds 3]

FOLDER holds simplified ndjson files; without it the embedded drawings serve. The lines are
repeated with other keys and slightly moved points, so that none is a duplicate. Both sides are
run in turn in one process, on one core; then ours on all cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ostinato import store
from ostinato.sketches import dataset, sources

SETTINGS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.1,
    "test": 0.1,
    "max_points": 1_000,
    "only_recognised": False,
    "shard_size": 16_384,
}


def multiply(source: Path, folder: Path, drawings: int) -> int:
    """Fill ``folder`` as a source would, with ``drawings`` made of the ndjson files of ``source``.

    Returns:
        How many bytes they are.
    """
    found = sorted(source.glob("*.ndjson"))
    per_class = -(-drawings // len(found))
    files = []
    for path in found:
        rng = np.random.default_rng(list(path.stem.encode()))
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        with (folder / path.name).open("wb") as out:
            for i in range(per_class):
                line = lines[i % len(lines)]
                moved = [
                    np.clip(np.array(s, np.int16) + rng.integers(-3, 4, np.shape(s)), 0, 255)
                    for s in line["drawing"]
                ]
                changed = {**line, "key_id": f"{i:09d}{line['key_id'][:7]}", "drawing": moved}
                option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                out.write(orjson.dumps(changed, option=option))
        size = (folder / path.name).stat().st_size
        files.append({"path": path.name, "category": path.stem, "bytes": size})
    store.write_json(
        folder / "manifest.json",
        {
            "source": "folder",
            "format": "ndjson",
            "form": "simplified",
            "categories": [path.stem for path in found],
            "files": files,
        },
    )
    return sum(path.stat().st_size for path in folder.glob("*.ndjson"))


def tutorial(raw: Path, folder: Path) -> None:
    """A line at a time: parsed, normalised, its differences as floats in an example of its own."""
    import tensorflow as tf

    def floats(values: np.ndarray) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def ints(values: list[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    rng = np.random.default_rng(0)
    writers = [tf.io.TFRecordWriter(str(folder / f"training-{i:05d}")) for i in range(10)]
    for label, path in enumerate(sorted(raw.glob("*.ndjson"))):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                strokes = json.loads(line)["drawing"]
                ink = np.zeros((sum(len(stroke[0]) for stroke in strokes), 3), np.float32)
                at = 0
                for stroke in strokes:
                    for axis in (0, 1):
                        ink[at : at + len(stroke[0]), axis] = stroke[axis]
                    at += len(stroke[0])
                    ink[at - 1, 2] = 1
                low, high = ink[:, :2].min(axis=0), ink[:, :2].max(axis=0)
                ink[:, :2] = (ink[:, :2] - low) / np.where(high > low, high - low, 1)
                ink = np.concatenate([ink[1:, :2] - ink[:-1, :2], ink[1:, 2:]], axis=1)
                features = {
                    "class_index": ints([label]),
                    "ink": floats(ink.flatten()),
                    "shape": ints(list(ink.shape)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writers[rng.integers(10)].write(example.SerializeToString())
    for writer in writers:
        writer.close()


def seconds(work: Callable[[Path], None], parent: Path) -> tuple[float, float]:
    """How long ``work`` takes on an empty folder: by the clock, and of processors."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        start = time.perf_counter(), time.process_time()
        work(Path(folder))
        return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--drawings", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        given = arguments.folder
        if given is None:
            given = root / "given"
            given.mkdir()
            sources.doodles(given, root, 0, categories="all", per_class=200)
        for name in ("few", "many"):
            (root / name).mkdir()
        multiply(given, root / "few", 1)
        size = multiply(given, root / "many", arguments.drawings)
        many = sum(path.read_bytes().count(b"\n") for path in (root / "many").glob("*.ndjson"))
        print(f"{many:,} drawings, {size / 1e6:,.0f} MB, {len(cores)} cores")

        def ours(raw: Path, workers: int) -> Callable[[Path], None]:
            return lambda folder: dataset.prepare(raw, folder, **SETTINGS, workers=workers)

        sides = {
            "the tutorial's way, 1 core": (1, lambda folder: tutorial(root / "many", folder)),
            "prepare, 1 core": (1, ours(root / "many", 1)),
            f"prepare, {len(cores)} cores": (len(cores), ours(root / "many", len(cores))),
        }
        seconds(ours(root / "few", 1), root)  # imports and compiles
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, (count, work) in sides.items():
                os.sched_setaffinity(0, cores[:count])
                taken[name].append(seconds(work, root))
                os.sched_setaffinity(0, cores)
    # The processors' time too: other programs on the machine lengthen the clock's.
    rates = {
        name: [many / statistics.median(column) for column in zip(*times, strict=True)]
        for name, times in taken.items()
    }
    for name, (clock, processor) in rates.items():
        print(f"{name:30} {clock:10,.0f} drawings/s, {processor:10,.0f} a second of processor")
    first, one, both = rates.values()
    times = [a / b for a, b in zip(one, first, strict=True)]
    print(f"on one core {times[0]:.1f} times the tutorial's way by the clock (at least 4 wanted),")
    print(f"{times[1]:.1f} times by the processor's time; {both[0] / one[0]:.2f} times that on all")


if __name__ == "__main__":
    main()
