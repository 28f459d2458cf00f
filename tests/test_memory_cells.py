"""The pictures of cells in the docs have the numbers of Keras' cells, gate by gate."""

import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = runpy.run_path(str(DOCS / "cells.py"))
LAYERS = {
    "simple": keras.layers.SimpleRNNCell,
    "gru": keras.layers.GRUCell,
    "lstm": keras.layers.LSTMCell,
}


def keras_values(cell: str) -> dict[str, float]:
    """The numbers of the picture from Keras: a gate is read off by its effect on the step."""
    layer, weights = LAYERS[cell](1), SCRIPT["weights"](cell)
    layer.build((None, 1))
    layer.set_weights(weights)
    states = [np.zeros((1, 1), np.float32)] * (2 if cell == "lstm" else 1)
    for step in range(SCRIPT["STEP"]):
        _, states = layer(SCRIPT["X"][step][None].astype(np.float32), states)
    x = SCRIPT["X"][SCRIPT["STEP"]][None].astype(np.float32)
    before = [float(np.asarray(state)[0, 0]) for state in states]
    _, after = layer(x, states)
    found = {"x": float(x[0, 0]), "h": before[0], "state": float(np.asarray(after[0])[0, 0])}
    if cell == "lstm":
        c = before[1]
        moved = [layer(x, [states[0], states[1] + change])[1][1] for change in (0.0, 1.0)]
        forget = float(np.asarray(moved[1] - moved[0])[0, 0])
        found |= {"c": c, "cell": float(np.asarray(after[1])[0, 0]), "forget gate": forget}
        found["output gate"] = found["state"] / np.tanh(found["cell"])
        candidate = only(layer, weights, [40.0, -40.0, None, 40.0], x, states)
        found["candidate"] = candidate
        found["input gate"] = (found["cell"] - forget * c) / candidate
    if cell == "gru":
        candidate = only(layer, weights, [-40.0, None, None], x, states)
        found["candidate"] = candidate
        found["update gate"] = (found["state"] - candidate) / (before[0] - candidate)
        closed = only(layer, weights, [-40.0, -40.0, None], x, states)
        opened = only(layer, weights, [-40.0, 40.0, None], x, states)
        span = np.arctanh(opened) - np.arctanh(closed)
        found["reset gate"] = (np.arctanh(candidate) - np.arctanh(closed)) / span
    return found


def only(
    layer: keras.layers.Layer,
    weights: list[np.ndarray],
    fixed: list[float | None],
    x: np.ndarray,
    states: list[np.ndarray],
) -> float:
    """The cell or the state after a step in which some gates are fixed by their bias."""
    bias = weights[2].copy()
    lstm = bias.ndim == 1
    row = bias if lstm else bias[0]
    for gate, value in enumerate(fixed):
        if value is not None:
            row[gate] = value
    layer.set_weights([weights[0], weights[1], bias])
    _, after = layer(x, states)
    layer.set_weights(weights)
    return float(np.asarray(after[1 if lstm else 0])[0, 0])


@pytest.mark.parametrize("cell", LAYERS)
def test_the_picture_of_a_cell_has_the_numbers_of_keras_and_is_current(cell: str) -> None:
    picture = (DOCS / f"cell-{cell}.svg").read_text(encoding="utf-8")
    assert picture == SCRIPT["draw"](cell)
    written = dict(re.findall(r'class="name"[^>]*>([a-z ]+) (-?[\d.]+)<', picture))
    expected = keras_values(cell)
    assert written.keys() == expected.keys()
    for name, value in written.items():
        assert float(value) == pytest.approx(expected[name], abs=1e-4), name
