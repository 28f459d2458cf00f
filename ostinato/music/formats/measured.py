"""What a model says of the frames of a piece."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Measured:
    """What a model says of the frames of a piece.

    Args:
        nats: negative log-likelihood of each frame, given those before: the sum over its notes.
        hits: notes of the frame that are in the most likely one.
        either: notes of the frame or of the most likely one.
        kl: nats of the latent vector's divergence; 0 where the model has none.
    """

    nats: Float64[np.ndarray, " frame"]
    hits: Float64[np.ndarray, " frame"]
    either: Float64[np.ndarray, " frame"]
    kl: float = 0.0

    @property
    def statistics(self) -> dict[str, float]:
        """The sums of a piece, as Bai et al. 2018 (arXiv 1803.01271) count them.

        The first frame is given, so a piece of n frames has n - 1. A model with a latent vector has
        the negative evidence lower bound of the whole piece, first frame included, which is an
        upper bound of the others' nats.
        """
        first = self.nats[0] if self.kl else 0.0
        return {
            "nats": float(self.nats[1:].sum() + self.kl + first),
            "frames": float(len(self.nats) - 1),
            "hits": float(self.hits[1:].sum()),
            "either": float(self.either[1:].sum()),
            "first_nats": float(self.nats[0]),
        }
