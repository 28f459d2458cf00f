"""Metrics of forecasts agree with independent implementations, and keep their laws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato import store
from ostinato.errors import EvaluationError
from ostinato.forecasting import evaluation, metrics

FOLDER = Path(__file__).parent / "golden"  # also holds the programs that made the files
GOLDEN = store.read_json(FOLDER / "forecasting.json")
M4 = store.read_json(FOLDER / "forecast_metrics.json")
TRUTH, QUANTILES = np.array(GOLDEN["truth"]), np.array(GOLDEN["quantiles"])
MEDIAN = metrics.quantile(QUANTILES, 0.5)
CLOSE: dict[str, Any] = {"rel": 1e-9, "abs": 0}
PUBLISHED = Path(__file__).parents[2] / "shared/data/series/m4"


def test_metrics_agree_with_utilsforecast() -> None:
    assert metrics.mae(TRUTH, MEDIAN) == pytest.approx(GOLDEN["mae"], **CLOSE)
    assert metrics.rmse(TRUTH, MEDIAN) == pytest.approx(GOLDEN["rmse"], **CLOSE)
    assert metrics.smape(TRUTH, MEDIAN) == pytest.approx(GOLDEN["smape"], **CLOSE)
    scale = metrics.naive_scale(GOLDEN["history"], GOLDEN["season"])
    assert metrics.mae(TRUTH, MEDIAN) / scale == pytest.approx(GOLDEN["mase"], **CLOSE)
    low, high = QUANTILES[..., 1], QUANTILES[..., 8]
    assert metrics.coverage(TRUTH, low, high) == pytest.approx(GOLDEN["coverage"], **CLOSE)
    levels = metrics.levels(10)
    pinball = metrics.pinball(TRUTH, QUANTILES, levels).mean(axis=(0, 1))
    np.testing.assert_allclose(pinball, GOLDEN["pinball"], rtol=1e-9)
    weighted = 2 * np.array(GOLDEN["pinball"]) / np.abs(TRUTH).mean()
    loss = metrics.weighted_quantile_loss(TRUTH, QUANTILES)
    assert loss == pytest.approx(weighted.mean(), **CLOSE)


def test_metrics_of_statistics_agree_with_utilsforecast() -> None:
    inputs, expected = M4["inputs"], M4["expected"]
    arrays = {name: np.array(inputs[name]) for name in ("truth", "forecast", "naive2")}
    arrays["keys"] = np.array([f"{name}@2020-01-01" for name in "abc"])
    scales = [metrics.naive_scale(history, inputs["season"]) for history in inputs["history"]]
    results = evaluation.per_example({**arrays, "scale": np.array(scales)})
    for name, value in {
        "mae": np.mean(expected["mae"]),
        "rmse": expected["rmse pooled"][0],
        "mase": np.mean(expected["mase"]),
        "smape": expected["smape pooled"][0],
        "owa": expected["owa"][0],
    }.items():
        assert results.value(metrics.METRICS[name]) == pytest.approx(value, **CLOSE)
        assert not metrics.METRICS[name].higher_is_better


def test_missing_truth_is_left_out() -> None:
    truth = TRUTH.copy()
    truth[3:] = np.nan
    for metric in (metrics.mae, metrics.rmse, metrics.smape):
        assert metric(truth, MEDIAN) == pytest.approx(metric(TRUTH[:3], MEDIAN[:3]))
    low, high = QUANTILES[..., 1], QUANTILES[..., 8]
    assert metrics.coverage(truth, low, high) == metrics.coverage(TRUTH[:3], low[:3], high[:3])
    one = metrics.weighted_quantile_loss(truth, QUANTILES)
    assert one == pytest.approx(metrics.weighted_quantile_loss(TRUTH[:3], QUANTILES[:3]))


@given(st.integers(1, 30))
def test_levels_are_symmetric_and_a_quantile_at_its_level_is_itself(count: int) -> None:
    levels = metrics.levels(count)
    np.testing.assert_allclose(levels + levels[::-1], 1)
    values = np.arange(count) ** 2.0
    for level, value in zip(levels, values, strict=True):
        assert metrics.quantile(values, level) == pytest.approx(value, abs=1e-6)
    assert metrics.quantile(values, 0.0) == values[0]
    assert metrics.quantile(values, 1.0) == values[-1]


@given(st.integers(5, 200), st.sampled_from([0.5, 0.8, 0.95]), st.integers(0, 99))
def test_conformal_margins_have_nominal_coverage_of_exchangeable_errors(
    size: int, level: float, seed: int
) -> None:
    """By definition: at least nominal coverage of the calibration, and no more than needed."""
    excess = np.random.default_rng(seed).normal(size=(size, 3))
    margin = metrics.conformal(excess, level)
    inside = (excess <= margin).sum(axis=0)
    assert (inside == min(size, np.ceil((size + 1) * level))).all()
    padded = np.concatenate([excess, np.full((9, 3), np.nan)])
    np.testing.assert_array_equal(metrics.conformal(padded, level), margin)


def random_errors(size: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(size, 4))


@given(st.integers(8, 60), st.integers(1, 40), st.integers(0, 99), st.data())
def test_margins_at_an_origin_depend_only_on_the_latest_truth_before_it(
    size: int, calibration_window: int, seed: int, data: st.DataObject
) -> None:
    excess, origins = random_errors(size, seed), np.arange(size)
    origin = data.draw(st.integers(4, size))
    (margin,) = evaluation.margins(excess, origins, np.array([origin]), 0.8, calibration_window)
    due = origins[:, None] + np.arange(4)  # the time of each truth
    observed = due < origin
    latest = observed & (due >= origin - calibration_window)
    other = np.where(latest, excess, random_errors(size, seed + 1))
    order = np.random.default_rng(seed).permutation(size)
    again = evaluation.margins(
        other[order], origins[order], np.array([origin]), 0.8, calibration_window
    )
    np.testing.assert_array_equal(again[0], margin)
    for step in range(4):  # by definition
        own = excess[latest[:, step], step]
        np.testing.assert_array_equal(margin[step], metrics.conformal(own[:, None], 0.8)[0])
    every = evaluation.margins(excess, origins, np.array([origin, 0]), 0.8, None)
    np.testing.assert_array_equal(every, [metrics.conformal(excess, 0.8)] * 2)


def test_sliding_margins_adapt_to_a_change_of_variance_and_keep_coverage() -> None:
    """With a high variance at first, margins of all errors cover far too much afterwards."""
    random = np.random.default_rng(0)
    noise = np.abs(random.normal(size=(1000, 1))) * np.where(np.arange(1000) < 100, 9, 1)[:, None]
    origins, later = np.arange(1000), np.arange(200, 1000)
    coverage = {
        calibration_window: float((noise[later] <= margin).mean())
        for calibration_window, margin in (
            (50, evaluation.margins(noise, origins, later, 0.8, 50)),
            (None, evaluation.margins(noise[:100], origins[:100], later, 0.8, None)),
        )
    }
    assert 0.77 < coverage[50] < 0.84
    assert coverage[None] > 0.99


def test_margins_need_observed_truth() -> None:
    with pytest.raises(EvaluationError, match="calibration_window: null"):
        evaluation.margins(random_errors(9, 0), np.arange(9), np.array([2]), 0.8, 5)


def test_naive2_is_exact_on_a_multiplicative_season() -> None:
    season = np.array([0.5, 1.0, 1.5, 1.0])
    history = 8.0 * np.tile(season, 10)
    np.testing.assert_allclose(metrics.naive2(history[:-1], 4, 6), 8 * season[[3, 0, 1, 2, 3, 0]])
    noise = np.random.default_rng(0).normal(100, 1, size=200)
    assert metrics.naive2(noise, 4, 3).tolist() == [noise[-1]] * 3  # no season
    assert metrics.naive2(-history, 4, 2).tolist() == [-8, -8]  # not positive


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published file")
def test_naive2_has_its_published_metrics_on_the_hourly_series() -> None:
    """Makridakis et al. 2020: sMAPE 18.383, MASE 2.395."""

    def rows(name: str) -> list[np.ndarray]:
        lines = (PUBLISHED / name).read_text().splitlines()[1:]
        cells = [line.replace('"', "").split(",")[1:] for line in lines]
        return [np.array([float(c) for c in row if c not in ("", "NA")]) for row in cells]

    smape, mase = [], []
    for past, future in zip(rows("Hourly-train.csv"), rows("Hourly-test.csv"), strict=True):
        forecast = metrics.naive2(past, 24, 48)
        smape.append(metrics.smape(future, forecast))
        mase.append(metrics.mae(future, forecast) / metrics.naive_scale(past, 24))
    assert round(float(np.mean(smape)), 3) == 18.383
    assert round(float(np.mean(mase)), 3) == 2.395
