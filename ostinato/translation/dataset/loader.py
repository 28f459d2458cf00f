"""A prepared data set of pairs, read into batches of about equally many tokens."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from ostinato.data import tfrecords
from ostinato.data.batches import WindowOfBatches, read_batches
from ostinato.errors import DataError
from ostinato.params import near
from ostinato.task import Manifest, Part
from ostinato.translation.dataset import tokenizer
from ostinato.translation.dataset.batching import length_batches, to_tensors
from ostinato.translation.dataset.files import Details, shard_name
from ostinato.translation.dataset.tokenizer import EOS, PAD, SIDES

WINDOW = 32_768  # pairs that are shuffled and sorted by length together, about 10 MB


def load(folder: Path) -> "TranslationDataset":
    """Open a prepared data set.

    Raises:
        DataError: the folder has no manifest, or one of another version.
    """
    return TranslationDataset(folder)


class TranslationDataset:
    """A prepared data set, read from its folder on demand.

    Attributes:
        folder: of the data set.
        manifest: of the data set.
        languages: codes of the source and of the target language.
        shared_vocabulary: whether source and target have one vocabulary.
        vocab_sizes: number of tokens of the source and of the target vocabulary.
        max_length: maximum number of tokens of a text in training, without eos.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.json")
        details = Details.from_json(self.manifest.details)
        self.languages = tuple(details.languages)
        self.shared_vocabulary = details.shared_vocabulary
        self.max_length = details.max_length
        self._shards = details.shards
        self._tokenizers = {side: tokenizer.load(folder, side) for side in SIDES}
        source, target = (len(self._tokenizers[side]) for side in SIDES)
        self.vocab_sizes = (source, target)

    def size(self, split: str) -> int:
        """The number of pairs of a split.

        Raises:
            DataError: there is no such split.
        """
        self._check_split(split)
        return self.manifest.size(split)

    def encode(self, texts: list[str], side: str = "source") -> list[list[int]]:
        """The tokens of normalised texts (`cleaning.normalise`), without bos and eos."""
        rows: list[list[int]] = self._tokenizers[side].encode(texts)
        return rows

    def decode(self, rows: list[list[int]], side: str = "target") -> list[str]:
        """The text of each row of tokens; pad, bos and eos are ignored."""
        texts: list[str] = self._tokenizers[side].decode(rows) if rows else []
        return texts

    def pieces(self, row: list[int], side: str = "target") -> list[str]:
        """The string of each token; U+2581 marks a space."""
        pieces: list[str] = self._tokenizers[side].id_to_piece(row)
        return pieces

    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, str]]:
        """The pairs of a split as texts, in the stored order; with a limit, the first ones."""
        import tensorflow as tf

        records = tfrecords.read(self._files(split, range(self._shards)))
        spec = {side: tf.io.FixedLenFeature((), tf.string) for side in SIDES}
        pairs: list[tuple[str, str]] = []
        for batch in records.take(-1 if limit is None else limit).batch(4096):
            parsed = tf.io.parse_example(batch, spec)
            columns = (parsed[side].numpy().tolist() for side in SIDES)
            pairs += [
                (source.decode(), target.decode()) for source, target in zip(*columns, strict=True)
            ]
        return pairs

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        """Batches (x, y, weight) of pairs of similar length; each pair once.

        A batch has as many tokens on either side, with padding, as ``batch_size`` pairs of mean
        length: few long pairs or many short ones, and at least one. Shards are read in random
        order; windows of pairs are shuffled, sorted by length with some jitter and cut into
        batches, which are shuffled. The same arguments give the same batches, bit for bit.

        Args:
            split: train, validation or test.
            batch_size: pairs of mean length in a batch.
            seed: of the order; None: the stored order, each window sorted by length.
            epoch: with the seed, determines the order.
            part: of every batch; see `ostinato.task.Dataset.batches`.

        Returns:
            A ``tf.data.Dataset``. x: ``source``, int32 (batch, token) with eos, and ``before``,
            int32 (batch, token), bos and the target without eos (the decoder's inputs). y: int32
            (batch, token), the target with eos. weight: float32 (batch, token), 1 for tokens of y
            and 0 for padding. All are padded on the right.
        """
        self._check_split(split)
        shards = list(range(self._shards))
        if seed is not None:
            shards = np.random.default_rng([seed, epoch]).permutation(self._shards).tolist()
        counts = self.manifest.splits[split]
        tokens = max(counts["source_tokens"], counts["target_tokens"])
        max_tokens = batch_size * (1 + tokens / max(counts["pairs"], 1))  # 1 for eos
        records = tfrecords.Records([Path(file) for file in self._files(split, shards)])

        def windows() -> Iterator[WindowOfBatches]:
            for window, start in enumerate(range(0, len(records), WINDOW)):
                numbers = np.arange(start, min(start + WINDOW, len(records)))
                lengths = records.lengths(numbers).T + 1  # 1 for eos
                order, ranges = length_batches(lengths, max_tokens, seed, epoch, window)
                yield [numbers[order[begin:end]] for begin, end in ranges]

        return read_batches(records, windows, to_tensors, part)

    def pad(self, rows: list[list[int]]) -> Int32[np.ndarray, "batch token"]:
        """Tokens as a batch of sources, with eos, padded on the right."""
        longest = max(map(len, rows), default=0) + 1
        padded = np.full((len(rows), longest), PAD, np.int32)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row) + 1] = [*row, EOS]
        return padded

    def _check_split(self, split: str) -> None:
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")

    def _files(self, split: str, shards: Iterable[int]) -> list[str]:
        self._check_split(split)
        return [str(self.folder / shard_name(split, shard, self._shards)) for shard in shards]
