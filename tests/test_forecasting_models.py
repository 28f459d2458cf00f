"""Laws of the forecasters' own layers and losses."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ruamel.yaml import YAML

from ostinato import errors, params, store
from ostinato.forecasting import evaluation, metrics
from ostinato.forecasting.layers import Quantiles, SeasonalNaive
from ostinato.forecasting.models import ensemble, linear, seasonal_naive, seq2seq
from ostinato.task import TrainingContext
from ostinato.tracking import mirror
from ostinato.training import losses, runtime
from stages import ensemble as stage
from tests.series import prepared, table

numbers = st.floats(-100, 100, width=32)


@given(arrays(np.float32, st.tuples(st.just(2), st.just(3), st.integers(1, 12)), elements=numbers))
def test_quantiles_never_cross_and_are_centred_on_the_first_input(raw: np.ndarray) -> None:
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
    "epochs": 1, "batch_size": 32, "loss": "pinball", "metrics": ["median_error"], "optimizer": "adam",
    "learning_rate": 0.01, "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": 1.0,
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
        with params.bind(runtime.runtime, machine)(1):
            model = params.bind(seq2seq.build, build)(data)
            before = model.get_weights()
            fit = params.bind(seq2seq.fit, {**FIT, "forcing": forcing})
            fit(model, data, TrainingContext(tmp_path / f"{forcing}", 1))
        trained[forcing] = model.get_weights()
        assert all(
            (one != two).any()
            for one, two in zip(before, trained[forcing], strict=True)
            if one.dtype == np.float32
        )
    pairs = zip(trained[0.0], trained[1.0], strict=True)
    assert any((one != two).any() for one, two in pairs)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, Any]]:
    """A folder with data/, the data, and three models that were not trained."""
    folder = tmp_path_factory.mktemp("team")
    data = prepared(folder, table())
    keras.utils.set_random_seed(1)
    small = {"units": 3, "attention": True, "dropout": 0.0, "quantiles": 4, "residual": True}
    straight = {"quantiles": 4, "residual": True, "weight_decay": 0.0}
    members = {
        "one": params.bind(linear.build, straight)(data),
        "two": params.bind(linear.build, straight)(data),
        "three": params.bind(seq2seq.build, small)(data),
    }
    for number, name in enumerate(("one", "two")):
        for weight in members[name].weights:
            weight.assign(np.random.default_rng(number).normal(0, 0.2, weight.shape))
    return folder, data, members


def together(team: Any, combine: str, *names: str) -> tuple[Any, dict[str, float]]:
    chosen = {name: team[2][name] for name in names}
    combined: tuple[Any, dict[str, float]] = params.bind(ensemble.build, {"combine": combine})(
        team[1], chosen
    )
    return combined


def test_an_ensemble_is_the_mean_the_median_or_the_weighted_mean_of_its_members(
    team: Any, tmp_path: Path
) -> None:
    _, data, members = team
    x, *_ = data.examples("test", np.arange(8))
    alone = np.stack([np.asarray(model(x)) for model in members.values()])
    for combine, expected in (("mean", alone.mean(axis=0)), ("median", np.median(alone, axis=0))):
        model, _ = together(team, combine, *members)
        np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    model, shares = together(team, "weights", *members)
    expected = np.tensordot(list(shares.values()), alone, 1)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    assert sum(shares.values()) == pytest.approx(1)
    assert (np.diff(expected, axis=-1) >= 0).all()
    store.write_model(tmp_path / "model.keras", model)
    np.testing.assert_array_equal(store.read_model(tmp_path / "model.keras")(x), model(x))


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 5), st.integers(2, 4))
def test_weights_are_shares_that_are_never_worse_than_equal_ones(
    seed: int, count: int, members: int
) -> None:
    random = np.random.default_rng(seed)
    truth = random.normal(size=50)
    quantiles = truth[:, None] + random.normal(size=(members, 50, count))
    quantiles = np.sort(quantiles * random.uniform(0.1, 3, (members, 1, 1)), axis=-1)
    levels = metrics.levels(count)

    def loss(shares: Any) -> float:
        mixed = np.tensordot(shares, quantiles, 1)
        return float(metrics.pinball(truth, mixed, levels).mean())

    found = ensemble.weights(truth, quantiles)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert loss(found) <= loss(np.full(members, 1 / members))
    best = min(loss(one) for one in np.eye(members))
    assert loss(found) <= 1.02 * best, "a single member is clearly better"


def test_weights_go_to_the_member_that_knows_and_are_shared_by_equal_ones() -> None:
    truth = np.random.default_rng(0).normal(size=200)
    knows, wrong = truth[:, None], truth[:, None] + 2
    np.testing.assert_allclose(ensemble.weights(truth, np.stack([wrong, knows])), [0, 1], atol=0.01)
    np.testing.assert_allclose(ensemble.weights(truth, np.stack([wrong, wrong])), [0.5, 0.5])
    between = np.stack([wrong, truth[:, None] - 2])  # halves of both are the truth
    np.testing.assert_allclose(ensemble.weights(truth, between), [0.5, 0.5], atol=0.01)


def test_members_that_do_not_fit_are_told(team: Any) -> None:
    _, data, members = team
    naive = params.bind(seasonal_naive.build, {})(data)
    with pytest.raises(errors.EnsembleError, match=r"naive .* 3 .* 1 quantiles, one 3 in 4"):
        params.bind(ensemble.build, {"combine": "mean"})(
            data, {"one": members["one"], "naive": naive}
        )
    with pytest.raises(errors.EnsembleError, match="at least two"):
        together(team, "mean", "one")


def test_the_stage_scores_an_ensemble_of_results_as_a_run_is_scored(
    team: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data, members = team
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mirror, "mirror", lambda *told: print(*told))
    monkeypatch.setattr(stage, "load_study", params.load)
    Path("data").mkdir()
    Path("data/toy").symlink_to(folder / "data")
    for name in ("one", "two"):
        store.write_model(Path("results", name, "model.keras"), members[name])
        store.write_text(Path("results", name, "history.csv"), "epoch,seconds\n1,2.0\n2,3.0\n")
    block = {
        "step": 3,
        "intervals": [0.8],
        "recent": None,
        "shown": 1,
        "batch_size": 8,
        "timed_requests": 1,
    }
    whole = {"domain": "forecasting", "data": "toy", "members": ["one", "two"], "combine": "mean"}
    values = {
        "seed": 1,
        "scores": {"forecasting": block},
        "runs": {"one": {"data": "toy"}, "two": {"data": "toy"}},
        "ensembles": {"both": whole},
    }
    YAML().dump(values, Path("params.yaml"))
    stage.main("both")
    assert "ensemble both" in capsys.readouterr().out
    expected = params.bind(evaluation.evaluate, block)(
        together(team, "mean", "one", "two")[0], data, 1
    )
    assert store.read_json(Path("ensembles/both/metrics.json")) == pytest.approx(expected.metrics)
    assert Path("ensembles/both/tables/members.csv").read_text() == "run,weight\none,0.5\ntwo,0.5\n"
    assert float(Path("ensembles/both/history.csv").read_text().split(",")[-1]) > 10
