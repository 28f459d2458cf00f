"""Series of dynamical systems, in float64."""

import numpy as np
from jaxtyping import Float

Series = Float[np.ndarray, " step"]


def mackey_glass(steps: int, *, tau: int, substeps: int, seed: int) -> Series:
    """The delay differential equation of Mackey and Glass (1977), from 17 on chaotic.

    dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t), integrated by the Runge-Kutta method of
    fourth order in which the delayed value is that of the beginning of the step. The seed draws the
    history, uniform in 0.5 to 1.5; the first 1,000 steps are dropped.

    Args:
        steps: number of values, a unit of time apart.
        tau: the delay in units of time.
        substeps: integration steps in a unit of time.
        seed: of the history.
    """
    random = np.random.default_rng(seed)
    past, dt, dropped = tau * substeps, 1 / substeps, 1000
    total = (steps + dropped) * substeps
    x = np.empty(past + total + 1)
    x[: past + 1] = 1 + random.uniform(-0.5, 0.5)
    x[:past] += random.uniform(-0.1, 0.1, past)
    for t in range(past, past + total):
        delayed = x[t - past]
        gain, now = 0.2 * delayed / (1 + delayed**10), x[t]
        k1 = gain - 0.1 * now
        k2 = gain - 0.1 * (now + dt / 2 * k1)
        k3 = gain - 0.1 * (now + dt / 2 * k2)
        k4 = gain - 0.1 * (now + dt * k3)
        x[t + 1] = now + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x[past + dropped * substeps + 1 :: substeps][:steps]


def narma(steps: int, *, order: int, seed: int) -> tuple[Series, Series]:
    """The nonlinear autoregressive moving average of Atiya and Parlos (2000), of any order.

    y(t+1) = 0.3 y(t) + 0.05 y(t) sum(y(t - i), i < order) + 1.5 u(t - order + 1) u(t) + 0.1, with u
    uniform in 0 to 0.5. Beyond order 10 the sum passes through tanh, without which it diverges.

    Returns:
        The inputs u(t), and the targets y(t + 1).
    """
    dropped = 200
    total = steps + dropped
    u = np.random.default_rng(seed).uniform(0, 0.5, total)
    y = np.zeros(total + 1)
    for t in range(order, total):
        value = 0.3 * y[t] + 0.05 * y[t] * y[t - order + 1 : t + 1].sum()
        value += 1.5 * u[t - order + 1] * u[t] + 0.1
        y[t + 1] = value if order <= 10 else np.tanh(value)
    return u[dropped:], y[dropped + 1 :]


def lorenz(steps: int, *, dt: float, seed: int) -> Float[np.ndarray, "step 3"]:
    """The system of Lorenz (1963) with sigma 10, rho 28, beta 8/3, by the Runge-Kutta method.

    Args:
        steps: number of states.
        dt: between two states, in units of time; each is integrated in steps of at most 0.01.
        seed: of the initial state, near (1, 1, 1); the first 20 units of time are dropped.
    """

    def slope(state: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
        x, y, z = state
        return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    parts = max(1, int(np.ceil(dt / 0.01 - 1e-9)))
    h, dropped = dt / parts, int(np.ceil(20 / dt))
    state = 1 + np.random.default_rng(seed).uniform(-0.5, 0.5, 3)
    states = np.empty((steps + dropped, 3))
    for t in range(steps + dropped):
        for _ in range(parts):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states[t] = state
    return states[dropped:]
