"""Series of dynamical systems, generated: embedded sources with hourly dates from 2000 on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ostinato import store
from ostinato.forecasting.sources.raw import Columns, write_manifest
from ostinato.memory.formats import dynamics
from ostinato.units import Count, Fraction, Length


def mackey_glass(folder: Path, scratch: Path, seed: int, *, steps: Length, tau: Count) -> None:
    """The series of Mackey and Glass (1977), a step for each unit of time.

    Args:
        folder: gets the file.
        scratch: not used.
        seed: of the history before the series.
        steps: of the series.
        tau: the delay in units of time; from 17 on the series is chaotic.
    """
    values = dynamics.mackey_glass(steps, tau=tau, substeps=10, seed=seed)
    _write(folder, "mackey_glass", {"value": values}, [])


def narma(folder: Path, scratch: Path, seed: int, *, steps: Length, order: Count) -> None:
    """A nonlinear moving average of a random input (Atiya and Parlos 2000): NARMA-10 for 10.

    The input is a future covariate: that of a step is known when the step is forecast.

    Args:
        folder: gets the file.
        scratch: not used.
        seed: of the input.
        steps: of the series.
        order: steps of the average.
    """
    u, y = dynamics.narma(steps, order=order, seed=seed)
    _write(folder, "narma", {"value": y, "input": u}, ["input"], ahead=True)


def lorenz(folder: Path, scratch: Path, seed: int, *, steps: Length, dt: Fraction) -> None:
    """The first coordinate of the system of Lorenz (1963); the others are past covariates.

    Args:
        folder: gets the file.
        scratch: not used.
        seed: of the initial state.
        steps: of the series.
        dt: time between two steps, in units of the system; above 0.
    """
    states = dynamics.lorenz(steps, dt=dt, seed=seed)
    _write(folder, "lorenz", dict(zip(("value", "y", "z"), states.T, strict=True)), ["y", "z"])


def _write(
    folder: Path,
    source: str,
    columns: Mapping[str, Float[np.ndarray, " step"]],
    covariates: list[str],
    *,
    ahead: bool = False,
) -> None:
    dates = pd.date_range("2000-01-01", periods=len(columns["value"]), freq="h", unit="s")
    table = pd.DataFrame({"date": dates.strftime("%Y-%m-%dT%H:%M"), **columns})
    path = folder / f"{source}.csv"
    store.write_table(path, table)
    roles = Columns(
        date="date",
        series=None,
        target="value",
        past_covariates=[] if ahead else covariates,
        future_covariates=covariates if ahead else [],
        static_covariates=[],
    )
    write_manifest(folder, source, {path: None}, frequency="h", date_format=None, columns=roles)
