"""Reading batches by position against streaming TFRecord files.

    python -m bench.reading [--records 100000] [--rounds 5]

Random drawings are written with an index, then read in windows: by TensorFlow's reader as a stream;
by position, by one rank; and by position, by the first of two and of eight ranks. The sides take
turns; the ratio of a side to the stream is the median over the rounds. Both clocks are printed:
on a busy machine only the processor time tells something.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.data import tfrecords
from ostinato.data.batches import OwnExamples, WindowOfBatches, read_batches
from ostinato.task import Part

BENCHMARK = {
    "measures": "reading batches by position, against streaming TFRecord files",
    "minutes": 2,
}

BATCH, WINDOW = 128, 32_768
SIZES = (60, 600)  # bytes of a drawing


def write(file: Path, records: int) -> None:
    """Write drawings of random sizes and their index."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    sizes = rng.integers(*SIZES, records)
    content, ends = rng.bytes(int(sizes.sum())), np.cumsum(sizes).tolist()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for begin, end in zip([0, *ends], ends, strict=False):
            writer.write(content[begin:end])
    tfrecords.write_index(file, sizes, sizes[:, None])


def stream(file: Path) -> Any:
    """Windows of the stored order, sorted and cut in a graph."""
    import tensorflow as tf

    def cut(window: tf.Tensor) -> tf.data.Dataset:
        order = tf.argsort(tf.strings.length(window), stable=True)

        def one(start: tf.Tensor) -> tf.Tensor:
            return tf.gather(window, order[start : start + BATCH])

        starts = tf.range(0, tf.size(window), BATCH)
        return tf.data.Dataset.from_tensor_slices(starts).map(one)

    windows = tfrecords.read([str(file)]).batch(WINDOW).prefetch(1)
    return windows.flat_map(cut).prefetch(4)


def by_position(file: Path, part: Part) -> Any:
    """The same batches, or a rank's part of them."""
    records = tfrecords.Records([file])

    def windows() -> Iterator[WindowOfBatches]:
        for start in range(0, len(records), WINDOW):
            numbers = np.arange(start, min(start + WINDOW, len(records)))
            numbers = numbers[np.argsort(records.lengths(numbers)[:, 0], kind="stable")]
            yield [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)]

    def decode(mine: OwnExamples) -> Any:
        return mine.contents

    return read_batches(records, windows, decode, part)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "drawings.tfrecord-00000-of-00001")
        write(file, args.records)
        sides: dict[str, Callable[[], Any]] = {
            "stream": lambda: stream(file),
            "by position": lambda: by_position(file, Part()),
            "one of 2 ranks": lambda: by_position(file, Part(0, 2)),
            "one of 8 ranks": lambda: by_position(file, Part(0, 8)),
        }
        wall: dict[str, list[float]] = {side: [] for side in sides}
        processor: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(args.rounds + 1):  # the first one warms up
            for side, batches in sides.items():
                start, used = time.perf_counter(), time.process_time()
                for _batch in batches():
                    pass
                wall[side].append(time.perf_counter() - start)
                processor[side].append(time.process_time() - used)
        for name, seconds in (("wall", wall), ("processor", processor)):
            print(f"{name} time of {args.records:,} drawings, and its ratio to the stream")
            for side, taken in seconds.items():
                pairs = zip(taken[1:], seconds["stream"][1:], strict=True)
                ratio = statistics.median(one / other for one, other in pairs)
                print(f"  {side:15} {statistics.median(taken[1:]):7.2f} s {ratio:6.2f}")


if __name__ == "__main__":
    main()
