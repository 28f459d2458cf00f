"""Recurrent classifiers of drawings as compiled loops, for a server.

TensorFlow starts some hundred operations for a drawing, and pads a batch to its longest one: a
drawing of 30 points takes 1.5 ms of processor, most of it not arithmetic. These loops compute the
points that there are, one drawing after the other. Outputs are those of the Keras model up to
rounding.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numba
import numpy as np
from jaxtyping import Float32

from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling

# tanh(x) = x P(x^2) / Q(x^2) for |x| up to 9, beyond which float32 rounds it to 1. Fitted to the
# smallest largest error, 2e-8; in float32 it is 3e-7.
P0, P1, P2, P3, P4 = np.array(
    [0.99999988, 0.133732095, 0.00348659535, 2.0472036e-05, 1.31844784e-08], np.float32
)
Q1, Q2, Q3, Q4 = np.array([0.467065066, 0.0258420315, 0.000327140675, 7.70277381e-07], np.float32)
AT_A_TIME = 4  # drawings that a thread takes of a batch
ONE, HALF, BOUND = np.float32(1), np.float32(0.5), np.float32(9)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile a function with numba: without the GIL, with fused multiplication and addition."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**options)(function)


@_compiled
def tanh(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent of a float32; a loop of it is vectorised."""
    x = min(max(x, -BOUND), BOUND)
    s = x * x
    return (
        x
        * ((((P4 * s + P3) * s + P2) * s + P1) * s + P0)
        / ((((Q4 * s + Q3) * s + Q2) * s + Q1) * s + ONE)
    )


@_compiled
def _add_product(x, weights, out):  # type: ignore[no-untyped-def]
    """Add a vector (input,) times a matrix (input, output) to ``out``."""
    size, whole = len(out), len(x) // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        wa, wb, wc, wd = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for j in range(size):
            out[j] += a * wa[j] + b * wb[j] + c * wc[j] + d * wd[j]
    for k in range(whole, len(x)):
        a, wa = x[k], weights[k]
        for j in range(size):
            out[j] += a * wa[j]


@_compiled
def _add_products(x, weights, out):  # type: ignore[no-untyped-def]
    """Add rows (row, input) times a matrix to ``out`` (row, output).

    Four rows share each weight that is read, which is twice as fast as one row after the other.
    """
    size, rows, whole = out.shape[1], len(x) // 4 * 4, len(weights) // 4 * 4
    for row in range(0, rows, 4):
        xa, xb, xc, xd = x[row], x[row + 1], x[row + 2], x[row + 3]
        a, b, c, d = out[row], out[row + 1], out[row + 2], out[row + 3]
        for k in range(0, whole, 4):
            a0, a1, a2, a3 = xa[k], xa[k + 1], xa[k + 2], xa[k + 3]
            b0, b1, b2, b3 = xb[k], xb[k + 1], xb[k + 2], xb[k + 3]
            c0, c1, c2, c3 = xc[k], xc[k + 1], xc[k + 2], xc[k + 3]
            d0, d1, d2, d3 = xd[k], xd[k + 1], xd[k + 2], xd[k + 3]
            w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
            for j in range(size):
                a[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
                b[j] += b0 * w0[j] + b1 * w1[j] + b2 * w2[j] + b3 * w3[j]
                c[j] += c0 * w0[j] + c1 * w1[j] + c2 * w2[j] + c3 * w3[j]
                d[j] += d0 * w0[j] + d1 * w1[j] + d2 * w2[j] + d3 * w3[j]
        for k in range(whole, len(weights)):
            for j in range(size):
                a[j] += xa[k] * weights[k, j]
                b[j] += xb[k] * weights[k, j]
                c[j] += xc[k] * weights[k, j]
                d[j] += xd[k] * weights[k, j]
    for row in range(rows, len(x)):
        _add_product(x[row], weights, out[row])


@_compiled
def convolve(x, ends, weights, bias):  # type: ignore[no-untyped-def]
    """`MaskedConv1D` with stride 1.

    Args:
        x: points of all drawings (point, feature).
        ends: end of each drawing in ``x``.
        weights: (tap, feature, filter).
        bias: (filter,).
    """
    out = np.empty((len(x), len(bias)), np.float32)
    out[:] = bias
    left = (len(weights) - 1) // 2
    start = 0
    for end in ends:
        for tap in range(len(weights)):
            shift = tap - left
            first, last = max(start, start - shift), min(end, end - shift)
            if first < last:
                _add_products(x[first + shift : last + shift], weights[tap], out[first:last])
        start = end
    return out


@_compiled
def affine(x, weights, bias):  # type: ignore[no-untyped-def]
    """Rows times a matrix, plus a bias."""
    out = np.empty((len(x), len(bias)), np.float32)
    out[:] = bias
    _add_products(x, weights, out)
    return out


@_compiled
def lstm(x, ends, weights, recurrent, bias, backwards, out):  # type: ignore[no-untyped-def]
    """Write the states of an LSTM to ``out`` (point, unit).

    Args:
        x: points of all drawings (point, feature).
        ends: end of each drawing in ``x``.
        weights: (feature, 4 * unit), for the gates i, f, g, o.
        recurrent: (unit, 4 * unit).
        bias: (4 * unit,).
        backwards: whether a drawing is read from its last point.
        out: states (point, unit).
    """
    units = len(recurrent)
    projected = affine(x, weights, bias)
    h, c = np.empty_like(bias[:units]), np.empty_like(bias[:units])
    start = 0
    for end in ends:
        h[:] = 0
        c[:] = 0
        for step in range(end - start):
            point = end - 1 - step if backwards else start + step
            gates = projected[point]
            if step:
                _add_product(h, recurrent, gates)
            i, f = gates[:units], gates[units : 2 * units]
            g, o = gates[2 * units : 3 * units], gates[3 * units :]
            for j in range(2 * units):
                gates[j] = HALF * tanh(HALF * gates[j]) + HALF
            for j in range(units):
                g[j] = tanh(g[j])
            for j in range(units):
                o[j] = HALF * tanh(HALF * o[j]) + HALF
            for j in range(units):
                c[j] = f[j] * c[j] + i[j] * g[j]
            for j in range(units):
                h[j] = o[j] * tanh(c[j])
            out[point] = h
        start = end


class PackedModel:
    """A Keras model as compiled loops (`ostinato.sketches.evaluation.DrawingClassifier`).

    Args:
        parameters: number of weights.
        steps: functions of all points (point, feature) and the end of each drawing in them; the
            last returns a row for each drawing.
    """

    def __init__(self, parameters: int, steps: Sequence[Callable[..., Any]]) -> None:
        self.parameters, self.steps = parameters, steps
        self._helper = ThreadPoolExecutor(1, "packed")

    def __call__(
        self, inputs: Float32[np.ndarray, "drawing point feature"]
    ) -> Float32[np.ndarray, "drawing class"]:
        """Probabilities of the classes for right-padded drawings; no drawing is empty.

        Two threads share a batch, some drawings at a time: the caller's does all of it if the
        other one gets no processor.
        """
        parts = [inputs[i : i + AT_A_TIME] for i in range(0, len(inputs), AT_A_TIME)]
        found: list[Any] = [None] * len(parts)
        left = enumerate(parts)  # one step of it is atomic

        def work() -> None:
            for number, part in left:
                found[number] = self._probabilities(part)

        helper = self._helper.submit(work) if len(parts) > 1 else None
        work()
        if helper and not helper.cancel():
            helper.result()
        return np.concatenate(found)

    def _probabilities(self, inputs: Any) -> Any:
        valid = inputs.any(axis=2)
        ends, x = np.cumsum(valid.sum(axis=1)), inputs[valid]
        for step in self.steps:
            x = step(x, ends)
        odds = np.exp(x - x.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def pack(model: keras.Model) -> PackedModel | None:
    """The loops of a chain of layers that starts with a mask and ends with a softmax.

    Returns:
        None if it has another layer, or one with arguments that the loops do not support.
    """
    _, mask, *middle, last = model.layers
    read = [keras.tree.flatten(layer.input)[0] for layer in model.layers[1:]]  # masks follow
    chain = all(x is layer.output for x, layer in zip(read, model.layers, strict=False))
    dense = isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax
    masked = isinstance(mask, keras.layers.Masking) and mask.mask_value == 0
    same_type = all(layer.compute_dtype == "float32" for layer in model.layers)
    if not (chain and dense and masked and same_type and last.use_bias):
        return None
    steps = []
    for layer in middle:
        if isinstance(layer, keras.layers.Dropout):
            continue
        if (step := _step(layer)) is None:
            return None
        steps.append(step)
    weights, bias = _arrays(last)
    steps.append(lambda x, ends: affine(x, weights, bias))
    return PackedModel(int(model.count_params()), steps)


def _step(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    """A layer as a function of all points and the ends of the drawings."""
    if isinstance(layer, MaskedConv1D):
        plain = layer.strides == layer.dilation_rate == (1,) and layer.groups == 1
        if plain and layer.use_bias and layer.activation is keras.activations.linear:
            weights, bias = _arrays(layer)
            return lambda x, ends: convolve(x, ends, weights, bias)
    elif isinstance(layer, keras.layers.Bidirectional):
        if layer.merge_mode == "concat":
            return _states((layer.forward_layer, layer.backward_layer))
    elif isinstance(layer, LSTM):
        return _states((layer,))
    elif isinstance(layer, MaskedPooling):
        pool = layer.pool
        return lambda x, ends: _pooled(pool, x, ends)
    return None


def _states(layers: Sequence[keras.layers.Layer]) -> Callable[..., Any] | None:
    """The states of LSTMs that read the same points, side by side."""
    for layer in layers:
        cell = layer.cell
        usual = (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
        )
        if not (isinstance(layer, LSTM) and usual and layer.return_sequences):
            return None
    units, parts = layers[0].units, [(_arrays(each), each.go_backwards) for each in layers]
    if [backwards for _, backwards in parts] not in ([False], [False, True]):
        return None

    def step(x: Any, ends: Any) -> Any:
        out = np.empty((len(x), units * len(parts)), np.float32)
        for number, (arrays, backwards) in enumerate(parts):
            columns = out[:, number * units : (number + 1) * units]
            lstm(x, ends, *arrays, backwards, columns)
        return out

    return step


def _pooled(pool: str, x: Any, ends: Any) -> Any:
    starts = np.concatenate([[0], ends[:-1]])
    rows = (np.maximum if pool == "max" else np.add).reduceat(x, starts, axis=0)
    return rows / np.diff(ends, prepend=0)[:, None].astype(np.float32) if pool == "mean" else rows


def _arrays(layer: keras.layers.Layer) -> list[Any]:
    return [np.ascontiguousarray(weight, np.float32) for weight in layer.get_weights()]
