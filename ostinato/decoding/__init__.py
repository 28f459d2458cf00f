"""Sequence decoding over a step function: greedy, sampling and beam search.

`greedy`, `sample` and `beam_search` are TensorFlow loops; inside a ``tf.function`` each is a part
of its graph. `ostinato.decoding.reference` has the same functions for NumPy arrays. The result for
a sequence does not depend on the other sequences of its batch, on their order or on padding.
"""

from ostinato.decoding.alignment import align
from ostinato.decoding.beam import beam_search
from ostinato.decoding.interface import Constraints, DecodeResult, Step
from ostinato.decoding.sampling import greedy, sample

__all__ = ["Constraints", "DecodeResult", "Step", "align", "beam_search", "greedy", "sample"]
