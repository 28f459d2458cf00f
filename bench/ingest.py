"""Speed of preparing drawings: from ndjson to shards, against other ways to do the same.

    python -m bench.ingest [FOLDER] [--form simplified] [--drawings 200000] [--rounds 3]

FOLDER holds ndjson files of QuickDraw; without it the embedded drawings are used. The lines are
repeated with new keys and slightly moved points, so that none is a duplicate. The sides, which
take turns in one process:

- tutorial: TensorFlow's drawing tutorial; `json` on one line at a time, one example of floats each
- libraries: `prepare` with general libraries in place of its compiled pieces: orjson and NumPy
  parse, and TensorFlow's tf.train.Example and TFRecordWriter write
- orjson parses, TensorFlow writes: one of the two replaced, so the gain of each piece
- prepare: as it is, on one core and on all cores

The sides but the tutorial must write the same bytes. (TFRecordWriter writes to a temporary file
that `prepare` then copies; the copy takes about 1% of that side's time.)
"""

import argparse
import gc
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import orjson
from numpy.typing import NDArray

from ostinato.sketches import dataset, sources
from ostinato.sketches.dataset import shards
from ostinato.sketches.formats import quickdraw, strokes
from ostinato.sketches.formats.quickdraw import ParsedText
from ostinato.sketches.formats.raw import Form, RawFile, RawManifest
from ostinato.sketches.formats.records import Records

BENCHMARK = {
    "measures": (
        "preparing drawings, in drawings/s, against TensorFlow's drawing tutorial and general"
        " libraries"
    ),
    "minutes": 15,
}

SETTINGS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.1,
    "test": 0.1,
    "max_points": 1_000,
    "only_recognised": False,
    "shard_size": 16_384,
}


def multiply(source: Path, folder: Path, drawings: int, form: Form = "simplified") -> int:
    """Fill ``folder`` as a source does, with drawings made of the ndjson files of ``source``.

    Returns:
        The size of the files in bytes.
    """
    found = sorted(source.glob("*.ndjson"))
    per_class = -(-drawings // len(found))
    limit = 255 if form == "simplified" else np.inf
    files = []
    for path in found:
        rng = np.random.default_rng(list(path.stem.encode()))
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        with (folder / path.name).open("wb") as out:
            for i in range(per_class):
                line = lines[i % len(lines)]
                moved = [[*_moved(s[:2], rng, limit), *s[2:]] for s in line["drawing"]]
                changed = {**line, "key_id": f"{i:09d}{line['key_id'][:7]}", "drawing": moved}
                option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                out.write(orjson.dumps(changed, option=option))
        size = (folder / path.name).stat().st_size
        files.append(RawFile(path.name, path.stem, size))
    categories = [path.stem for path in found]
    RawManifest("folder", "ndjson", form, categories, files).write(folder)
    return sum(file.bytes for file in files)


def _moved(
    axes: list[list[float]], rng: np.random.Generator, limit: float
) -> NDArray[np.int16] | NDArray[np.float64]:
    """x and y of a stroke, each moved by at most 3 pixels, but not out of 0 to a finite limit."""
    if np.isinf(limit):
        points = np.array(axes, np.float64)
        return np.round(points + rng.integers(-3, 4, points.shape), 3)
    whole = np.array(axes).astype(np.int16)
    moved: NDArray[np.int16] = np.clip(whole + rng.integers(-3, 4, whole.shape), 0, limit).astype(
        np.int16
    )
    return moved


# The sides


def tutorial(raw: Path, folder: Path) -> None:
    """Prepare as TensorFlow's tutorial does, one line at a time."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    writers = [tf.io.TFRecordWriter(str(folder / f"training-{i:05d}")) for i in range(10)]
    for label, path in enumerate(sorted(raw.glob("*.ndjson"))):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                drawing = json.loads(line)["drawing"]
                ink = np.zeros((sum(len(stroke[0]) for stroke in drawing), 3), np.float32)
                end = 0
                for stroke in drawing:
                    for axis in (0, 1):
                        ink[end : end + len(stroke[0]), axis] = stroke[axis]
                    end += len(stroke[0])
                    ink[end - 1, 2] = 1
                low, high = ink[:, :2].min(axis=0), ink[:, :2].max(axis=0)
                ink[:, :2] = (ink[:, :2] - low) / np.where(high > low, high - low, 1)
                ink = np.concatenate([ink[1:, :2] - ink[:-1, :2], ink[1:, 2:]], axis=1)
                features = {
                    "class_index": _feature([label]),
                    "ink": tf.train.Feature(float_list=tf.train.FloatList(value=ink.flatten())),
                    "shape": _feature(list(ink.shape)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writers[rng.integers(10)].write(example.SerializeToString())
    for writer in writers:
        writer.close()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Without Python's cyclic garbage collector, which makes millions of small lists slow."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@no_garbage_collection()
def parse_with_orjson(text: bytes) -> tuple[ParsedText, list[tuple[int, str]]]:
    """`quickdraw.parse` by orjson and NumPy, for well-formed lines only: nothing is checked."""
    lines = [(i, orjson.loads(line)) for i, line in enumerate(text.split(b"\n")) if line]
    drawings = [[stroke for stroke in fields["drawing"] if stroke[0]] for _, fields in lines]
    tracks = list(chain.from_iterable(drawings))
    points = np.empty((sum(len(stroke[0]) for stroke in tracks), 2))
    for axis in (0, 1):
        flat = list(chain.from_iterable([stroke[axis] for stroke in tracks]))
        points[:, axis] = flat
    names = [(f["key_id"].encode(), f.get("word", "").encode()) for _, f in lines]
    ends = np.cumsum([len(name) for name in chain.from_iterable(names)], dtype=np.int64)
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    parsed = ParsedText(
        text=np.frombuffer(b"".join(chain.from_iterable(names)), np.uint8),
        points=points,
        strokes=np.cumsum([len(stroke[0]) for stroke in tracks], dtype=np.int64),
        drawings=np.cumsum([len(drawing) for drawing in drawings], dtype=np.int64),
        lines=np.array([i for i, _ in lines], np.int64),
        keys=spans[::2],
        words=spans[1::2],
        recognised=np.array([int(fields.get("recognized", -1)) for _, fields in lines]),
    )
    return parsed, []


@no_garbage_collection()
def encode_with_tensorflow(records: Records, field: str) -> np.ndarray:
    """`records.encode` by tf.train.Example and TFRecordWriter."""
    import tensorflow as tf

    content, keys = records.content.tobytes(), records.keys.tobytes()
    starts = [ends - np.diff(ends, prepend=0) for ends in (records.ends, records.key_ends)]
    columns = (starts[0], records.ends, starts[1], records.key_ends, records.labels)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            for start, end, key_start, key_end, label in rows:
                features = {
                    field: _feature([content[start:end]]),
                    "key_id": _feature([keys[key_start:key_end]]),
                    "label": _feature([label]),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString(deterministic=True))
        return np.fromfile(file.name, np.uint8)


def _feature(values: list[Any]) -> Any:
    import tensorflow as tf

    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


PIECES: dict[str, tuple[Any, str, Callable[..., Any]]] = {  # module, function, its replacement
    "parse": (quickdraw, "parse", parse_with_orjson),
    "write": (shards, "encode", encode_with_tensorflow),
}


class Side(NamedTuple):
    """A way to prepare the drawings."""

    cores: int
    replaced: Sequence[str]
    """Keys of PIECES."""
    compared: bool = True
    """Whether it writes the bytes that `prepare` writes."""

    def run(self, raw: Path, folder: Path) -> None:
        """Prepare the drawings of ``raw`` into the empty ``folder``."""
        if not self.compared:
            tutorial(raw, folder)
            return
        with ExitStack() as stack:
            for name in self.replaced:
                stack.enter_context(patch.object(*PIECES[name]))
            dataset.prepare(raw, folder, **SETTINGS, workers=self.cores)


# The measurement


def measure(side: Side, raw: Path, parent: Path) -> tuple[float, float, str]:
    """Wall and processor seconds of a side, and the digest of the files that it writes."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        start = time.perf_counter(), time.process_time()
        side.run(raw, Path(folder))
        seconds = time.perf_counter() - start[0], time.process_time() - start[1]
        digest = hashlib.sha256()
        for path in sorted(Path(folder).rglob("*")) if side.compared else ():
            digest.update(path.name.encode() + path.read_bytes())
        return *seconds, digest.hexdigest()


def race(
    sides: Mapping[str, Side], raw: Path, parent: Path, rounds: int
) -> dict[str, tuple[float, float]]:
    """The median wall and processor seconds of each side, over rounds in which they take turns."""
    cores = sorted(os.sched_getaffinity(0))
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    digests: dict[str, str] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            os.sched_setaffinity(0, cores[: side.cores])
            try:
                wall, processor, digest = measure(side, raw, parent)
            finally:
                os.sched_setaffinity(0, cores)
            seconds[name].append((wall, processor))
            if side.compared:
                digests[name] = digest
    if len(set(digests.values())) > 1:
        raise AssertionError(f"the sides write different bytes: {digests}")
    return {
        name: (statistics.median(t[0] for t in times), statistics.median(t[1] for t in times))
        for name, times in seconds.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="of ndjson files")
    parser.add_argument("--form", choices=["simplified", "raw"], default="simplified")
    parser.add_argument("--drawings", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    sides = {
        "tutorial": Side(1, (), compared=False),
        "libraries": Side(1, ("parse", "write")),
        "orjson parses": Side(1, ("parse",)),
        "TensorFlow writes": Side(1, ("write",)),
        "prepare": Side(1, ()),
        f"prepare, {cores} cores": Side(cores, ()),
    }
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        given = args.folder
        if given is None:
            given = embedded(root, args.form)
        few, many = root / "few", root / "many"
        few.mkdir()
        many.mkdir()
        multiply(given, few, 200, args.form)
        size = multiply(given, many, args.drawings, args.form)
        count = sum(path.read_bytes().count(b"\n") for path in many.glob("*.ndjson"))
        print(f"{count:,} {args.form} drawings, {size / 1e6:,.0f} MB, {cores} cores", flush=True)
        for side in sides.values():
            side.run(few, Path(tempfile.mkdtemp(dir=root)))  # imports and compiles
        seconds = race(sides, many, root, args.rounds)
    wall, processor = seconds["prepare"]
    # The processor's time too: other programs on the machine lengthen the wall time.
    for name, (own_wall, own_processor) in seconds.items():
        print(
            f"{name:20} {count / own_wall:9,.0f} drawings/s; prepare on one core takes "
            f"1/{own_wall / wall:.2f} of its time, 1/{own_processor / processor:.2f} of the "
            "processor's"
        )


def embedded(root: Path, form: Form) -> Path:
    """A folder with 200 embedded drawings of each category."""
    folder = root / "embedded"
    folder.mkdir()
    sources.doodles(folder, root, 0, categories="all", per_class=200)
    if form == "simplified":
        for path in folder.glob("*.ndjson"):
            path.write_bytes(b"".join(map(_simplified, path.read_bytes().splitlines())))
    return folder


def _simplified(line: bytes) -> bytes:
    fields = orjson.loads(line)
    drawn = [np.array(stroke[:2], np.float64).T for stroke in fields["drawing"]]
    fields["drawing"] = [stroke.T.tolist() for stroke in strokes.simplify(drawn)]
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    main()
