"""Scores of forecasts agree with those of others, and keep their laws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato import store
from ostinato.errors import EvaluationError
from ostinato.forecasting import evaluation, metrics

GOLDEN = store.read_json(Path(__file__).parent / "golden" / "forecasting.json")  # how: beside it
TRUTH, QUANTILES = np.array(GOLDEN["truth"]), np.array(GOLDEN["quantiles"])
MEDIAN = metrics.quantile(QUANTILES, 0.5)
CLOSE: dict[str, Any] = {"rel": 1e-9, "abs": 0}
MEASURED = Path(__file__).parents[2] / "shared/data/series/m4"


def test_scores_agree_with_utilsforecast() -> None:
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


def test_diebold_mariano_is_statsmodels_hac_with_the_correction_for_few() -> None:
    one, two = (np.abs(TRUTH - f).mean(axis=1) for f in (MEDIAN, np.array(GOLDEN["other"])))
    gain, error, statistic = metrics.diebold_mariano(one, two, 4)
    n, h = len(one), 5
    factor = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert gain == pytest.approx(GOLDEN["difference"], **CLOSE)
    assert error == pytest.approx(GOLDEN["error"] / factor, **CLOSE)
    assert statistic == pytest.approx(GOLDEN["difference"] / GOLDEN["error"] * factor, **CLOSE)
    assert metrics.diebold_mariano(two, one, 4)[2] == -statistic
    assert metrics.diebold_mariano(one, one, 4) == (0, 0, 0)


def test_what_was_not_measured_does_not_count() -> None:
    truth = TRUTH.copy()
    truth[3:] = np.nan
    for score in (metrics.mae, metrics.rmse, metrics.smape):
        assert score(truth, MEDIAN) == pytest.approx(score(TRUTH[:3], MEDIAN[:3]))
    low, high = QUANTILES[..., 1], QUANTILES[..., 8]
    assert metrics.coverage(truth, low, high) == metrics.coverage(TRUTH[:3], low[:3], high[:3])
    one = metrics.weighted_quantile_loss(truth, QUANTILES)
    assert one == pytest.approx(metrics.weighted_quantile_loss(TRUTH[:3], QUANTILES[:3]))


@given(st.integers(1, 30))
def test_levels_are_middles_and_a_quantile_at_its_level_is_itself(count: int) -> None:
    levels = metrics.levels(count)
    np.testing.assert_allclose(levels + levels[::-1], 1)
    values = np.arange(count) ** 2.0
    for level, value in zip(levels, values, strict=True):
        assert metrics.quantile(values, level) == pytest.approx(value, abs=1e-6)
    assert metrics.quantile(values, 0.0) == values[0]
    assert metrics.quantile(values, 1.0) == values[-1]


@given(st.integers(5, 200), st.sampled_from([0.5, 0.8, 0.95]), st.integers(0, 99))
def test_conformal_margins_hold_their_share_of_exchangeable_errors(
    size: int, level: float, seed: int
) -> None:
    """By definition: at least the level of the calibration itself, and no larger than needed."""
    excess = np.random.default_rng(seed).normal(size=(size, 3))
    margin = metrics.conformal(excess, level)
    inside = (excess <= margin).sum(axis=0)
    assert (inside == min(size, np.ceil((size + 1) * level))).all()
    holes = np.concatenate([excess, np.full((9, 3), np.nan)])
    np.testing.assert_array_equal(metrics.conformal(holes, level), margin)


def errors(size: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(size, 4))


@given(st.integers(8, 60), st.integers(1, 40), st.integers(0, 99), st.data())
def test_margins_at_an_origin_depend_on_the_latest_truths_before_it_and_on_nothing_else(
    size: int, recent: int, seed: int, data: st.DataObject
) -> None:
    excess, moments = errors(size, seed), np.arange(size)
    origin = data.draw(st.integers(4, size))
    (margin,) = evaluation.margins(excess, moments, np.array([origin]), 0.8, recent)
    due = moments[:, None] + np.arange(4)  # the time of each truth
    known = due < origin
    latest = known & (due >= origin - recent)
    other = np.where(latest, excess, errors(size, seed + 1))
    order = np.random.default_rng(seed).permutation(size)
    again = evaluation.margins(other[order], moments[order], np.array([origin]), 0.8, recent)
    np.testing.assert_array_equal(again[0], margin)
    for step in range(4):  # by definition
        own = excess[latest[:, step], step]
        np.testing.assert_array_equal(margin[step], metrics.conformal(own[:, None], 0.8)[0])
    every = evaluation.margins(excess, moments, np.array([origin, 0]), 0.8, None)
    np.testing.assert_array_equal(every, [metrics.conformal(excess, 0.8)] * 2)


def test_margins_follow_a_series_that_calms_down_and_hold_their_share() -> None:
    """A storm in the calibration part: margins of all of it hold far too much afterwards."""
    random = np.random.default_rng(0)
    noise = np.abs(random.normal(size=(1000, 1))) * np.where(np.arange(1000) < 100, 9, 1)[:, None]
    moments, asked = np.arange(1000), np.arange(200, 1000)
    held = {
        recent: float((noise[asked] <= margin).mean())
        for recent, margin in (
            (50, evaluation.margins(noise, moments, asked, 0.8, 50)),
            (None, evaluation.margins(noise[:100], moments[:100], asked, 0.8, None)),
        )
    }
    assert 0.77 < held[50] < 0.84
    assert held[None] > 0.99


def test_margins_need_a_truth_that_is_known() -> None:
    with pytest.raises(EvaluationError, match="recent: null"):
        evaluation.margins(errors(9, 0), np.arange(9), np.array([2]), 0.8, 5)


def test_naive2_is_exact_on_a_multiplicative_season() -> None:
    season = np.array([0.5, 1.0, 1.5, 1.0])
    history = 8.0 * np.tile(season, 10)
    np.testing.assert_allclose(metrics.naive2(history[:-1], 4, 6), 8 * season[[3, 0, 1, 2, 3, 0]])
    noise = np.random.default_rng(0).normal(100, 1, size=200)
    assert metrics.naive2(noise, 4, 3).tolist() == [noise[-1]] * 3  # no season in it
    assert metrics.naive2(-history, 4, 2).tolist() == [-8, -8]  # not positive


@pytest.mark.skipif(not MEASURED.exists(), reason="the published file is not here")
def test_naive2_has_its_published_scores_on_the_hourly_series() -> None:
    """Makridakis et al. 2020: sMAPE 18.383, MASE 2.395."""

    def rows(name: str) -> list[np.ndarray]:
        lines = (MEASURED / name).read_text().splitlines()[1:]
        cells = [line.replace('"', "").split(",")[1:] for line in lines]
        return [np.array([float(c) for c in row if c not in ("", "NA")]) for row in cells]

    smape, mase = [], []
    for past, future in zip(rows("Hourly-train.csv"), rows("Hourly-test.csv"), strict=True):
        forecast = metrics.naive2(past, 24, 48)
        smape.append(metrics.smape(future, forecast))
        mase.append(metrics.mae(future, forecast) / metrics.naive_scale(past, 24))
    assert round(float(np.mean(smape)), 3) == 18.383
    assert round(float(np.mean(mase)), 3) == 2.395
