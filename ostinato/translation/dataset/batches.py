"""A prepared data set of pairs, read into batches of about equally many tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ostinato import store
from ostinato.params import near

if TYPE_CHECKING:
    import tensorflow as tf

PAD, UNK, BOS, EOS = 0, 1, 2, 3
NAME = "translation"  # of the data set: its files begin with it
SPLITS = ("train", "validation", "test")
SIDES = ("source", "target")
WINDOW = 32_768  # pairs that are shuffled and sorted by length together, about 10 MB
JITTER = 0.1  # share of a pair's length by which its place among the sorted ones is moved


def shard_name(split: str, part: int, of: int) -> str:
    """The name of a shard's file, as tensorflow-datasets wants it."""
    return f"{NAME}-{split}.tfrecord-{part:05d}-of-{of:05d}"


class Data:
    """A prepared data set, read from its folder as it is needed.

    Attributes:
        languages: from and to.
        joint: whether both have one vocabulary.
        vocabulary: how many tokens the source's and the target's have.
        longest: tokens of a text in training, eos not counted, at most.
    """

    def __init__(self, folder: Path) -> None:
        import sentencepiece

        try:
            manifest = store.read_json(folder / "manifest.json")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder}: holds no prepared data (no manifest.json)"
            ) from None
        self.folder = folder
        self.languages = tuple(manifest["languages"])
        self.joint: bool = manifest["joint"]
        self.longest: int = manifest["longest"]
        self._models = {
            side: sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
            for side in SIDES
        }
        self.vocabulary = tuple(len(model) for model in self._models.values())
        self._splits = manifest["splits"]
        self._parts: int = manifest["shards"]

    def size(self, split: str) -> int:
        """How many pairs a split holds."""
        if split not in self._splits:
            raise KeyError(f"no split {split!r}; {near(split, self._splits)}")
        return int(self._splits[split]["pairs"])

    def encode(self, texts: list[str], side: str = "source") -> list[list[int]]:
        """The tokens of each text, as ``cleaning.uniform`` makes them, without bos and eos."""
        rows: list[list[int]] = self._models[side].encode(texts)
        return rows

    def decode(self, rows: list[list[int]], side: str = "target") -> list[str]:
        """The text of each row of tokens; pad, bos and eos are nothing."""
        texts: list[str] = self._models[side].decode(rows)
        return texts

    def pieces(self, row: list[int], side: str = "target") -> list[str]:
        """The piece of each token; U+2581 in it is a space."""
        pieces: list[str] = self._models[side].id_to_piece(row)
        return pieces

    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, str]]:
        """The pairs of a split as texts, in the stored order, or the first ``limit``."""
        import tensorflow as tf

        records = tf.data.TFRecordDataset(self._files(split, range(self._parts)))
        spec = {side: tf.io.FixedLenFeature((), tf.string) for side in SIDES}
        found: list[tuple[str, str]] = []
        for batch in records.take(-1 if limit is None else limit).batch(4096):
            parsed = tf.io.parse_example(batch, spec)
            both = (parsed[side].numpy().tolist() for side in SIDES)
            found += [
                (source.decode(), target.decode()) for source, target in zip(*both, strict=True)
            ]
        return found

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> "tf.data.Dataset":
        """Batches (x, y, weight) of similar lengths; every pair once.

        A batch holds so many pairs that either side, padding included, has no more tokens than
        ``batch_size`` pairs of mean length: few of long ones, many of short ones, and at least one.
        Shards are read in random order, windows of them shuffled and sorted by length (with some
        jitter), cut into batches, and the batches shuffled. The same arguments give the same
        batches, bit for bit.

        Args:
            split: train, validation or test.
            batch_size: pairs of mean length in a batch.
            seed: of the order; None gives the stored order, each window sorted by length.
            epoch: gives another order with the same seed.

        Returns:
            x: source int32 (batch, token) with eos, and before int32 (batch, token), the target
            after bos: what has been said when the next token is to be told. y: int32 (batch,
            token), the target with eos. weight: float32 (batch, token), 1 for tokens of y and 0
            for padding. All are padded on the right with pad.
        """
        import tensorflow as tf

        parts = np.arange(self._parts)
        if seed is not None:
            parts = np.random.default_rng([seed, epoch]).permutation(self._parts)
        told = self._splits[split]
        tokens = max(told["source_tokens"], told["target_tokens"])
        budget = batch_size * (1 + tokens / max(told["pairs"], 1))  # each has an eos

        def cut(number: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
            parsed = tf.io.parse_example(
                records, {f"{side}_tokens": tf.io.FixedLenFeature((), tf.string) for side in SIDES}
            )
            columns = [parsed[f"{side}_tokens"] for side in SIDES]
            sizes = tf.stack([tf.strings.length(column) for column in columns]) // 4 + 1
            order, ends = tf.numpy_function(
                lambda sizes, number: _cut(sizes, budget, seed, epoch, int(number)),
                [sizes, number],
                [tf.int64, tf.int64],
            )
            order, ends = tf.ensure_shape(order, (None,)), tf.ensure_shape(ends, (None, 2))

            def one(span: tf.Tensor) -> tuple[tf.Tensor, ...]:
                chosen = order[span[0] : span[1]]
                return tuple(tf.gather(column, chosen) for column in columns)

            return tf.data.Dataset.from_tensor_slices(ends).map(one)

        records = tf.data.TFRecordDataset(self._files(split, parts), buffer_size=1 << 20)
        windows = records.batch(WINDOW).prefetch(1).enumerate()
        # Autotuning sleeps up to a minute at a time, and the end of an epoch waits until it wakes.
        options = tf.data.Options()
        options.autotune.enabled = False
        read = windows.flat_map(cut).map(_tensors, num_parallel_calls=2).prefetch(4)
        return read.with_options(options)

    def pad(self, rows: list[list[int]]) -> NDArray[np.int32]:
        """Tokens as a batch's source: int32 (batch, token), each with eos, padded with pad."""
        longest = max(map(len, rows), default=0) + 1
        padded = np.full((len(rows), longest), PAD, np.int32)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row) + 1] = [*row, EOS]
        return padded

    def _files(self, split: str, parts: Any) -> list[str]:
        self.size(split)
        return [str(self.folder / shard_name(split, part, self._parts)) for part in parts]


def _cut(
    sizes: NDArray[np.int32], budget: float, seed: int | None, epoch: int, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order of the pairs by length, and the spans of it that are batches (batch, 2).

    ``sizes`` (side, pair) counts tokens with eos; the longer side fills the ``budget``.
    """
    lengths = sizes.max(axis=0).astype(np.float64)
    rng = np.random.default_rng([0 if seed is None else seed, epoch, number])
    places = lengths if seed is None else lengths * (1 + JITTER * rng.random(len(lengths)))
    order = np.argsort(places, kind="stable")
    # The longest so far: with the jitter, lengths rise but roughly.
    most = np.maximum.accumulate(lengths[order])
    spans, begin = [], 0
    while begin < len(order):
        counts = np.arange(1, len(order) - begin + 1)[: int(budget)]
        fits = np.searchsorted(counts * most[begin : begin + len(counts)], budget, side="right")
        end = begin + max(1, int(fits))
        spans.append((begin, end))
        begin = end
    found = np.array(spans, np.int64).reshape(-1, 2)
    return order, found if seed is None else rng.permutation(found)


def _tensors(source: "tf.Tensor", target: "tf.Tensor") -> Any:
    """The bytes of a batch as (x, y, weight), all decoded and padded at once."""
    import tensorflow as tf

    def decoded(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sizes = tf.strings.length(content)
        longest = tf.maximum(tf.reduce_max(sizes), 4)
        rows = tf.io.decode_raw(content, tf.int32, fixed_length=longest)
        return rows, sizes // 4

    def ended(rows: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """With eos after the last token, and no further than the longest."""
        rows = tf.pad(rows, ((0, 0), (0, 1)))[:, : tf.reduce_max(sizes) + 1]
        return tf.where(tf.range(tf.shape(rows)[1]) == sizes[:, None], EOS, rows)

    (source, source_sizes), (target, target_sizes) = decoded(source), decoded(target)
    y = ended(target, target_sizes)
    before = tf.concat([tf.fill((tf.shape(y)[0], 1), BOS), tf.where(y == EOS, PAD, y)[:, :-1]], 1)
    weight = tf.cast(y != PAD, tf.float32)
    return {"source": ended(source, source_sizes), "before": before}, y, weight
