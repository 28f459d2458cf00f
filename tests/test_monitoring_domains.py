"""What series and texts give to the monitor."""

import numpy as np
import pytest

from ostinato.forecasting import monitoring as forecasts
from ostinato.task import Manifest
from ostinato.translation import monitoring as translations


def test_forecasts_are_judged_by_the_truths_that_are_known() -> None:
    responses = [
        {"dates": [f"2026-01-{day:02}T00:00:00", f"2026-01-{day + 1:02}T00:00:00"],
         "forecast": [10.0, 20.0]}
        for day in range(1, 11)
    ]  # fmt: skip
    truths = [[12.0, None]] * 5 + [[10.0, 24.0]] * 5
    results = forecasts.judge([{"series": "a"}] * 10, responses, truths, ["x"] * 10)
    assert results.value(forecasts.METRIC) == pytest.approx(2.0)
    assert results.keys[0] == "a@2026-01-01T00:00:00"
    assert len(set(results.clusters.tolist())) == 3  # blocks of two horizons
    for truth in ([1.0], "12", [None, None], [True, 1.0], None):
        assert not forecasts.is_truth(truth, responses[0])
    assert forecasts.is_truth([1, None], responses[0])


def test_the_answers_of_forecasts_have_the_features_of_the_test_split() -> None:
    values = np.arange(12.0).reshape(4, 3)
    now = forecasts.answer_profile([{"forecast": row.tolist()} for row in values])
    then = forecasts.reference_profile({"forecast": values}, Manifest("a", "forecasts", {}))
    assert now == then
    assert now.numbers["change of the forecast"] == [1.0] * 8


def test_translations_are_judged_by_their_references() -> None:
    responses = [
        {"translation": text, "log_probability": -1.0, "language": "fr"}
        for text in ("un petit chat noir dort", "le chien court vite")
    ]
    truths = ["un petit chat noir dort", "le chien court vite"]
    results = translations.judge([{}, {}], responses, truths, ["a", "b"])
    assert results.value(translations.METRIC) == pytest.approx(100)
    arrays = {"text": np.array(truths), "log_probability": np.array([-1.0, -1.0])}
    then = translations.reference_profile(arrays, Manifest("a", "pairs", {}))
    assert translations.answer_profile(responses) == then
    assert translations.confidence(responses) is None
    assert not translations.is_truth(" ", responses[0])
