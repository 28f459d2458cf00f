"""L_R and L_KL of generators equal a slow implementation: loops over rows and components."""

from typing import Any

import numpy as np
import pytest

from ostinato.generation.layers import CELLS, Generator, RecurrentGenerator

Array = np.ndarray[Any, Any]
SCALE, LONGEST, CLASSES = 20.0, 6, 3
DRAWINGS = [
    np.array(rows, np.int16)
    for rows in (
        [[0, 0, 0], [30, -4, 0], [5, 40, 1]],
        [[0, 0, 0], [9, 9, 1], [-20, 3, 0], [1, 0, 0], [0, 0, 0], [7, -60, 1]],  # N_max rows
        [[3, 2, 1]],
    )
]
LABELS, SEEDS = np.array([2, 0, 1], np.int32), [11, 0, 4_000_000_000]


def network(cell: Any, conditioning: str, latent_size: int = 2) -> RecurrentGenerator:
    """A network with random values in every weight."""
    built = RecurrentGenerator(
        cell=cell, encoder_units=3, decoder_units=4, latent_size=latent_size, mixtures=3,
        conditioning=conditioning, classes=CLASSES, recurrent_dropout=0.5, scale=SCALE,
        longest=LONGEST,
    )  # fmt: skip
    random = np.random.default_rng(5)
    for weight in built.weights:
        if "seed" not in weight.path:
            weight.assign(random.normal(0, 0.4, weight.shape))
    return built


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def normalised(x: Array) -> Array:
    return np.asarray((x - x.mean()) / np.sqrt(x.var() + 1e-3))


def weight(layer: Any, name: str) -> Array:
    return np.asarray(getattr(layer, name), np.float64)


def dense(layer: Any, x: Array) -> Array:
    return np.asarray(x @ weight(layer, "kernel") + (0 if layer.bias is None else layer.bias))


def gates(z: Array) -> list[Array]:
    return np.split(z, 4)


def updated(parts: list[Array], c: Array) -> tuple[Array, Array]:
    """The memory, and the output gate, from the four gates before their functions."""
    i, f, g, o = parts
    return sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g), sigmoid(o)


def layer_norm(cell: Any, parts: list[Array], c: Array) -> tuple[Array, Array]:
    biases = gates(weight(cell, "bias"))
    scales = weight(cell, "gate_scale")
    parts = [normalised(z) * s + b for z, s, b in zip(parts, scales, biases, strict=True)]
    c, o = updated(parts, c)
    shown = normalised(c) * weight(cell, "memory_scale") + weight(cell, "memory_bias")
    return o * np.tanh(shown), c


def step(name: str, cell: Any, x: Array, constant: Array, state: list[Array]) -> list[Array]:
    kernel, recurrent = weight(cell, "kernel"), weight(cell, "recurrent")
    h, c = state[:2]
    if name == "lstm":
        z = x @ kernel + weight(cell, "bias") + constant + h @ recurrent
        c, o = updated(gates(z), c)
        return [o * np.tanh(c), c]
    if name == "layer_norm":
        return [*layer_norm(cell, gates(x @ kernel + constant + h @ recurrent), c)]
    hyper, size = cell.hyper, cell.embedding
    own, others = constant[: 4 * cell.units], constant[4 * cell.units :]
    z = x @ weight(hyper, "kernel") + others + h @ weight(cell, "hyper_state")
    z = z + state[2] @ weight(hyper, "recurrent")
    hyper_h, hyper_c = layer_norm(hyper, gates(z), state[3])
    embedded, bias = hyper_h @ weight(cell, "embed"), weight(cell, "embed_bias")
    of_state, of_row = gates(h @ recurrent), gates(x @ kernel + own)
    scales, shifts = weight(cell, "scales"), weight(cell, "shifts")
    parts = []
    for k in range(4):
        values = []
        for number in (k, 4 + k):  # of the state, of the row
            place = slice(number * size, (number + 1) * size)
            values.append((embedded[place] + bias[place]) @ scales[number])
        shift = embedded[(8 + k) * size : (9 + k) * size] @ shifts[k]
        parts.append(values[0] * of_state[k] + values[1] * of_row[k] + shift)
    return [*layer_norm(cell, parts, c), hyper_h, hyper_c]


def five(rows: Array) -> list[Array]:
    """Stroke-5 rows, without an end."""
    return [np.array([dx / SCALE, dy / SCALE, lift == 0, lift == 1, 0]) for dx, dy, lift in rows]


def slow(name: str, net: RecurrentGenerator, rows: Array, label: int, seed: int) -> list[float]:
    """L_R and L_KL of a drawing; only the former without an encoder."""
    classes, points = np.eye(CLASSES)[label], five(rows)
    latent, found = np.zeros(0), []
    if net.encoder:
        last = []
        for cell, read in zip(net.encoder.directions, (points, points[::-1]), strict=True):
            state = [np.zeros(size) for size in cell.state_sizes]
            for row in read:
                zero = np.zeros(cell.projected_size)
                state = step(name, cell, np.concatenate([row, classes]), zero, state)
            last.append(state[0])
        mean = dense(net.encoder.mean, np.concatenate(last))
        spread = dense(net.encoder.log_variance, np.concatenate(last))
        noise = np.random.default_rng(seed).standard_normal(len(mean))
        latent = mean + np.exp(spread / 2) * noise
        found.append(-(1 + spread - mean**2 - np.exp(spread)).sum() / (2 * len(mean)))
    condition = np.concatenate([latent, classes])
    state = [np.zeros(size) for size in net.cell.state_sizes]
    if net.by_state:
        edges = np.cumsum(net.cell.state_sizes)[:-1]
        state = np.split(np.tanh(dense(net.initial, condition)), edges)
    constant = np.zeros(net.cell.projected_size)
    if net.by_input:
        constant = condition @ weight(net.constant, "kernel")
    nats, row = 0.0, np.array([0, 0, 1, 0, 0])
    for position, target in enumerate([*points, np.array([0, 0, 0, 0, 1])]):
        state = step(name, net.cell, row, constant, state)
        pen, *parts = np.split(dense(net.outputs, state[0]), [3, 6, 9, 12, 15, 18])
        if target[4] == 0:
            shares = np.exp(parts[0]) / np.exp(parts[0]).sum()
            nats -= np.log(
                sum(s * density(target, *c) for s, *c in zip(shares, *parts[1:], strict=True))
            )
        if position < LONGEST:
            nats -= np.log((np.exp(pen) / np.exp(pen).sum())[target[2:].argmax()])
        row = target
    return [nats / LONGEST, *found]


def density(row: Array, mx: float, my: float, log_sx: float, log_sy: float, odds: float) -> float:
    """Of a bivariate Gaussian."""
    sx, sy, rho = np.exp(log_sx), np.exp(log_sy), np.tanh(odds)
    x, y = (row[0] - mx) / sx, (row[1] - my) / sy
    square = (x * x + y * y - 2 * rho * x * y) / (1 - rho**2)
    return float(np.exp(-square / 2) / (2 * np.pi * sx * sy * np.sqrt(1 - rho**2)))


@pytest.mark.parametrize(
    ("cell", "conditioning", "latent_size"),
    [
        *((cell, "both", 2) for cell in CELLS),
        ("lstm", "initial_state", 2),
        ("lstm", "input", 2),
        ("layer_norm", "both", 0),
    ],
)
def test_the_losses_equal_a_slow_implementation(
    cell: Any, conditioning: str, latent_size: int
) -> None:
    net = network(cell, conditioning, latent_size)
    generator = Generator(net)
    found = generator.measure(DRAWINGS, LABELS, SEEDS)
    expected = [
        slow(cell, net, rows, label, seed)
        for rows, label, seed in zip(DRAWINGS, LABELS.tolist(), SEEDS, strict=True)
    ]
    for values, one in zip(found, np.array(expected).T, strict=latent_size > 0):
        assert values is not None
        np.testing.assert_allclose(values, one, rtol=1e-5)
    assert latent_size or found[1] is None
    # Neither the order nor the padding of a batch matters.
    turned = generator.measure(DRAWINGS[::-1], LABELS[::-1], SEEDS[::-1])
    alone = generator.measure(DRAWINGS[:1], LABELS[:1], SEEDS[:1])
    for values, reverse, first in zip(found, turned, alone, strict=True):
        if values is not None and reverse is not None and first is not None:
            np.testing.assert_allclose(values, reverse[::-1], rtol=1e-5)
            np.testing.assert_allclose(values[:1], first, rtol=1e-5)
