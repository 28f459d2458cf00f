"""Memory of preparing and of training on millions of pairs: independent of their number.

    python -m bench.pairs_memory [--pairs 10000000] [--steps 2000] [--raw-pairs 1000000]

A tenth and all of the raw pairs are prepared, each time by a new process: sentences of 3 to 12
random words, one of two languages, in files that are aligned by line.

A prepared data set is enlarged to a tenth and to all of the pairs: shards of random tokens, 3 to 12
in a text, in the format of `dataset.prepare` (1 GB in all). A separate process trains a tiny
`attention` model on each for ten epochs of so many steps, and prints its resident memory after each
epoch. (A whole epoch takes hours and shows the same: pairs are read in windows of constant size.)
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ostinato import store
from ostinato.data.tfrecords import index_file, write_index
from ostinato.task import TrainingContext
from ostinato.training import teacher_forcing, trainer
from ostinato.translation import dataset, sources
from ostinato.translation.dataset.files import shard_name
from ostinato.translation.models import attention

BENCHMARK = {
    "measures": "memory of preparing a million pairs of texts, and of training on ten million",
    "minutes": 25,
}

SHARD = 200_000  # pairs in a file
SETTINGS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.05,
    "test": 0.05,
    "max_length_ratio": 2.0,
    "language_margin": 0.5,
    "max_length": 60,
    "tokenizer": "unigram",
    "vocab_size": 500,
    "character_coverage": 0.999,
    "shared_vocabulary": True,
    "tokenizer_sample": 10_000,
    "shard_size": SHARD,
}


def seed(folder: Path) -> Path:
    """A small prepared data set, for the vocabulary and the held-out splits."""
    raw, scratch, ready = (folder / name for name in ("raw", "scratch", "ready"))
    for path in (raw, scratch, ready):
        path.mkdir()
    sources.gettext(
        raw, scratch, 1, languages=["en", "fr"], original="en", packages=["django"], path=None
    )
    dataset.prepare(raw, ready, **SETTINGS)
    return ready


def write_raw(raw: Path, pairs: int) -> None:
    """Write a raw folder of random sentences."""
    rng = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 9, 20_000)]
    with (raw / "text.en").open("w") as one, (raw / "text.fr").open("w") as two:
        for start in range(0, pairs, SHARD):
            sizes = rng.integers(3, 13, min(SHARD, pairs - start)).tolist()
            chosen = rng.integers(0, len(words), sum(sizes)).tolist()
            begin = 0
            for size in sizes:
                sentence = [words[word] for word in chosen[begin : begin + size]]
                one.write(" ".join(sentence) + ".\n")
                two.write(" ".join(word[::-1] + "é" for word in sentence) + ".\n")
                begin += size
    files = [{"path": f"text.{language}", "language": language} for language in ("en", "fr")]
    manifest = {"source": "moses", "format": "moses", "languages": ["en", "fr"], "files": files}
    store.write_json(raw / "manifest.json", manifest)


def prepare(raw: Path, folder: Path) -> None:
    """Prepare pairs, and print the peak memory and the time."""
    start = time.perf_counter()
    dataset.prepare(raw, folder, **SETTINGS | {"vocab_size": 4_000})
    pairs = sum(split["pairs"] for split in dataset.load(folder).manifest.splits.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    seconds = time.perf_counter() - start
    print(f"{pairs:,} pairs: prepare {peak:,} MiB at the peak, {seconds:.0f} s", flush=True)


def grow(ready: Path, folder: Path, pairs: int) -> None:
    """Write random training pairs beside the held-out splits of ``ready``."""
    import tensorflow as tf

    shutil.copytree(ready, folder)
    manifest = store.read_json(folder / "manifest.json")
    parts, tokens = -(-pairs // SHARD), 0
    for split in ("validation", "test"):
        (folder / shard_name(split, 0, 1)).rename(folder / shard_name(split, 0, parts))
        for part in range(1, parts):
            (folder / shard_name(split, part, parts)).touch()
            write_index(folder / shard_name(split, part, parts), [], np.empty((0, 2), np.int64))
        old = index_file(folder / shard_name(split, 0, 1))
        old.rename(index_file(folder / shard_name(split, 0, parts)))
    old = folder / shard_name("train", 0, 1)
    old.unlink()
    index_file(old).unlink()
    rng = np.random.default_rng(1)
    for part in range(parts):
        sizes = rng.integers(3, 13, (min(SHARD, pairs - part * SHARD), 2))
        tokens += int(sizes.max(axis=1).sum())
        content = rng.integers(4, 300, sizes.sum(), dtype="<i4").tobytes()
        ends = 4 * sizes.cumsum().reshape(-1, 2)
        with tf.io.TFRecordWriter(str(folder / shard_name("train", part, parts))) as writer:
            begin, written = 0, []
            for middle, end in ends.tolist():
                written.append(record(content[begin:middle], content[middle:end]))
                writer.write(written[-1])
                begin = end
        file = folder / shard_name("train", part, parts)
        write_index(file, list(map(len, written)), sizes)
    manifest["details"]["shards"] = parts
    manifest["splits"]["train"] = {
        "pairs": pairs,
        "source_tokens": tokens,
        "target_tokens": tokens,
    }
    store.write_json(folder / "manifest.json", manifest)


def record(source: bytes, target: bytes) -> bytes:
    """A serialised ``tf.train.Example``, written by hand: 100 times faster than the class."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content  # all are below 128 bytes

    def entry(name: bytes, content: bytes) -> bytes:
        feature = field(1, field(1, content))  # a list of bytes with one value
        return field(1, field(1, name) + field(2, feature))

    features = entry(b"source_tokens", source) + entry(b"target_tokens", target)
    return b"\x0a" + varint(len(features)) + features


def varint(value: int) -> bytes:
    """A length in protobuf's encoding."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


class FirstBatches:
    """The first batches of each epoch."""

    def __init__(self, data: Any, steps: int) -> None:
        self.data, self.steps, self.size = data, steps, data.size

    def batches(self, split: str, **order: Any) -> Any:
        """The first ``steps`` batches."""
        return self.data.batches(split, **order).take(self.steps)


def measure(folder: Path, steps: int) -> None:
    """Train, and print the resident memory after each epoch."""
    data = dataset.load(folder)
    model = attention.build(
        data, units=16, num_layers=1, attention_score="general", dropout=0.1, word_dropout=0.0
    )

    def on_epoch(record: trainer.Record) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * resource.getpagesize() >> 20
        print(f"step {steps * record['epoch']:,}: {resident:,} MiB", flush=True)

    with tempfile.TemporaryDirectory() as checkpoints:
        teacher_forcing.fit_seq2seq(
            model,
            FirstBatches(data, steps),
            TrainingContext(Path(checkpoints), 1, on_epoch),
            epochs=10,
            batch_size=64,
            label_smoothing=0.1,
            scheduled_sampling=0.0,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            warmup_fraction=0.0,
            clip_norm=1.0,
            average_checkpoints=1,
            patience=10,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000_000, help="0: only prepare")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--raw-pairs", type=int, default=1_000_000)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.raw:
        prepare(arguments.raw, arguments.prepared)
        return
    if arguments.prepared:
        measure(arguments.prepared, arguments.steps)
        return
    for pairs in (arguments.raw_pairs // 10, arguments.raw_pairs):
        with tempfile.TemporaryDirectory() as temporary:
            raw, folder = Path(temporary, "raw"), Path(temporary, "data")
            raw.mkdir()
            folder.mkdir()
            write_raw(raw, pairs)
            command = [sys.executable, "-m", "bench.pairs_memory", "--raw", str(raw)]
            subprocess.run([*command, "--prepared", str(folder)], check=True)
    if not arguments.pairs:
        return
    with tempfile.TemporaryDirectory() as temporary:
        ready = seed(Path(temporary))
        for pairs in (arguments.pairs // 10, arguments.pairs):
            folder = Path(temporary, str(pairs))
            grow(ready, folder, pairs)
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(f"{pairs:,} pairs, {size / 1e6:,.0f} MB:", flush=True)
            command = [sys.executable, "-m", "bench.pairs_memory", "--prepared", str(folder)]
            subprocess.run([*command, "--steps", str(arguments.steps)], check=True)


if __name__ == "__main__":
    main()
