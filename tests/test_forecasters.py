"""Laws of the forecasters' own layers and losses."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sequences import losses, metrics, params, training
from sequences.forecasting import seq2seq
from sequences.layers import Quantiles, SeasonalNaive
from tests.series import prepared, table

numbers = st.floats(-100, 100, width=32)


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.just(2), st.just(3), st.integers(1, 12)), elements=numbers))
def test_quantiles_never_cross_and_are_centred_on_the_first_input(raw: np.ndarray) -> None:
    quantiles = np.asarray(Quantiles()(raw), np.float64)
    assert (np.diff(quantiles, axis=-1) >= -1e-4).all()
    np.testing.assert_allclose(quantiles.mean(axis=-1), raw[..., 0], atol=1e-2)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 30))
def test_the_seasonal_naive_forecast_repeats_the_last_season(
    season: int, horizon: int, length: int
) -> None:
    past = np.random.default_rng(0).normal(size=(2, length, 3)).astype(np.float32)
    last = past[:, -season:, 0]
    expected = np.tile(last, 20)[:, :horizon, None]
    np.testing.assert_array_equal(SeasonalNaive(season, horizon)(past), expected)


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_losses_are_those_of_metrics(count: int) -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(5, 4, 1)).astype(np.float32)
    quantiles = np.sort(random.normal(size=(5, 4, count)).astype(np.float32), axis=-1)
    expected = 2 * metrics.pinball(truth[..., 0], quantiles, metrics.levels(count)).mean(axis=-1)
    np.testing.assert_allclose(losses.pinball(truth, quantiles), expected, rtol=1e-5, atol=1e-6)
    median = metrics.quantile(quantiles, 0.5)
    error = np.asarray(losses.median_error(truth, keras.ops.convert_to_tensor(quantiles)))
    np.testing.assert_allclose(error, np.abs(truth[..., 0] - median), rtol=1e-5, atol=1e-6)
    if count == 1:
        absolute = np.abs(truth - quantiles)[..., 0]
        np.testing.assert_allclose(losses.pinball(truth, quantiles), absolute, rtol=1e-6)


FIT: dict[str, Any] = {
    "epochs": 1, "batch": 32, "loss": "pinball", "metrics": ["median_error"], "optimizer": "adam",
    "rate": 0.01, "schedule": "constant", "warmup": 0.0, "clip": 1.0,
    "monitor": "validation_loss", "patience": 1, "forcing": 0.0, "sampling": 1,
}  # fmt: skip


def test_the_decoder_reads_the_truth_by_chance_and_never_that_of_the_step_it_forecasts() -> None:
    random = np.random.default_rng(0)
    decoder = seq2seq.Decoder(4, 3, 2, True)
    states, last = random.normal(size=(2, 5, 4)), random.normal(size=(2, 4))
    future, truth = random.normal(size=(2, 3, 2)), random.normal(size=(2, 3, 1))
    given = [np.asarray(x, np.float32) for x in (states, last, future, truth)]
    always, never = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    free = np.asarray(decoder(*given[:3]))
    np.testing.assert_array_equal(decoder(*given, never), free)
    forced = np.asarray(decoder(*given, always))
    assert (forced[:, 0] == free[:, 0]).all(), "it saw the truth of the first step"
    assert (forced[:, 1] != free[:, 1]).any(), "it did not read the truth of the step before"
    other = given[3].copy()
    other[:, 2] += 9
    np.testing.assert_array_equal(decoder(*given[:3], other, always), forced)


def test_forced_or_not_the_same_weights_are_trained(tmp_path: Path) -> None:
    data = prepared(tmp_path, table())
    build = {"units": 4, "attention": True, "dropout": 0.0, "quantiles": 2, "residual": True}
    machine = {"precision": "float32", "devices": 1, "intra_op": None, "inter_op": None}
    trained = {}
    for forcing in (0.0, 1.0):
        with params.bind(training.machine, machine)(1):
            model = params.bind(seq2seq.build, build)(data)
            before = model.get_weights()
            fit = params.bind(seq2seq.fit, {**FIT, "forcing": forcing})
            fit(model, data, tmp_path / f"{forcing}", 1, lambda record: None)
        trained[forcing] = model.get_weights()
        assert all(
            (one != two).any()
            for one, two in zip(before, trained[forcing], strict=True)
            if one.dtype == np.float32
        )
    pairs = zip(trained[0.0], trained[1.0], strict=True)
    assert any((one != two).any() for one, two in pairs)
