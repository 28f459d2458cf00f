"""An echo state network that forecasts: its states, its readout, and the series of its sources."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from ostinato.forecasting import dataset, sources
from ostinato.forecasting.models import echo_state
from ostinato.memory.formats import dynamics
from ostinato.memory.formats.reservoir import reservoir
from ostinato.task import TrainingContext

PREPARE: dict[str, Any] = {
    "horizon": 4,
    "window": 30,
    "season": 12,
    "stride": 1,
    "since": None,
    "until": None,
    "validation": 80,
    "calibration": None,
    "test": 40,
    "timezone": None,
    "duplicates": "refuse",
    "gaps": "refuse",
    "longest_gap": 3,
    "zeros": "keep",
    "tolerated_rejects": 0.0,
    "calendar": [],
    "country": None,
    "subdivision": None,
    "scaling": "standard",
    "per": "series",
    "log": False,
}
BUILD: dict[str, Any] = {
    "spectral_radius": 0.9,
    "connectivity": 0.3,
    "input_scale": 0.5,
    "bias_scale": 0.1,
    "leak": 0.6,
}


def made(folder: Path, source: str, given: dict[str, Any]) -> Any:
    for each in ("raw", "data"):
        (folder / each).mkdir()
    getattr(sources, source)(folder / "raw", folder, 3, **given)
    dataset.prepare(folder / "raw", folder / "data", **PREPARE)
    return dataset.load(folder / "data")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_FOLDERS", str(tmp_path))
    return tmp_path


def test_the_readout_is_ridge_regression_on_the_states_of_the_reservoir(folder: Path) -> None:
    data = made(folder, "narma", {"steps": 400, "order": 10})
    assert data.future_features == 1  # the input of a step is known
    model = echo_state.build(data, units=20, reservoir_seed=5, **BUILD)
    features = data.past_features
    drawn = reservoir(20, features, input_connectivity=1.0, seed=5, **BUILD)
    batches = list(data.batches("train", batch_size=64, seed=None, epoch=0).as_numpy_iterator())
    states = np.concatenate([drawn.run(x["past"])[:, -1] for x, _, _ in batches])
    rows = np.concatenate([np.c_[x["past"][:, -1], x["future"][..., 0]] for x, _, _ in batches])
    regressors = np.c_[states, rows].astype(float)
    y = np.concatenate([y[..., 0] for _, y, _ in batches]).astype(float)
    ridge = 0.1 * len(y)
    centred = regressors - regressors.mean(axis=0)
    slope = np.linalg.solve(
        centred.T @ centred + ridge * np.eye(centred.shape[1]), centred.T @ (y - y.mean(axis=0))
    )
    (record,) = echo_state.fit(model, data, TrainingContext(folder, 1), batch_size=50, ridge=0.1)
    kernel, _ = model.get_layer("readout").get_weights()
    np.testing.assert_allclose(kernel, slope, atol=2e-4)
    x, truth, _ = next(iter(data.batches("train", batch_size=400, seed=None, epoch=0)))
    assert record["loss"] == pytest.approx(float(np.abs(model(x) - truth).mean()), rel=1e-4)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert [w.shape for w in restored.weights] == [w.shape for w in model.weights]


def test_a_chaotic_series_is_forecast_better_than_by_its_last_value(folder: Path) -> None:
    data = made(folder, "mackey_glass", {"steps": 500, "tau": 17})
    series = dynamics.mackey_glass(500, tau=17, substeps=10, seed=3)
    np.testing.assert_allclose(data.target, series, rtol=1e-12)
    model = echo_state.build(data, units=60, reservoir_seed=5, **BUILD)
    (record,) = echo_state.fit(model, data, TrainingContext(folder, 1), batch_size=50, ridge=1e-7)
    last = []
    for x, y, _ in data.batches(
        "validation", batch_size=50, seed=None, epoch=0
    ).as_numpy_iterator():
        last.append(np.abs(y[..., 0] - x["past"][:, -1:, 0]).mean())
    assert record["validation_loss"] < 0.2 * np.mean(last)


def test_the_other_coordinates_of_a_system_are_past_covariates(folder: Path) -> None:
    data = made(folder, "lorenz", {"steps": 300, "dt": 0.05})
    assert (data.past_features, data.future_features) == (3, 0)
    np.testing.assert_allclose(data.target, dynamics.lorenz(300, dt=0.05, seed=3)[:, 0])
