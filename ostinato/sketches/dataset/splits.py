"""The split of a drawing, from a hash of its key."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from ostinato.sketches.formats.records import digests


def split_of(
    keys: UInt8[np.ndarray, " byte"],
    ends: Integer[np.ndarray, " key"],
    fractions: Mapping[str, float],
) -> Int64[np.ndarray, " key"]:
    """The split of each key, an index into `shards.SPLITS`: 0 train, 1 validation, 2 test.

    It is a function of the key and the fractions only, so a drawing stays in its split when the
    data grow.

    Args:
        keys: in UTF-8, concatenated.
        ends: end of each key in ``keys``.
        fractions: of the splits validation and test.
    """
    hashes = digests(keys, ends, np.zeros(len(ends), np.uint64))
    uniform = (hashes >> np.uint64(11)) * 2.0**-53  # in 0 to 1
    # Test is at the bottom and validation above it: if one grows, only train shrinks.
    bounds = np.array([fractions["test"], fractions["test"] + fractions["validation"]])
    splits: Int64[np.ndarray, " key"] = 2 - np.searchsorted(bounds, uniform, side="right")
    return splits
