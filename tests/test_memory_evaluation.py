"""Evaluation and serving of memory tasks: metrics, the error by delay, and answers to requests."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from ostinato import store
from ostinato.errors import EvaluationError, RequestError
from ostinato.memory import dataset, evaluation, metrics, sources
from ostinato.memory.models import constant, rnn
from ostinato.memory.serving import Input, Service, from_responses, load, to_requests
from ostinato.task import TrainingContext
from tests.test_memory_models import RNN

FIT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "truncation": 0,
    "information_flow": 0.0,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "clip_norm": 1.0,
    "clip_value": 0.0,
    "monitor": "validation_loss",
    "patience": 9,
}
BLOCK = {"resamples": 50, "batch_size": 7, "max_examples": 20, "timed_requests": 2}
SOURCES: dict[str, dict[str, Any]] = {
    "adding": {"length": 6, "min_length": 6, "delay": 0, "examples_per_epoch": 40},
    "copy": {"length": 3, "min_length": 3, "delay": 0, "bits": 2, "examples_per_epoch": 40},
    "parity": {"length": 4, "min_length": 4, "delay": 0, "examples_per_epoch": 40},
}


class Oracle:
    """A model that knows the answers of a task as long as the sequence has at most ``steps``."""

    parameters = 0

    def __init__(self, task: str, longest: int = 10**6, steps: int | None = None) -> None:
        self.task, self.longest, self.steps = task, longest, steps
        self.gradient_norms: dict[str, Any] = {}

    def traces(self, x: Any) -> Any:
        return {}

    def __call__(self, x: Any) -> Any:
        knows = np.float32(x.shape[1] <= self.longest)
        if self.task == "adding":
            return knows * (x[..., :1] * x[..., 1:]).sum(axis=1)
        if self.task == "parity":
            return np.eye(2, dtype=np.float32)[(knows * x.sum(axis=(1, 2)) % 2).astype(int)]
        answer = np.zeros((*x.shape[:2], 2), np.float32)
        length = (x.shape[1] - 1) // 2
        answer[:, -length:] = knows * x[:, :length, :2]
        return answer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_FOLDERS", str(tmp_path))
    return tmp_path


def made(folder: Path, source: str, **changed: Any) -> dataset.Dataset:
    for each in ("raw", "data"):
        (folder / each).mkdir(exist_ok=True)
    getattr(sources, source)(folder / "raw", folder, 7, **SOURCES[source])
    usual = {"validation": 0.5, "test": 0.5, "curriculum_epochs": 0, "lengths": [], "delays": []}
    dataset.prepare(folder / "raw", folder / "data", **{**usual, **changed})
    return dataset.load(folder / "data")


@pytest.mark.parametrize("task", SOURCES)
def test_right_answers_have_no_error_and_metrics_of_other_targets_have_no_value(
    task: str, folder: Path
) -> None:
    data = made(folder, task)
    found = evaluation.evaluate(Oracle(task), data, 1, **BLOCK)
    own = {metric.name for metric in metrics.OF_TARGET[data.target]}
    best = {"accuracy": 1.0}
    for name in metrics.METRICS:
        for key in (name, f"{name}_low", f"validation_{name}"):
            value = found.metrics[key]
            assert value == (pytest.approx(best.get(name, 0.0), abs=1e-6) if name in own else None)
            assert name in own or "the target of this task" in found.undefined[key]
    assert found.metrics["samples"] == 20
    assert not found.tables


def test_metrics_are_those_of_their_definitions() -> None:
    truth = np.array([[[1.0], [np.nan]], [[3.0], [5.0]]])
    prediction = np.array([[[2.0], [9.0]], [[3.0], [3.0]]])
    found = metrics.statistics("number", truth, prediction)
    values = {
        name: float(metric.aggregate(found[name].sum(axis=0)))
        for name, metric in metrics.METRICS.items()
        if metric in metrics.OF_TARGET["number"]
    }
    assert values["squared_error"] == pytest.approx(5 / 3)
    assert values["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert values["nrmse"] == pytest.approx((5 / 3) ** 0.5 / 4)
    assert np.isnan(found["accuracy"]).all()
    bits = metrics.statistics("bits", np.array([[0.0, 1.0, np.nan]]), np.array([[0.6, 0.7, 0.1]]))
    assert bits["bit_error"].tolist() == [[1, 2]]
    assert metrics.chance("class", np.array([0, 1, 1, 1])) == 0.25
    assert metrics.chance("number", np.array([[0.0], [2.0]])) == 1
    assert metrics.chance("bits", np.zeros((2, 3, 1))) == 0.5


@pytest.mark.parametrize("task", SOURCES)
def test_the_table_by_delay_shows_where_a_model_forgets(task: str, folder: Path) -> None:
    data = made(folder, task, lengths=[2, 4], delays=[0, 3])
    steps = 9 if task == "copy" else 4
    predictor = Oracle(task, longest=steps)
    table = evaluation.error_by_delay(predictor, data, 1, 20, 7)
    assert table[["length", "delay"]].to_numpy().tolist() == [[2, 0], [2, 3], [4, 0], [4, 3]]
    knows = np.array(table["steps"] <= steps)
    if task == "copy":  # the oracle reads no delay
        knows &= np.array(table["delay"] == 0)
    assert knows.tolist() == [True, False, True, False]
    assert (table["error"][knows] < 1e-9).all()
    assert (table["error"][~knows] > 0.2).all()
    only = evaluation.error_by_delay(Oracle(task, steps=steps), data, 1, 20, 7)
    assert only["steps"].unique().tolist() == [steps]


def test_empty_steps_are_added_to_stored_examples(folder: Path) -> None:
    for each in ("raw", "data"):
        (folder / each).mkdir()
    sources.digits(folder / "raw", folder, 7, steps="rows", permuted=False, delay=0)
    usual: dict[str, Any] = {"validation": 0.1, "test": 0.1, "curriculum_epochs": 0, "lengths": []}
    dataset.prepare(folder / "raw", folder / "data", **usual, delays=[0, 5])
    data = dataset.load(folder / "data")
    seen: list[np.ndarray] = []

    class Watcher(Oracle):
        def __call__(self, x: Any) -> Any:
            seen.append(x)
            return np.eye(10, dtype=np.float32)[np.zeros(len(x), int)]

    table = evaluation.error_by_delay(Watcher("parity"), data, 1, 20, 20)
    assert table["steps"].tolist() == [8, 13]
    np.testing.assert_array_equal(seen[1][:, :8], seen[0])
    assert not seen[1][:, 8:].any()


def test_answers_that_are_not_finite_are_an_error(folder: Path) -> None:
    class Broken(Oracle):
        def __call__(self, x: Any) -> Any:
            return np.full((len(x), 1), np.nan, np.float32)

    with pytest.raises(EvaluationError, match="not finite"):
        evaluation.evaluate(Broken("adding"), made(folder, "adding"), 1, **BLOCK)


def test_the_constant_is_the_mean_of_the_training_targets(folder: Path) -> None:
    data = made(folder, "adding")
    model = constant.build(data)
    context = TrainingContext(folder, 3)
    constant.fit(model, data, context, batch_size=7)
    targets = [
        y for _, y in data.batches("train", batch_size=9, seed=3, epoch=1).as_numpy_iterator()
    ]
    assert model.value[0] == pytest.approx(1, abs=0.3)
    assert len(np.concatenate(targets)) == 40
    constant.save(model, folder)
    found = constant.restore(folder)(np.zeros((3, 5, 2), np.float32))
    np.testing.assert_allclose(found, np.full((3, 1), model.value[0]), rtol=1e-6)


# Training, and what is served


@pytest.fixture
def trained(folder: Path) -> tuple[dataset.Dataset, Any, Path]:
    """A small network of a task with delays, saved as a package."""
    data = made(folder, "parity", delays=[0, 3])
    keras.backend.clear_session()
    model = rnn.build(data, **{**RNN, "cell": "gru"})
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    rnn.fit(model, data, TrainingContext(checkpoints, 1), **FIT)
    package = folder / "data"
    rnn.save(model, package / "model")
    store.write_json(package / "about.json", {"domain": "memory", "model": "rnn"})
    return data, model, package


def test_a_network_shows_its_gates_and_how_far_its_gradient_reaches(trained: Any) -> None:
    data, model, package = trained
    predictor = rnn.restore(package / "model")
    assert list(predictor.gradient_norms) == ["before", "during", "after"]
    for name, norms in predictor.gradient_norms.items():
        np.testing.assert_array_equal(norms, model.gradient_norms[name])
        assert norms.shape == (4,)
        assert (norms > 0).all()
    assert (predictor.gradient_norms["before"] != predictor.gradient_norms["after"]).any()
    found = evaluation.evaluate(predictor, data, 1, **BLOCK)
    assert set(found.figures) == {"error_by_delay", "gradient_norms", "traces"}
    assert found.tables["gradient_norms"]["steps_back"].tolist() == [0, 1, 2, 3]
    last = found.tables["gradient_norms"]["after"][0]
    assert last == predictor.gradient_norms["after"][-1]
    traces = predictor.traces(data.examples("test").x[0])
    states = predictor.model.layers[1](data.examples("test").x[:1])
    np.testing.assert_allclose(traces["state"][-1], states[0], atol=1e-6)


def test_a_resumed_training_keeps_the_norms_of_its_beginning(trained: Any, folder: Path) -> None:
    data, model, _ = trained
    keras.backend.clear_session()  # as in a new process, layers have the names of the first model
    again = rnn.build(data, **{**RNN, "cell": "gru"})
    rnn.fit(again, data, TrainingContext(folder / "checkpoints", 1), **{**FIT, "epochs": 4})
    for name in ("before", "during"):
        np.testing.assert_array_equal(again.gradient_norms[name], model.gradient_norms[name])


@pytest.mark.parametrize("task", SOURCES)
def test_requests_get_the_predictions_of_the_evaluation(task: str, folder: Path) -> None:
    data = made(folder, task)
    arrays = evaluation.answers(Oracle(task), data, data.examples("test"), 7)
    keys = ["3", "11", "999", "no key"]
    requests = to_requests(folder / "raw", folder / "data", keys)
    assert list(requests) == keys[:2]
    service = Service(Oracle(task), data)
    inputs = [Input.model_validate(request) for request in requests.values()]
    responses = [json.loads(each.model_dump_json()) for each in service.predict(inputs, {})]
    truth: Any = arrays["truth"][[3, 11]]
    if data.classes:
        truth = [data.classes[label] for label in truth]
    found = from_responses(responses, truth, data.classes)
    for name in ("target", "truth", "prediction"):
        np.testing.assert_array_equal(found[name], arrays[name][[3, 11]])
    whole, part = evaluation.per_example(arrays), evaluation.per_example(found)
    name = metrics.OF_TARGET[data.target][0].name
    np.testing.assert_array_equal(part.statistics[name], whole.statistics[name][[3, 11]])


def test_a_package_answers_sequences_of_several_lengths(trained: Any) -> None:
    data, model, package = trained
    service = load(package)
    x = data.examples("test").x
    inputs = [Input(sequence=x[0].tolist()), Input(sequence=[[1.0]]), Input(sequence=x[1].tolist())]
    found = service.predict(inputs, {})
    alone = [service.predict([each], {})[0] for each in inputs]
    expected = model(x[:2]).numpy()
    for one, other in zip(found, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    assert [found[n].probabilities["odd"] for n in (0, 2)] == pytest.approx(
        expected[:, 1].tolist(), abs=1e-6
    )


def test_a_request_that_cannot_be_answered_names_its_number(folder: Path) -> None:
    service = Service(Oracle("adding", steps=2), made(folder, "adding"))
    fine = Input(sequence=[[1, 0], [2, 1]])
    cases: tuple[tuple[list[list[float]], str], ...] = (
        ([[1, 0], [1]], "input 1: sequence: step 1 has 1 features; expected 2"),
        ([[1, 0], [1, float("nan")]], "input 1: sequence: expected finite numbers"),
        ([[1, 0], [1, 1e300]], "input 1: sequence: expected finite numbers"),
        ([[1, 0]], "input 1: sequence: found 1 steps; this model reads 2"),
    )
    for wrong, message in cases:
        with pytest.raises(RequestError, match=message) as error:
            service.predict([fine, Input(sequence=wrong)], {})
        assert error.value.item == 1
    with pytest.raises(EvaluationError, match="shape"):
        from_responses([{"target": "number", "values": [1.0]}], [[1.0, 2.0]], [])


def test_lines_of_a_file_are_sequences(folder: Path) -> None:
    from ostinato.errors import MalformedError
    from ostinato.memory import prediction

    file = folder / "some.ndjson"
    file.write_text('{"sequence": [[1, 0]]}\n\n{"sequence": []}\n{broken\n', encoding="utf-8")
    first, second, third = prediction.FORMAT.read(
        file, Service(Oracle("adding"), made(folder, "adding"))
    )
    assert first.parse() == ({"line": 1}, Input(sequence=[[1, 0]]))
    with pytest.raises(MalformedError, match="sequence"):
        second.parse()
    with pytest.raises(MalformedError, match="not JSON"):
        third.parse()
