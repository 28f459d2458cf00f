"""Batches of examples that are read by their number, and the part of each batch that a rank reads.

All ranks compute the same batches from an index of the examples. A rank reads and decodes only its
own examples of each batch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int64, Integer

from ostinato.task import Part

if TYPE_CHECKING:
    import tensorflow as tf

Numbers = Int64[np.ndarray, " batch"]
"""The examples of a batch, in its order."""

JITTER = 0.1  # of a length: noise that is added before sorting by length

WindowOfBatches = Sequence[Numbers]
"""Batches that are read from disk together."""


class Examples(Protocol):
    """Examples on disk or in memory."""

    def lengths(self, numbers: Numbers) -> Integer[np.ndarray, "batch _"]:
        """The lengths of examples: one for each sequence that is padded."""

    def read(self, numbers: Numbers) -> list[bytes]:
        """The content of examples; the numbers rise."""


class OwnExamples(NamedTuple):
    """A rank's examples of a batch, as tensors.

    Attributes:
        batch: int64, the number of the batch.
        numbers: int64 (own,), of the examples.
        contents: string (own,), of the examples.
        longest: int64 (length,), the largest lengths in the whole batch. Ranks that pad to it pad
            alike.
        first: int64, the number of examples of the whole batch before the rank's.
        total: int32, the number of examples of the whole batch.
    """

    batch: Any
    numbers: Any
    contents: Any
    longest: Any
    first: Any
    total: Any

    def select(self, values: Any) -> Any:
        """The rank's rows of values of the whole batch."""
        import tensorflow as tf

        return values[self.first : self.first + tf.size(self.numbers, tf.int64)]


def batch_indices(
    lengths: Sequence[int] | Integer[np.ndarray, " example"],
    batch_size: int,
    seed: int | None,
    epoch: int,
) -> list[Int64[np.ndarray, " batch"]]:
    """The examples of each batch: similar lengths together, in an order of (seed, epoch).

    Args:
        lengths: of the examples.
        batch_size: of all batches but one.
        seed: of the order; None: sorted by length.
        epoch: determines the order together with the seed.
    """
    sizes = np.asarray(lengths, np.float64)
    if seed is None:
        order = np.argsort(sizes, kind="stable")
    else:
        random = np.random.default_rng([seed, epoch])
        order = np.argsort(sizes * (1 + JITTER * random.random(len(sizes))), kind="stable")
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return parts if seed is None else [parts[i] for i in random.permutation(len(parts))]


def own(part: Part, size: int) -> slice:
    """A rank's examples of a batch of ``size``; one of them where its part is empty."""
    first = size * part.rank // part.ranks
    return slice(first, max(first + 1, size * (part.rank + 1) // part.ranks))


def read_batches(
    examples: Examples,
    windows: Callable[[], Iterator[WindowOfBatches]],
    decode: Callable[[OwnExamples], Any],
    part: Part,
) -> "tf.data.Dataset":
    """Read a rank's part of batches.

    Autotuning is off: with it, the end of an iterator waits for a thread whose sleep doubles to
    60 s.

    Args:
        examples: that are read.
        windows: the batches of all ranks; those of a window are read in the order of the disk.
        decode: the tensors of a rank's part of a batch. It runs in a graph.
        part: of each batch that is read.

    Returns:
        What ``decode`` returns; with several ranks (that, ``total``).
    """
    import tensorflow as tf

    def generate() -> Iterator[Any]:
        number = 0
        for batches in windows():
            spans = [own(part, len(batch)) for batch in batches]
            chosen = [batch[span] for batch, span in zip(batches, spans, strict=True)]
            numbers, sizes = np.concatenate(chosen), [len(batch) for batch in batches]
            order = np.argsort(numbers, kind="stable")
            contents = np.empty(len(numbers), object)
            contents[order] = examples.read(numbers[order])
            lengths = examples.lengths(np.concatenate(batches))
            longest = np.maximum.reduceat(lengths, np.cumsum([0, *sizes[:-1]]), axis=0)
            start = 0
            for i, mine in enumerate(chosen):
                end = start + len(mine)
                yield number, mine, contents[start:end], longest[i], spans[i].start, sizes[i]
                number, start = number + 1, end

    @tf.autograph.experimental.do_not_convert
    def decoded(*mine: Any) -> Any:
        batch = decode(OwnExamples(*mine))
        return batch if part.ranks == 1 else (batch, mine[-1])

    scalar, vector = tf.TensorSpec((), tf.int64), tf.TensorSpec((None,), tf.int64)
    contents, total = tf.TensorSpec((None,), tf.string), tf.TensorSpec((), tf.int32)
    signature = (scalar, vector, contents, vector, scalar, total)
    options = tf.data.Options()
    options.autotune.enabled = False
    found = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return found.with_options(options).map(decoded, num_parallel_calls=2).prefetch(4)


def select_part(batches: "tf.data.Dataset", part: Part) -> "tf.data.Dataset":
    """A rank's part of whole batches, for examples that are generated or already in memory."""
    import tensorflow as tf

    def cut(*batch: Any) -> Any:
        total = tf.shape(tf.nest.flatten(batch)[0])[0]
        first = total * part.rank // part.ranks
        last = tf.maximum(first + 1, total * (part.rank + 1) // part.ranks)
        mine = tf.nest.map_structure(lambda values: values[first:last], batch)
        return mine if len(batch) > 1 else mine[0], total

    return batches if part.ranks == 1 else batches.map(cut)


def transform(
    batches: "tf.data.Dataset", function: Callable[..., Any], part: Part
) -> "tf.data.Dataset":
    """Apply a function of a batch's elements to each batch, and keep ``total`` where it is."""
    if part.ranks == 1:
        return batches.map(function)

    def apply(batch: Any, total: Any) -> Any:
        return function(*batch) if isinstance(batch, tuple) else function(batch), total

    return batches.map(apply)
