"""Latent vectors between two others."""

import numpy as np
from jaxtyping import Float, Float32


def spherical(
    one: Float[np.ndarray, " latent"],
    other: Float[np.ndarray, " latent"],
    shares: Float[np.ndarray, " step"],
) -> Float32[np.ndarray, "step latent"]:
    """Points on the arc from one vector to another; on the line where they have one direction.

    Args:
        one: where the share is 0.
        other: where the share is 1.
        shares: of the way.
    """
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / lengths if lengths else 1.0
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return (np.outer(1 - shares, one) + np.outer(shares, other)).astype(np.float32)
    parts = np.sin(angle * np.stack([1 - shares, shares], axis=1)) / np.sin(angle)
    return np.asarray(parts @ np.stack([one, other]), np.float32)
