"""A served forecaster answers raw histories as evaluation did, and says what it cannot answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ostinato import errors, params, store
from ostinato.errors import EvaluationError
from ostinato.forecasting import evaluation, serving
from ostinato.forecasting.models import linear
from tests.series import prepared, table

SCORES: dict[str, Any] = {
    "step": 1, "intervals": [0.8, 0.95], "recent": 5, "shown": 1, "batch_size": 64, "timed_requests": 1,
}  # fmt: skip


@pytest.fixture(scope="module", params=["series", "window"])
def served_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, Callable[..., Any]]:
    """The folder of a served model, what evaluation told of it, and its answer."""
    import keras

    folder = tmp_path_factory.mktemp("served")
    rows = table().drop(index=97)  # a gap in what the first windows of the test read
    data = prepared(folder, rows, per=request.param, log=True, gaps="seasonal")
    keras.utils.set_random_seed(1)
    model = params.bind(linear.build, {"quantiles": 4, "residual": True, "weight_decay": 0.0})(data)
    for weight in model.weights:
        weight.assign(np.random.default_rng(2).normal(0, 0.1, weight.shape))
    scored = params.bind(evaluation.evaluate, SCORES)(model, data, 1)
    store.write_model(folder / "data" / "model.keras", model)
    store.write_table(folder / "data" / "intervals.csv", scored.tables["intervals"])
    store.write_json(folder / "data" / "about.json", {"domain": "forecasting", "model": "linear"})
    return folder, scored, serving.load(folder / "data")


def question(folder: Path, key: str) -> dict[str, Any]:
    return serving.questions(folder / "raw", folder / "data", [key])[key]


def test_raw_histories_are_answered_as_evaluation_did(served_model: Any) -> None:
    folder, scored, answer = served_model
    keys = scored.arrays["keys"][[0, 5, -1]]
    asked = serving.questions(folder / "raw", folder / "data", keys)
    told = answer([serving.Input.model_validate(asked[key]) for key in keys], 0)
    places = [scored.arrays["keys"].tolist().index(key) for key in keys]
    arrays = serving.arrays([a.model_dump() for a in told], scored.arrays["truth"][places], [])
    for name in ("truth", "forecast"):
        np.testing.assert_allclose(arrays[name], scored.arrays[name][places], rtol=1e-5)
    for level in (0.8, 0.95):  # the last origin's margins count in what is served
        last = told[-1].intervals[f"{level:g}"].model_dump()
        for end in ("low", "high"):
            expected = scored.arrays[f"{end}_{100 * level:g}"][-1]
            np.testing.assert_allclose(last[end], expected, rtol=1e-5)
    assert [a.dates[0] for a in told] == [key.partition("@")[2] for key in keys]
    assert all(len(a.dates) == 3 for a in told)


def test_outcomes_average_to_the_scores_with_their_sign_turned(served_model: Any) -> None:
    _, scored, _ = served_model
    for metric in evaluation.LOSSES:
        outcomes = evaluation.outcomes(metric, scored.arrays)
        assert outcomes.mean() == pytest.approx(-scored.metrics[metric])
    with pytest.raises(EvaluationError, match="did you mean 'mase'"):
        evaluation.outcomes("mas", scored.arrays)


def test_what_was_not_measured_has_no_outcome_and_what_was_keeps_its_own(served_model: Any) -> None:
    _, scored, _ = served_model
    truth = scored.arrays["truth"].copy()
    truth[2], truth[3, 0] = np.nan, np.nan
    outcomes = evaluation.outcomes("mae", {**scored.arrays, "truth": truth})
    assert np.flatnonzero(np.isnan(outcomes)).tolist() == [2]
    rest = np.abs(truth - scored.arrays["forecast"])[3, 1:]
    assert outcomes[3] == pytest.approx(-rest.mean())


def test_forecasts_of_the_same_days_hang_together_in_all_series_or_those_of_a_series() -> None:
    days = [f"{at:%Y-%m-%d}" for at in pd.date_range("2020-01-01", periods=30)]
    keys = np.array([f"{name}@{day}" for name in ("a@b", "c") for day in days])
    found = evaluation.clusters({"keys": keys, "truth": np.zeros((60, 3))})
    np.testing.assert_array_equal(found, np.tile(np.arange(30) // 6, 2))
    found = evaluation.clusters({"keys": keys, "truth": np.zeros((60, 30))})
    np.testing.assert_array_equal(found, np.repeat([0, 1], 30))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q["dates"].pop(3), r"history 0: 6 dates, but 7 values"),
        (lambda q: q["dates"].__setitem__(3, q["dates"][2]), r"history 0: date 3: .* equal steps"),
        (lambda q: q["dates"].__setitem__(0, "yesterday"), r"date 0: 'yesterday' is not ISO 8601"),
        (lambda q: q["values"].__setitem__(4, float("nan")), r"value 4, of .* is not a number"),
        (lambda q: q["values"].__setitem__(4, None), r"value 4, of .* is not a number"),
        (lambda q: q["past"].clear(), r"past: 'other' is missing"),
        (lambda q: q["past"].__setitem__("otter", []), r"past: unknown 'otter'.*'other'"),
        (lambda q: q["future_covariates"]["kind"].pop(), r"known: 'kind' has 9 values, not 10"),
        (
            lambda q: (q["dates"].pop(0), q["values"].pop(0)),
            r"6 values are too short; the model reads 7",
        ),
    ],
)
def test_what_it_cannot_answer_is_said(
    served_model: Any, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    folder, scored, answer = served_model
    asked = question(folder, str(scored.arrays["keys"][0]))
    change(asked)
    with pytest.raises(errors.RequestError, match=says):
        answer([serving.Input.model_validate(asked)], 0)
