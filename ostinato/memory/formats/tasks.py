"""Tasks that are drawn at random: each function returns as many new examples as it is asked for.

``length`` is the number of steps, vectors or items to read. ``delay`` is a number of empty steps
between the last of them and the answer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from ostinato.errors import DataError
from ostinato.memory.formats.examples import Examples
from ostinato.params import near

Generator = np.random.Generator

TARGETS = {
    "adding": "number",
    "copy": "bits",
    "repeat_copy": "bits",
    "associative_recall": "bits",
    "temporal_order": "class",
    "parity": "class",
}
"""The target of each task."""
CLASSES = {"temporal_order": ["XX", "XY", "YX", "YY"], "parity": ["even", "odd"]}
"""The classes of the tasks whose target is a class."""
SYMBOLS = "abcdXYBE"  # of temporal_order, in the order of its features


def task(name: str) -> Callable[..., Examples]:
    """The function of a task.

    Raises:
        DataError: there is none of this name.
    """
    if name not in TARGETS:
        raise DataError(f"task: unknown {name!r}; {near(name, TARGETS)}")
    found: Callable[..., Examples] = globals()[name]
    return found


def adding(random: Generator, count: int, *, length: int, delay: int) -> Examples:
    """Add the two marked numbers of a sequence (Hochreiter and Schmidhuber 1997).

    Numbers are uniform in 0 to 1, the two marks are anywhere: the variant of Le et al. 2015, arXiv
    1504.00941. Features: number, mark. Predicting 1 has a squared error of 1/6.
    """
    x = np.zeros((count, length + delay, 2), np.float32)
    x[:, :length, 0] = random.random((count, length), np.float32)
    first = random.integers(length, size=count)
    second = (first + random.integers(1, length, size=count)) % length
    rows = np.arange(count)
    x[rows, first, 1] = x[rows, second, 1] = 1
    return Examples(x, (x[rows, first, 0] + x[rows, second, 0])[:, None])


def copy(random: Generator, count: int, *, length: int, delay: int, bits: int) -> Examples:
    """Read ``length`` vectors of random bits and a delimiter, then write the vectors.

    Graves et al. 2014, arXiv 1410.5401, section 4.1. Features: the bits, the delimiter.
    """
    vectors = _bits(random, count, length, bits)
    return _read_then_write(vectors, vectors, delay)


def repeat_copy(
    random: Generator, count: int, *, length: int, delay: int, bits: int, repeats: int
) -> Examples:
    """Read vectors of random bits and a number, then write the vectors as many times.

    Graves et al. 2014, section 4.2. The number, 1 to ``repeats``, is divided by ``repeats`` and
    takes the place of the delimiter. An end mark, a further bit of the answer, follows the last
    repetition.
    """
    vectors = _bits(random, count, length, bits)
    times = random.integers(1, repeats + 1, size=count)
    answer = np.zeros((count, length * repeats + 1, bits + 1), np.float32)
    answer[:, :-1, :bits] = np.tile(vectors, (1, repeats, 1))
    steps = np.arange(length * repeats + 1)
    end = times[:, None] * length
    answer[steps >= end] = 0
    answer[..., bits] = steps == end
    weight = (steps <= end).astype(np.float32)
    return _read_then_write(vectors, answer, delay, (times / repeats).astype(np.float32), weight)


def associative_recall(
    random: Generator, count: int, *, length: int, delay: int, bits: int, item_length: int
) -> Examples:
    """Read ``length`` items and one of them again, then write the item that came after it.

    Graves et al. 2014, section 4.3. An item is ``item_length`` vectors of random bits after a
    delimiter; the query is between two marks of its own. Features: bits, delimiter, query mark.
    """
    if length < 2:
        raise DataError(f"length: found {length} items; expected 2 or more, to recall the next one")
    items = _bits(random, count, length * item_length, bits).reshape(
        count, length, item_length, bits
    )
    asked, rows = random.integers(length - 1, size=count), np.arange(count)
    width = item_length + 1
    read = length * width + width + 1
    x = np.zeros((count, read + delay + item_length, bits + 2), np.float32)
    for item in range(length):
        x[:, item * width, bits] = 1
        x[:, item * width + 1 : (item + 1) * width, :bits] = items[:, item]
    x[:, length * width, bits + 1] = x[:, read - 1, bits + 1] = 1
    x[:, length * width + 1 : read - 1, :bits] = items[rows, asked]
    y = np.zeros((*x.shape[:2], bits), np.float32)
    y[:, -item_length:] = items[rows, asked + 1]
    weight = np.zeros(x.shape[:2], np.float32)
    weight[:, -item_length:] = 1
    return Examples(x, y, weight)


def temporal_order(random: Generator, count: int, *, length: int, delay: int) -> Examples:
    """Tell in which order two symbols, X or Y each, stood among distractors.

    Hochreiter and Schmidhuber 1997, experiment 6a: the symbols are between 10% and 20%, and 40%
    and 50% of the sequence; it begins with E and ends with B.
    """
    if length < 10:
        raise DataError(f"length: found {length} steps; expected 10 or more")
    symbols = random.integers(4, size=(count, length))
    symbols[:, 0], symbols[:, -1] = SYMBOLS.index("E"), SYMBOLS.index("B")
    kinds, rows = random.integers(2, size=(count, 2)), np.arange(count)
    for number, (low, high) in enumerate(((0.1, 0.2), (0.4, 0.5))):
        first, last = round(low * length), round(high * length)
        place = random.integers(first, max(last, first + 1), size=count)
        symbols[rows, place] = SYMBOLS.index("X") + kinds[:, number]
    x = np.zeros((count, length + delay, len(SYMBOLS)), np.float32)
    x[:, :length] = np.eye(len(SYMBOLS), dtype=np.float32)[symbols]
    return Examples(x, (2 * kinds[:, 0] + kinds[:, 1]).astype(np.int32))


def parity(random: Generator, count: int, *, length: int, delay: int) -> Examples:
    """Tell whether the number of ones in a sequence of random bits is even or odd."""
    bits = random.integers(2, size=(count, length))
    x = np.zeros((count, length + delay, 1), np.float32)
    x[:, :length, 0] = bits
    return Examples(x, (bits.sum(axis=1) % 2).astype(np.int32))


def _bits(random: Generator, count: int, steps: int, bits: int) -> Float32[np.ndarray, "..."]:
    return random.integers(2, size=(count, steps, bits)).astype(np.float32)


def _read_then_write(
    vectors: Float32[np.ndarray, "example step bit"],
    answer: Float32[np.ndarray, "example answer output"],
    delay: int,
    delimiter: Any = 1.0,
    weight: Any = 1.0,
) -> Examples:
    """Vectors and a delimiter, empty steps, and as many steps as the answer has."""
    count, length, bits = vectors.shape
    start = length + 1 + delay
    x = np.zeros((count, start + answer.shape[1], bits + 1), np.float32)
    x[:, :length, :bits] = vectors
    x[:, length, bits] = delimiter
    y = np.zeros((*x.shape[:2], answer.shape[2]), np.float32)
    y[:, start:] = answer
    weights = np.zeros(x.shape[:2], np.float32)
    weights[:, start:] = weight
    return Examples(x, y, weights)
