"""A reservoir, a random recurrent network (Jaeger 2001), and its readout by ridge regression."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import eigs

Matrix = Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Reservoir:
    """Leaky units with random weights.

    h(t) = (1 - leak) h(t - 1) + leak tanh(input x(t) + recurrent h(t - 1) + bias).

    Args:
        input: weights of the inputs.
        recurrent: weights of the states, with the chosen spectral radius.
        bias: of the units.
        leak: share of a state that is renewed in a step, 0 to 1.
    """

    input: Float[np.ndarray, "unit feature"]
    recurrent: Float[np.ndarray, "unit unit"]
    bias: Float[np.ndarray, " unit"]
    leak: float

    def run(
        self,
        x: Float[np.ndarray, "batch step feature"],
        state: Float[np.ndarray, "batch unit"] | None = None,
    ) -> Float[np.ndarray, "batch step unit"]:
        """The states of sequences, in float64.

        Args:
            x: sequences.
            state: before the first step; None for zeros.
        """
        batch, steps, units = len(x), x.shape[1], len(self.bias)
        driven = x.astype(np.float64) @ self.input.T + self.bias
        states = np.empty((batch, steps, units))
        h = np.zeros((batch, units)) if state is None else np.asarray(state, np.float64)
        # A sparse product costs about six times as much for each weight as a dense one.
        density = np.count_nonzero(self.recurrent) / self.recurrent.size
        thin = density < 1 / 6 and units > 128
        weights = sparse.csr_array(self.recurrent) if thin else self.recurrent
        keep = 1 - self.leak
        for t in range(steps):
            fresh = (weights @ h.T).T
            fresh += driven[:, t]
            np.tanh(fresh, out=fresh)
            fresh *= self.leak
            fresh += keep * h
            states[:, t] = h = fresh
        return states


def reservoir(
    units: int,
    features: int,
    *,
    spectral_radius: float,
    connectivity: float,
    input_scale: float,
    input_connectivity: float,
    bias_scale: float,
    leak: float,
    seed: int,
) -> Reservoir:
    """Draw a reservoir.

    Args:
        units: number of units.
        features: of the inputs.
        spectral_radius: largest absolute eigenvalue of the recurrent weights.
        connectivity: fraction of the recurrent weights that are not zero; they are normal.
        input_scale: of the input weights, -1 or 1 before.
        input_connectivity: fraction of the input weights that are not zero.
        bias_scale: of the biases, uniform in -1 to 1 before.
        leak: share of a state that is renewed in a step.
        seed: of all weights.
    """
    random = np.random.default_rng(seed)
    recurrent = recurrent_weights(units, spectral_radius, connectivity, random)
    signs = random.choice([-1.0, 1.0], (units, features))
    chosen = random.random((units, features)) < input_connectivity
    bias = bias_scale * random.uniform(-1, 1, units)
    return Reservoir(input_scale * signs * chosen, recurrent, bias, leak)


def recurrent_weights(
    units: int, spectral_radius: float, connectivity: float, random: np.random.Generator
) -> Matrix:
    """Sparse normal weights with a spectral radius."""
    weights: Matrix = random.normal(size=(units, units))
    weights *= random.random((units, units)) < connectivity
    if (radius := spectral_radius_of(weights)) > 0:
        weights *= spectral_radius / radius
    return weights


def spectral_radius_of(weights: Matrix) -> float:
    """The largest absolute eigenvalue."""
    if len(weights) <= 500:
        return float(np.abs(np.linalg.eigvals(weights)).max())
    start = np.ones(len(weights))  # a fixed one, so the result repeats
    found = eigs(sparse.csr_array(weights), k=1, v0=start, return_eigenvectors=False)
    return float(np.abs(found[0]))


class NormalEquations:
    """Ridge regression over a stream of batches: memory does not grow with their number.

    Args:
        columns: of the regressors, which get a constant besides.
        outputs: number of outputs.
    """

    def __init__(self, columns: int, outputs: int) -> None:
        self.gram = np.zeros((columns + 1, columns + 1))
        self.moments = np.zeros((columns + 1, outputs))

    def add(self, x: Float[np.ndarray, "row column"], y: Float[np.ndarray, "row output"]) -> None:
        """Add rows."""
        rows = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        self.gram += rows.T @ rows
        self.moments += rows.T @ y

    def solve(self, ridge: float) -> Float[np.ndarray, "column output"]:
        """The weights that minimise the squared error plus ``ridge`` times their squares.

        The constant is the first row; it is not penalised.
        """
        penalty = np.full(len(self.gram), ridge)
        penalty[0] = 0
        solution: Float[np.ndarray, "column output"] = cho_solve(
            cho_factor(self.gram + np.diag(penalty)), self.moments
        )
        return solution


def memory_capacity(
    found: Reservoir, *, delays: int, steps: int, ridge: float, seed: int
) -> np.ndarray:
    """The memory capacity of each delay (Jaeger 2001, GMD report 152).

    It is the squared correlation of a white input and its readout from the states that many steps
    later, 0 to 1; the sum over all delays is at most the number of units.

    Args:
        found: a reservoir; its first input is driven.
        delays: from 1 to this number.
        steps: of the training and of the test, each.
        ridge: of the readout.
        seed: of the input.

    Returns:
        (delay,).
    """
    u = np.random.default_rng(seed).uniform(-0.8, 0.8, 2 * steps + delays)
    x = np.zeros((1, len(u), found.input.shape[1]))
    x[0, :, 0] = u
    states = found.run(x)[0, delays:]
    targets = np.stack([u[delays - d : len(u) - d] for d in range(1, delays + 1)], axis=1)
    equations = NormalEquations(states.shape[1], delays)
    equations.add(states[:steps], targets[:steps])
    weights = equations.solve(ridge)
    read, true = states[steps:] @ weights[1:] + weights[0], targets[steps:]
    read, true = read - read.mean(axis=0), true - true.mean(axis=0)
    power = (read**2).sum(axis=0) * (true**2).sum(axis=0)
    return np.asarray((read * true).sum(axis=0) ** 2 / np.maximum(power, 1e-300))
