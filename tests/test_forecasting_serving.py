"""A served forecaster answers raw histories as the evaluation did, and refuses invalid ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ostinato import errors, params, store
from ostinato.evaluation import comparison
from ostinato.forecasting import evaluation, histories, serving
from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.metrics import METRICS
from ostinato.forecasting.models import linear
from ostinato.task import Evaluation
from ostinato.training import keras_model
from tests.series import EVALUATION, prepared, table

Served = tuple[Path, SeriesDataset, Evaluation, serving.Service]


@pytest.fixture(scope="module", params=["series", "window"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A folder with raw/ and data/ (with the model), the data set, its evaluation, the service."""
    import keras

    folder = tmp_path_factory.mktemp("served")
    rows = table().drop(index=97)  # a gap in the history of the first test windows
    data = prepared(folder, rows, per=request.param, log=True, gaps="seasonal")
    keras.utils.set_random_seed(1)
    model = params.bind(linear.build, {"quantiles": 4, "residual": True, "weight_decay": 0.0})(data)
    for weight in model.weights:
        weight.assign(np.random.default_rng(2).normal(0, 0.1, weight.shape))
    package = folder / "data"
    keras_model.save(model, package / "model")
    predictor = keras_model.restore(package / "model")
    evaluated = params.bind(evaluation.evaluate, EVALUATION)(predictor, data, 1)
    store.write_arrays(package / "serving.npz", evaluated.serving)
    store.write_json(package / "about.json", {"domain": "forecasting", "model": "linear"})
    return folder, data, evaluated, serving.load(package)


def request_of(folder: Path, key: str) -> dict[str, Any]:
    return serving.to_requests(folder / "raw", folder / "data", [key])[key]


def test_raw_histories_are_answered_as_in_the_evaluation(served: Served) -> None:
    folder, _, evaluated, service = served
    arrays = evaluated.arrays
    keys = arrays["keys"][[0, 5, -1]]
    requests = serving.to_requests(folder / "raw", folder / "data", keys)
    responses = service.predict([serving.Input.model_validate(requests[k]) for k in keys], {})
    rows = [arrays["keys"].tolist().index(key) for key in keys]
    found = serving.from_responses([r.model_dump() for r in responses], arrays["truth"][rows], [])
    for name in ("truth", "forecast"):
        np.testing.assert_allclose(found[name], arrays[name][rows], rtol=1e-5)
    for level in (0.8, 0.95):  # margins of the last origin are served
        last = responses[-1].intervals[f"{level:g}"].model_dump()
        for end in ("low", "high"):
            expected = arrays[f"{end}_{100 * level:g}"][-1]
            np.testing.assert_allclose(last[end], expected, rtol=1e-5)
    assert [r.dates[0] for r in responses] == [key.partition("@")[2] for key in keys]
    assert all(len(r.dates) == 3 for r in responses)


def test_serving_gives_a_model_the_same_inputs_as_training(served: Served) -> None:
    folder, data, evaluated, _ = served
    key = str(evaluated.arrays["keys"][5])
    history = serving.Input.model_validate(request_of(folder, key))
    inputs = histories.prepare_input("input 0", history, data.details)
    trained, *_ = data.examples("test", np.array([5]))
    assert inputs.inputs.keys() == trained.keys()
    for name, values in trained.items():
        np.testing.assert_array_equal(inputs.inputs[name], values)
        assert inputs.inputs[name].dtype == values.dtype
    windows = data.windows("test", np.array([5]))
    assert (inputs.centre, inputs.spread) == (windows.centre, windows.spread)


def test_statistics_of_examples_aggregate_to_the_metrics(served: Served) -> None:
    _, _, evaluated, _ = served
    results = evaluation.per_example(evaluated.arrays)
    np.testing.assert_array_equal(results.keys, evaluated.arrays["keys"])
    assert set(results.statistics) == set(METRICS)
    for name, metric in METRICS.items():
        assert results.value(metric) == pytest.approx(evaluated.metrics[name], rel=1e-12)


def test_mae_has_the_bootstrap_interval_of_its_clusters(served: Served) -> None:
    _, _, evaluated, _ = served
    results = evaluation.per_example(evaluated.arrays)
    low, high = comparison.metric_interval(results, METRICS["mae"], resamples=100, seed=1)
    assert (evaluated.metrics["mae_low"], evaluated.metrics["mae_high"]) == (low, high)
    assert low < evaluated.value("mae") < high


def test_mae_has_no_interval_where_all_forecasts_are_in_one_cluster(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    _, data, _, service = served
    block = {**EVALUATION, "stride": 9}
    evaluated = params.bind(evaluation.evaluate, block)(service.predictor, data, 1)
    assert evaluated.metrics["samples"] == 2
    assert "mae" in evaluated.metrics
    assert "mae_low" not in evaluated.metrics
    assert "one cluster" in caplog.text


def test_windows_without_truth_have_no_statistics(served: Served) -> None:
    _, _, evaluated, _ = served
    arrays = dict(evaluated.arrays)
    truth, scale = arrays["truth"].copy(), arrays["scale"].copy()
    truth[2], truth[3, 0], scale[4] = np.nan, np.nan, np.nan
    results = evaluation.per_example({**arrays, "truth": truth, "scale": scale})
    for name, missing in (("mae", [2]), ("smape", [2]), ("mase", [2, 4]), ("owa", [2])):
        rows = np.isnan(results.statistics[name]).any(axis=1)
        assert np.flatnonzero(rows).tolist() == missing
    errors = np.abs(truth - arrays["forecast"])
    assert results.statistics["mae"][3].tolist() == [errors[3, 1:].mean(), 1]
    np.testing.assert_allclose(results.statistics["rmse"][3], [(errors[3, 1:] ** 2).sum(), 2])
    without = evaluation.per_example({k: v for k, v in arrays.items() if k != "naive2"})
    assert np.isnan(without.statistics["owa"]).all()
    np.testing.assert_array_equal(without.statistics["mae"][0], results.statistics["mae"][0])


def test_clusters_are_blocks_of_two_horizons_or_series() -> None:
    days = [f"{day:%Y-%m-%d}" for day in pd.date_range("2020-01-01", periods=30)]
    keys = np.array([f"{name}@{day}" for name in ("a@b", "c") for day in days])
    np.testing.assert_array_equal(evaluation.clusters(keys, 3), np.tile(np.arange(30) // 6, 2))
    np.testing.assert_array_equal(evaluation.clusters(keys, 30), np.repeat([0, 1], 30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["dates"].pop(3), r"input 0: 6 dates, but 7 values"),
        (lambda r: r["dates"].__setitem__(3, r["dates"][2]), r"input 0: date 3: .* equal steps"),
        (lambda r: r["dates"].__setitem__(0, "yesterday"), r"date 0: 'yesterday' is not ISO 8601"),
        (lambda r: r["dates"].__setitem__(3, "\ud800"), r"date 3: '.*' is not ISO 8601"),
        (lambda r: r["values"].__setitem__(4, float("nan")), r"value 4, of .* is not a number"),
        (
            lambda r: r["values"].__setitem__(slice(2, 5), [None] * 3),
            r"value 2, of .* is not a number, 3 steps are missing, and .* longest_gap is 2",
        ),
        (lambda r: r["values"].__setitem__(6, None), r"value 6, of .*; a history ends with a"),
        (lambda r: r["values"].__setitem__(4, -3.0), r"value -3\.0: .* must be above -1"),
        (lambda r: r["past_covariates"].clear(), r"past_covariates: 'other' is missing"),
        (lambda r: r["past_covariates"].update(otter=[]), r"past_.*: unknown 'otter'.*'other'"),
        (lambda r: r["static_covariates"].update(town="x"), r"static_.*: unknown 'town'"),
        (
            lambda r: r["future_covariates"]["kind"].pop(),
            r"future_covariates: 'kind' has 9 values, not 10",
        ),
        (
            lambda r: (r["dates"].pop(0), r["values"].pop(0)),
            r"6 values are too few; the model reads 7",
        ),
    ],
)
def test_invalid_histories_are_refused(
    served: Served, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder, _, evaluated, service = served
    request = request_of(folder, str(evaluated.arrays["keys"][0]))
    change(request)
    with pytest.raises(errors.RequestError, match=message):
        service.predict([serving.Input.model_validate(request)], {})


def test_a_dirty_table_gives_training_and_serving_the_same_inputs(tmp_path: Path) -> None:
    """Decimal commas, codes for missing values, gaps, and cells that training could not read."""
    rows = table().apply(lambda column: column.str.replace(".", ","))
    rows.loc[[99, 105], "value"], rows.loc[101, "other"] = "-999", "NA"
    rows.loc[[102, 115], "other"], rows.loc[104, "kind"] = "broken", "new"
    data = prepared(
        tmp_path,
        rows.drop(index=[97, 110]),
        {"decimal": ",", "missing": [-999]},
        gaps="forward",
        tolerated_rejects=0.02,
    )
    numbers = np.arange(data.size("test"))
    keys = data.windows("test", numbers).keys
    requests = serving.to_requests(tmp_path / "raw", tmp_path / "data", keys)
    trained, *_ = data.examples("test", numbers)
    for number, key in enumerate(keys):
        history = serving.Input.model_validate(json.loads(json.dumps(requests[key])))
        served = histories.prepare_input("input 0", history, data.details)
        for name, values in trained.items():
            np.testing.assert_array_equal(served.inputs[name][0], values[number])
        unknown = "new" in requests[key]["future_covariates"]["kind"]
        assert bool(served.warnings) == unknown


def test_a_response_is_finite_json_and_tells_what_the_model_does_not_know(served: Served) -> None:
    folder, _, evaluated, service = served
    request = request_of(folder, str(evaluated.arrays["keys"][0]))
    request["future_covariates"]["kind"][2] = "holiday"
    (response,) = service.predict([serving.Input.model_validate(request)], {})
    json.dumps(response.model_dump(), allow_nan=False)
    assert len(response.warnings) == 1
    assert "no category 'holiday' (value 2; 1 such" in response.warnings[0]
    for large in (1e30, 1e40, 1e308):
        request["values"][3] = large
        try:
            (response,) = service.predict([serving.Input.model_validate(request)], {})
        except errors.RequestError as error:
            assert "input 0: values: " in str(error)  # noqa: PT017 - either outcome is right
        else:
            json.dumps(response.model_dump(), allow_nan=False)


def test_an_unknown_series_is_refused_where_series_have_scales(served: Served) -> None:
    folder, data, evaluated, service = served
    request = request_of(folder, str(evaluated.arrays["keys"][0]))
    history = serving.Input.model_validate({**request, "series": "values"})
    if data.details.per == "window":
        assert service.predict([history], {})
    else:
        with pytest.raises(errors.RequestError, match="unknown series 'values'; did you mean 'val"):
            service.predict([history], {})
