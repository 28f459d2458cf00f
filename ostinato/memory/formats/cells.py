"""The equations of recurrent cells in NumPy, value by value, with the weights of Keras' cells."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, " unit"]
Weights = Sequence[Float[np.ndarray, "..."]]


def simple(x: Vector, states: Sequence[Vector], weights: Weights) -> Mapping[str, Vector]:
    """The simple cell (Elman 1990): h = tanh(W x + U h + b)."""
    kernel, recurrent, bias = weights
    return {"state": np.tanh(x @ kernel + states[0] @ recurrent + bias)}


def lstm(x: Vector, states: Sequence[Vector], weights: Weights) -> Mapping[str, Vector]:
    """The LSTM with a forget gate (Gers et al. 2000); ``states`` are h and c."""
    kernel, recurrent, bias = weights
    h, c = states
    i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    cell = f * c + i * g
    return {
        "input gate": i,
        "forget gate": f,
        "candidate": g,
        "cell": cell,
        "output gate": o,
        "state": o * np.tanh(cell),
    }


def gru(x: Vector, states: Sequence[Vector], weights: Weights) -> Mapping[str, Vector]:
    """The GRU (Cho et al. 2014) whose reset gate acts after the recurrent product, as Keras'."""
    kernel, recurrent, bias = weights
    h = states[0]
    xz, xr, xh = np.split(x @ kernel + bias[0], 3)
    hz, hr, hh = np.split(h @ recurrent + bias[1], 3)
    z, r = _sigmoid(xz + hz), _sigmoid(xr + hr)
    candidate = np.tanh(xh + r * hh)
    return {
        "update gate": z,
        "reset gate": r,
        "candidate": candidate,
        "state": z * h + (1 - z) * candidate,
    }


STEPS = {"simple": simple, "lstm": lstm, "gru": gru}


def read(
    cell: str, x: Float[np.ndarray, "step feature"], weights: Weights, states: Sequence[Vector]
) -> Mapping[str, Float[np.ndarray, "step unit"]]:
    """All values of a cell while it reads a sequence.

    Args:
        cell: a key of `STEPS`.
        x: the sequence.
        weights: kernel, recurrent kernel and bias of Keras' cell.
        states: before the first step.
    """
    rows: list[Mapping[str, Vector]] = []
    for step in x.astype(np.float64):
        values = STEPS[cell](step, states, weights)
        states = [values["state"], values["cell"]] if cell == "lstm" else [values["state"]]
        rows.append(values)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _sigmoid(x: Vector) -> Vector:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))
