"""Series of dynamical systems, cut into windows whose targets follow one another.

The first ``washout`` steps of a window have no target: there, a recurrent network reads what came
before. Consecutive windows overlap by these steps, so each step has one target.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from ostinato import store
from ostinato.errors import SourceError
from ostinato.memory.formats import dynamics
from ostinato.memory.formats.examples import Delay, Examples, RawManifest
from ostinato.units import Count, Length

TimeStep = Annotated[float, Field(gt=0, le=1)]


def mackey_glass(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    steps: Length,
    tau: Count,
    horizon: Count,
    window: Length,
    washout: Delay,
) -> None:
    """The series of Mackey and Glass (1977); the target is the value ``horizon`` steps ahead."""
    series = dynamics.mackey_glass(steps + horizon, tau=tau, substeps=10, seed=seed)
    _write(folder, "mackey_glass", seed, series[:-horizon], series[horizon:], window, washout)


def narma(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    steps: Length,
    order: Count,
    window: Length,
    washout: Delay,
) -> None:
    """A nonlinear moving average of a random input (Atiya and Parlos 2000): NARMA-10 for 10."""
    u, y = dynamics.narma(steps, order=order, seed=seed)
    _write(folder, "narma", seed, u, y, window, washout)


def lorenz(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    steps: Length,
    dt: TimeStep,
    horizon: Count,
    window: Length,
    washout: Delay,
) -> None:
    """The system of Lorenz (1963), divided by 10; targets are states ``horizon`` steps ahead."""
    states = dynamics.lorenz(steps + horizon, dt=dt, seed=seed) / 10
    _write(folder, "lorenz", seed, states[:-horizon], states[horizon:], window, washout)


def _write(
    folder: Path,
    source: str,
    seed: int,
    inputs: Float[np.ndarray, "step ..."],
    targets: Float[np.ndarray, "step ..."],
    window: int,
    washout: int,
) -> None:
    if washout >= window:
        raise SourceError(f"washout: found {washout}; expected less than {window}, the `window`")
    starts = np.arange(0, len(inputs) - window + 1, window - washout)
    if len(starts) < 3:
        raise SourceError(
            f"steps: found {len(inputs)}, which are {len(starts)} windows; expected at least three "
            "windows; raise steps or lower window"
        )
    rows = starts[:, None] + np.arange(window)
    x, y = (np.reshape(s, (len(s), -1))[rows].astype(np.float32) for s in (inputs, targets))
    weight = np.ones(x.shape[:2], np.float32)
    weight[:, :washout] = 0
    manifest = RawManifest(
        source=source, seed=seed, target="number", classes=[], ordered=True, length=window
    )
    store.write_arrays(folder / "examples.npz", Examples(x, y, weight).arrays())
    store.write_json(folder / "manifest.json", manifest.to_json())
