"""Laws of the forecasters' layers, losses, scheduled sampling and ensembles."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ostinato import errors, params
from ostinato.forecasting import evaluation, metrics
from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import Quantiles, SeasonalNaive
from ostinato.forecasting.models import ensemble, linear, seasonal_naive, seq2seq
from ostinato.models import load as load_model
from ostinato.task import TrainingContext
from ostinato.training import keras_model, losses, runtime
from ostinato.training.keras_model import KerasModel
from ostinato.training.machine import Machine
from tests.series import EVALUATION, prepared, table

numbers = st.floats(-100, 100, width=32)


@given(arrays(np.float32, st.tuples(st.just(2), st.just(3), st.integers(1, 12)), elements=numbers))
def test_quantiles_do_not_cross_and_their_mean_is_the_first_input(raw: np.ndarray) -> None:
    quantiles = np.asarray(Quantiles()(raw), np.float64)
    assert (np.diff(quantiles, axis=-1) >= -1e-4).all()
    np.testing.assert_allclose(quantiles.mean(axis=-1), raw[..., 0], atol=1e-2)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 30))
def test_the_seasonal_naive_forecast_repeats_the_last_season(
    season: int, horizon: int, length: int
) -> None:
    past = np.random.default_rng(0).normal(size=(2, length, 3)).astype(np.float32)
    last = past[:, -season:, 0]
    expected = np.tile(last, 20)[:, :horizon, None]
    np.testing.assert_array_equal(SeasonalNaive(season, horizon)(past), expected)


def perfect() -> pd.DataFrame:
    """The same week over and over."""
    rows = table()
    return rows.assign(value=np.resize(["10", "20", "30", "25", "15", "5", "8"], len(rows)))


def unobserved() -> pd.DataFrame:
    """No truth of the first step of the horizon is observed in calibration and test."""
    rows = table()
    rows.loc[[*range(80, 98), *range(101, 118)], "value"] = ""
    return rows


@pytest.mark.parametrize(
    ("rows", "rules"),
    [
        (table().assign(value="5"), {}),
        (table(), {"season": 119}),
        (perfect(), {}),
        (table().assign(value="0"), {}),
        (table().assign(value=[*table().value[:100], *["0"] * 20]), {}),
        (unobserved(), {"gaps": "forward", "longest_gap": 99}),
    ],
    ids=["constant", "shorter than a season", "perfect", "zeros", "ends in zeros", "unobserved"],
)
def test_a_metric_that_is_not_defined_is_none_with_its_reason(
    rows: pd.DataFrame, rules: dict[str, Any], tmp_path: Path
) -> None:
    data = prepared(tmp_path, rows, **rules)
    predictor = KerasModel(seasonal_naive.build(data))
    evaluate = params.bind(evaluation.evaluate, EVALUATION)
    evaluated = evaluate(predictor, data, 1)
    for name in ("mae", "rmse", "smape", "naive_mae", "coverage_80"):
        assert np.isfinite(evaluated.value(name))
    missing = {name for name, value in evaluated.metrics.items() if value is None}
    assert missing
    assert evaluated.undefined.keys() == missing
    assert not any("not finite" in reason for reason in evaluated.undefined.values())
    assert np.isfinite(evaluated.serving["margins"]).all()
    results = evaluation.per_example(evaluated.arrays)
    for name in ("mase", "owa"):  # the gate reads these
        assert np.isfinite(results.value(metrics.METRICS[name])) == (name not in missing)


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_losses_agree_with_metrics(count: int) -> None:
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
    "epochs": 1, "batch_size": 32, "loss": "pinball", "metrics": ["median_error"],
    "optimizer": "adam", "learning_rate": 0.01, "schedule": "constant", "warmup_fraction": 0.0,
    "clip_norm": 1.0, "monitor": "validation_loss", "patience": 1, "scheduled_sampling": 0.0,
    "scheduled_sampling_epochs": 0,
}  # fmt: skip


def test_the_decoder_reads_the_truth_of_the_step_before_with_its_probability() -> None:
    random = np.random.default_rng(0)
    decoder = seq2seq.Decoder(4, 3, 2, True)
    states, last = random.normal(size=(2, 5, 4)), random.normal(size=(2, 4))
    future, truth = random.normal(size=(2, 3, 2)), random.normal(size=(2, 3, 1))
    inputs = [np.asarray(x, np.float32) for x in (states, last, future, truth)]
    always, never = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    free = np.asarray(decoder(*inputs[:3]))
    np.testing.assert_array_equal(decoder(*inputs, never), free)
    forced = np.asarray(decoder(*inputs, always))
    assert (forced[:, 0] == free[:, 0]).all(), "it saw the truth of the first step"
    assert (forced[:, 1] != free[:, 1]).any(), "it did not read the truth of the step before"
    other = inputs[3].copy()
    other[:, 2] += 9
    np.testing.assert_array_equal(decoder(*inputs[:3], other, always), forced)


def test_scheduled_sampling_rises_from_teacher_forcing_to_its_highest_probability() -> None:
    class Batches:
        def size(self, split: str) -> int:
            return 2

        def batches(self, split: str, **options: Any) -> Any:
            import tensorflow as tf

            x, y = {"past": np.zeros((2, 5, 1))}, np.zeros((2, 3, 1))
            return tf.data.Dataset.from_tensors((x, y, np.ones((2, 3))))

    def teacher_forcing(sampling: float, ramp: int, split: str, epoch: int) -> float:
        data = seq2seq.TeacherForcedData(Batches(), sampling, ramp)
        ((x, y, _),) = data.batches(split, batch_size=2, seed=1, epoch=epoch)
        np.testing.assert_array_equal(x["truth"], y)
        assert x["teacher_forcing"].shape == (2, 1)
        return float(x["teacher_forcing"][0, 0])

    epochs = range(1, 7)
    assert [teacher_forcing(1.0, 4, "train", e) for e in epochs] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert [teacher_forcing(0.5, 2, "train", e) for e in epochs] == [1, 0.75, 0.5, 0.5, 0.5, 0.5]
    assert [teacher_forcing(0.5, 0, "train", e) for e in epochs] == [0.5] * 6
    assert [teacher_forcing(0.0, 4, "train", e) for e in epochs] == [1] * 6
    assert [teacher_forcing(0.5, 4, "validation", e) for e in epochs] == [0] * 6


def test_all_weights_are_trained_with_and_without_teacher_forcing(tmp_path: Path) -> None:
    data = prepared(tmp_path, table())
    build = {"units": 4, "attention": True, "dropout": 0.0, "quantiles": 2, "residual": True}
    trained = {}
    for sampling in (0.0, 1.0):
        with runtime.runtime(1, Machine(), precision="float32"):
            model = params.bind(seq2seq.build, build)(data)
            before = model.get_weights()
            fit = params.bind(seq2seq.fit, {**FIT, "scheduled_sampling": sampling})
            fit(model, data, TrainingContext(tmp_path / f"{sampling}", 1))
        trained[sampling] = model.get_weights()
        assert all(
            (one != two).any()
            for one, two in zip(before, trained[sampling], strict=True)
            if one.dtype == np.float32
        )
    pairs = zip(trained[0.0], trained[1.0], strict=True)
    assert any((one != two).any() for one, two in pairs)


Members = tuple[SeriesDataset, dict[str, KerasModel]]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """A data set, and three models of it that are not trained."""
    data = prepared(tmp_path_factory.mktemp("members"), table())
    keras.utils.set_random_seed(1)
    block = {"quantiles": 4, "residual": True, "weight_decay": 0.0}
    small = {"units": 3, "attention": True, "dropout": 0.0, "quantiles": 4, "residual": True}
    models = {
        "one": params.bind(linear.build, block)(data),
        "two": params.bind(linear.build, block)(data),
        "three": params.bind(seq2seq.build, small)(data),
    }
    for seed, name in enumerate(("one", "two")):
        for weight in models[name].weights:
            weight.assign(np.random.default_rng(seed).normal(0, 0.2, weight.shape))
    return data, {name: KerasModel(model) for name, model in models.items()}


def combined(members: Members, combine: str, *names: str) -> tuple[Any, dict[str, float]]:
    data, models = members
    build = params.bind(ensemble.build, {"combine": combine})
    found: tuple[Any, dict[str, float]] = build(data, {name: models[name] for name in names})
    return found


def test_an_ensemble_is_the_mean_the_median_or_the_weighted_mean_of_its_members(
    members: Members, tmp_path: Path
) -> None:
    data, models = members
    x, *_ = data.examples("test", np.arange(8))
    alone = np.stack([model(x) for model in models.values()])
    for combine, expected in (("mean", alone.mean(axis=0)), ("median", np.median(alone, axis=0))):
        model, _ = combined(members, combine, *models)
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    model, weights = combined(members, "weights", *models)
    expected = np.tensordot(list(weights.values()), alone, 1)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    assert sum(weights.values()) == pytest.approx(1)
    assert (np.diff(expected, axis=-1) >= 0).all()
    keras_model.save(model, tmp_path)
    restored = load_model("forecasting", "ensemble").restore(tmp_path)
    np.testing.assert_allclose(restored(x), model(x), rtol=1e-6)


def test_an_ensemble_is_evaluated_like_a_model(members: Members) -> None:
    data, models = members
    model, _ = combined(members, "mean", "one", "two")
    evaluated = params.bind(evaluation.evaluate, EVALUATION)(KerasModel(model), data, 1)
    x, *_ = data.examples("test", np.arange(data.size("test")))
    mean = (metrics.quantile(models["one"](x), 0.5) + metrics.quantile(models["two"](x), 0.5)) / 2
    windows = data.windows("test", np.arange(data.size("test")))
    expected = metrics.mae(windows.truth, data.unscaled(mean.astype(np.float64), windows))
    assert evaluated.metrics["mae"] == pytest.approx(float(expected), rel=1e-5)
    assert ensemble.fit(model, data, TrainingContext(Path("unused"), 1)) == []


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 5), st.integers(2, 4))
def test_fitted_weights_are_never_worse_than_equal_ones(seed: int, count: int, size: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.normal(size=50)
    quantiles = truth[:, None] + random.normal(size=(size, 50, count))
    quantiles = np.sort(quantiles * random.uniform(0.1, 3, (size, 1, 1)), axis=-1)
    levels = metrics.levels(count)

    def loss(weights: Any) -> float:
        weighted = np.tensordot(weights, quantiles, 1)
        return float(metrics.pinball(truth, weighted, levels).mean())

    found = ensemble.fit_weights(truth, quantiles)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert loss(found) <= loss(np.full(size, 1 / size))
    best = min(loss(one) for one in np.eye(size))
    assert loss(found) <= 1.02 * best, "a single member is clearly better"


def test_a_perfect_member_gets_all_weight_and_equal_members_share_it() -> None:
    truth = np.random.default_rng(0).normal(size=200)
    perfect, biased = truth[:, None], truth[:, None] + 2
    np.testing.assert_allclose(
        ensemble.fit_weights(truth, np.stack([biased, perfect])), [0, 1], atol=0.01
    )
    np.testing.assert_allclose(ensemble.fit_weights(truth, np.stack([biased, biased])), [0.5, 0.5])
    opposite = np.stack([biased, truth[:, None] - 2])  # their mean is the truth
    np.testing.assert_allclose(ensemble.fit_weights(truth, opposite), [0.5, 0.5], atol=0.01)


def test_members_that_do_not_fit_together_are_refused(members: Members) -> None:
    data, models = members
    naive = KerasModel(params.bind(seasonal_naive.build, {})(data))
    build = params.bind(ensemble.build, {"combine": "mean"})
    with pytest.raises(errors.EnsembleError, match=r"naive .* 3 .* 1 quantiles, one 3 in 4"):
        build(data, {"one": models["one"], "naive": naive})
    with pytest.raises(errors.EnsembleError, match="at least two"):
        combined(members, "mean", "one")
    with pytest.raises(errors.EnsembleError, match="counts: an ensemble needs Keras models"):
        build(data, {"one": models["one"], "counts": object()})
