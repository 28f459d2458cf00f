"""Every run of every study, shrunk by the types of its parameters, keeps the contract of a task."""

import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import models, params
from ostinato.evaluation.comparison import compare
from ostinato.study import Study, studies
from ostinato.task import Part, Reporting, TrainingContext
from tests.tiny import shrunk, shrunk_run

ROOT = Path(__file__).parent.parent
SEED = 20170428
RUNTIME = {"precision": "float32"}
STUDIES = [Study.load(path) for path in studies(ROOT)]
DOODLES: dict[str, Any] = {"categories": ["circle", "fish", "house", "clock"], "per_class": 40}
FILMED = {"source": "doodles", "doodles": {**DOODLES, "per_class": 4}}
# The data that a domain's runs are tried on: the study, the data set, and a smaller source.
DATA: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sketches": ("sketches", "sketches", DOODLES),
    "forecasting": ("weather", "weather", {}),
    "translation": ("translation", "translation", {"packages": ["djangorestframework"]}),
    "video": ("video", "order", {"drawings": FILMED}),
    "generation": ("generation", "generation", DOODLES),
    "music": ("music", "music", {"pieces": 30, "max_phrases": 3, "chords_per_phrase": 4}),
    "memory": ("memory", "digits", {"delay": 0}),
}
# Evaluation repeats in bulk what a few examples show as well.
EVALUATION: dict[str, dict[str, Any]] = {
    "generation": {
        "temperatures": [0.5],
        "samples_per_class": 4,
        "max_examples": 8,
        "resamples": 50,
    },
    "music": {"temperatures": [1.0], "samples": 4, "max_frames": 16, "timed_requests": 1},
    "memory": {"max_examples": 8, "resamples": 50},
}
# They need data of another kind, or more memory and time than a test has.
LEFT_OUT = {"ucf101"}


def tried() -> list[Any]:
    """The runs of all studies that differ when they are shrunk.

    The first run of a model is in the fast tier. Its other runs are marked slow, or long if only
    their numbers differ from those of an earlier run.
    """
    seen: set[str] = set()
    found = []
    for study in STUDIES:
        for name, run in study.params["runs"].items():
            if study.name in LEFT_OUT:
                continue
            small = shrunk_run(run)
            parts = [small["domain"], small["model"], small["build"], small["fit"]]
            key, kind = json.dumps(parts), json.dumps(without_numbers(parts))
            model = f"{run['domain']}/{run['model']}"
            if key not in seen:
                again = pytest.mark.long if kind in seen else pytest.mark.slow
                marks = [again] if model in seen else []
                found.append(pytest.param((study, name), id=f"{study.name}/{name}", marks=marks))
            seen |= {key, kind, model}
    return found


def without_numbers(value: Any) -> Any:
    """The value with each number replaced by whether it is 0, which often switches a part off."""
    if isinstance(value, dict):
        return {key: without_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_numbers(each) for each in value]
    return bool(value) if type(value) in (int, float) else value


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """Graphs as they are: to optimise one takes longer than to run it here."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small prepared data set of a domain, made once."""
    by_name = {study.name: study for study in STUDIES}

    @cache
    def prepare(domain: str) -> Path:
        study, data, smaller = DATA[domain]
        folder = tmp_path_factory.mktemp(domain)
        entry = by_name[study].entry("data", data)
        for part in ("raw", "scratch", "data"):
            (folder / part).mkdir()
        source = entry["fetch"]["source"]
        sources = params.module(domain, "sources")
        block = {**entry["fetch"][source], **smaller}
        fetch = params.bind(params.function(sources, source), block)
        fetch(folder / "raw", folder / "scratch", SEED)
        dataset = params.module(domain, "dataset")
        smaller = shrunk(dataset.prepare, entry["prepare"])
        params.bind(dataset.prepare, smaller)(folder / "raw", folder / "data")
        return folder / "data"

    return prepare


class Repeated:
    """A data set that after the first epoch is one batch of eight, twenty times an epoch."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def batches(self, split: str, **given: Any) -> Any:
        batches = self.data.batches(split, **given)
        if split != "train" or given["epoch"] == 1:
            return batches
        return self.data.batches("train", batch_size=8, seed=SEED, epoch=0).take(1).repeat(20)


class Run:
    """A run's entry, the small data, and a model that was trained on them."""

    def __init__(self, study: Study, name: str, data: Any, folder: Path) -> None:
        self.study = study
        self.entry = shrunk_run(study.entry("runs", name))
        self.functions = models.load(self.entry["domain"], self.entry["model"])
        self.data, self.folder = data, folder
        self.model, self.history = self.trained("one")
        (folder / "model").mkdir()
        self.functions.save(self.model, folder / "model")

    def trained(self, name: str) -> tuple[Any, list[Any]]:
        """From scratch: an epoch of the data, then two of a batch, where there are epochs."""
        from ostinato.training import runtime
        from ostinato.training.machine import Machine

        changed = {
            "epochs": 3,
            "learning_rate": 0.01,
            "warmup_fraction": 0.0,
            "schedule": "constant",
            "patience": 9,
        }
        block = self.entry["fit"] | {k: v for k, v in changed.items() if k in self.entry["fit"]}
        fit = params.bind(self.functions.fit, block)
        with params.bind(runtime.runtime, RUNTIME)(SEED, Machine()):
            model = params.bind(self.functions.build, self.entry["build"])(self.data)
            history = fit(model, Repeated(self.data), TrainingContext(self.folder / name, SEED))
        return model, list(history)


every_run = pytest.mark.parametrize("run", tried(), indirect=True, scope="module")
one_run_of_each_model = pytest.mark.parametrize(
    "run", [param for param in tried() if not param.marks], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest,
    prepared: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    study, name = request.param
    domain = study.entry("runs", name)["domain"]
    data = params.module(domain, "dataset").load(prepared(domain))
    return Run(study, name, data, tmp_path_factory.mktemp("run"))


def inputs(run: Run) -> Any:
    """What a model reads of eight examples: an array, or a dict of arrays."""
    x, *_ = next(iter(run.data.batches("train", batch_size=8, seed=SEED, epoch=0)))
    return keras.tree.map_structure(lambda tensor: tensor.numpy(), x)


def answers(model: Any, x: Any) -> np.ndarray:
    if hasattr(model, "decode"):  # a generator
        labels, latent = np.zeros(len(x), np.int32), tf.zeros((len(x), model.latent_size))
        return np.asarray(model.decode(x, labels, latent))
    if hasattr(model, "draw"):  # the floor of the generators
        return np.concatenate(model.draw(np.zeros(8, int), range(8), np.ones(8)))
    if not isinstance(model, keras.layers.Layer):  # NumPy
        return np.asarray(model(x))
    return np.asarray(model(x, training=False))


def network(predictor: Any) -> Any:
    """What a restored model computes with."""
    return getattr(predictor, "model", getattr(predictor, "network", predictor))


def recognises(run: Run, model: Any, x: np.ndarray) -> None:
    """A model of drawings gives probabilities, reads any length, and no padding."""
    expected = answers(model, x)
    assert expected.shape == (len(x), len(run.data.classes))
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5, err_msg="no probabilities")
    padded = np.pad(x, ((0, 0), (0, 13), (0, 0)))
    np.testing.assert_allclose(
        answers(model, padded), expected, atol=1e-5, err_msg="padding counts"
    )
    longer = np.concatenate([x, x[:, :1] + 1], axis=1)
    for other in (x[:, :3], longer):
        assert np.isfinite(answers(model, other)).all()


def forecasts(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of series gives quantiles that do not cross; what is recurrent reads any length."""
    expected = answers(model, x)
    count = run.entry["build"].get("quantiles", 1)
    assert expected.shape == (len(x["past"]), run.data.horizon, count)
    assert (np.diff(expected, axis=-1) >= 0).all(), "quantiles cross"
    later = {name: part + 1 if name == "future" else part for name, part in x.items()}
    if run.entry["model"] != "seasonal_naive":
        assert (answers(model, later) != expected).any(), "what is known of the future is ignored"
    (past,) = (given for given in model.inputs if given.name == "past")
    if past.shape[1] is None:
        longer = np.concatenate([x["past"][:, :5], x["past"]], axis=1)
        for other in (x["past"][:, -9:], longer):
            assert np.isfinite(answers(model, {**x, "past": other})).all()


def translates(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of texts gives a logit for each piece, reads any length, and no padding."""
    expected = answers(model, x)
    assert expected.shape == (*x["before"].shape, run.data.vocab_sizes[1])
    padded = {name: np.pad(part, ((0, 0), (0, 3))) for name, part in x.items()}
    found = answers(model, padded)[:, : expected.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-4, err_msg="padding counts")


def watches(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of clips gives probabilities, reads any number of frames, and no padding."""
    expected, clip = answers(model, x), x["clip"]
    assert expected.shape == (len(clip), len(run.data.classes))
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5, err_msg="no probabilities")
    padded = {**x, "clip": np.pad(clip, ((0, 0), (0, 5), *[(0, 0)] * 3))}
    np.testing.assert_allclose(
        answers(model, padded), expected, atol=1e-5, err_msg="padding counts"
    )
    few = {"clip": clip[:, :3], "frames": np.minimum(x["frames"], 3)}
    many = {"clip": np.concatenate([clip, clip], axis=1), "frames": 2 * x["frames"]}
    for other in (few, many):
        assert np.isfinite(answers(model, other)).all()


def draws(run: Run, model: Any, x: np.ndarray) -> None:
    """A generator says something of each row, whatever comes after it."""
    expected = answers(model, x)
    if not hasattr(model, "decode"):
        return
    assert expected.shape[:2] == x.shape[:2]
    padded = np.pad(x, ((0, 0), (0, 7), (0, 0)))
    padded[:, x.shape[1] :, 4] = 1
    found = answers(model, padded)[:, : x.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-5, err_msg="padding counts")


def writes(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of pieces says something of each frame, whatever comes after it."""
    expected, length = answers(model, x), x["frames"].shape[1]
    assert expected.shape[:2] == x["frames"].shape[:2]
    padded = {
        name: part if name == "condition" else np.pad(part, ((0, 0), (0, 7), (0, 0))[: part.ndim])
        for name, part in x.items()
    }
    found = answers(model, padded)[:, :length]
    np.testing.assert_allclose(found, expected, atol=1e-4, err_msg="padding counts")
    if run.entry["model"] != "vae":  # which has read the whole piece
        later = {**x, "before": x["before"].copy(), "frames": x["frames"].copy()}
        later["before"][:, 9:] = 1 - later["before"][:, 9:]
        later["frames"][:, 9:] = 1 - later["frames"][:, 9:]
        found = answers(model, later)[:, :9]
        np.testing.assert_allclose(found, expected[:, :9], atol=1e-5, err_msg="reads ahead")


def remembers(run: Run, model: Any, x: np.ndarray) -> None:
    """A model of a task answers each sequence, whatever is beside it, and reads other lengths."""
    expected = answers(model, x)
    assert expected.shape == (len(x), run.data.outputs)
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5, err_msg="no probabilities")
    np.testing.assert_allclose(answers(model, x[::-1])[::-1], expected, atol=1e-5)
    if isinstance(model, keras.Model) and model.inputs[0].shape[1] is not None:
        return
    for other in (x[:, :3], np.concatenate([x, x], axis=1)):
        assert np.isfinite(answers(model, other)).all()


LAWS: dict[str, Callable[[Run, Any, Any], None]] = {
    "sketches": recognises,
    "forecasting": forecasts,
    "translation": translates,
    "video": watches,
    "generation": draws,
    "music": writes,
    "memory": remembers,
}


@every_run
def test_a_run_keeps_the_contract(run: Run) -> None:
    model, history = run.model, run.history
    assert history, "no epoch was recorded"
    assert all(math.isfinite(value) for record in history for value in record.values())
    if "epochs" in run.entry["fit"]:
        assert history[-1]["loss"] < history[1]["loss"], "a repeated batch teaches nothing"

    x = inputs(run)
    LAWS[run.entry["domain"]](run, model, x)

    restored = run.functions.restore(run.folder / "model")
    np.testing.assert_array_equal(answers(network(restored), x), answers(model, x))


@one_run_of_each_model
def test_the_same_seed_gives_the_same_model_to_the_last_byte(run: Run, tmp_path: Path) -> None:
    again, _ = run.trained("again")
    run.functions.save(again, tmp_path)
    for file in (run.folder / "model").iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@one_run_of_each_model
def test_metrics_are_finite_and_their_statistics_aggregate_to_them(run: Run) -> None:
    domain = run.entry["domain"]
    module = params.module(domain, "evaluation")
    block = {**run.study.entry("evaluation", domain), **EVALUATION.get(domain, {})}
    evaluate = params.bind(module.evaluate, block)
    predictor = run.functions.restore(run.folder / "model")
    evaluation = evaluate(predictor, run.data, SEED)
    report: Reporting = params.module(domain, "reporting").REPORT
    primary = report.metrics[0]
    needed = {f"{primary.name}{end}" for end in ("", "_low", "_high")}
    needed |= {metric.name for metric in report.metrics}
    needed |= {f"validation_{name}" for name in params.module(domain, "metrics").METRICS}
    assert {"samples", "parameters", *needed} <= set(evaluation.metrics)
    missing = {name for name, value in evaluation.metrics.items() if value is None}
    assert missing == set(evaluation.undefined)
    # Some generators have no likelihood or no encoder; what a shrunk model writes may be silence; a
    # metric of memory has one kind of target.
    if domain not in ("generation", "music", "memory"):
        assert not missing
    of_some = {"learning_curves", "alignments", "reconstructions", "interpolations"}
    of_some |= {"error_by_delay", "gradient_norms", "traces", "reservoir"}
    assert set(report.figures) - of_some <= set(evaluation.figures)

    results = module.per_example(evaluation.arrays)
    assert len(results.keys) == evaluation.metrics["samples"]
    for name, metric in params.module(domain, "metrics").METRICS.items():
        assert name == metric.name
        assert results.statistics[name].shape[0] == len(results.keys)
        if name in evaluation.metrics and name not in missing:
            assert results.value(metric) == pytest.approx(evaluation.metrics[name], rel=1e-9)
    same = compare(results, results, primary, resamples=50, seed=SEED)
    assert same.difference == same.low == same.high == 0, "a run differs from itself"


@pytest.mark.parametrize(
    ("ranks", "epochs"), [(3, [1]), pytest.param(2, [1, 2], marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("domain", DATA)
def test_the_parts_of_the_ranks_make_up_each_batch(
    domain: str, ranks: int, epochs: list[int], prepared: Callable[[str], Path]
) -> None:
    data = params.module(domain, "dataset").load(prepared(domain))

    orders: list[tuple[str, dict[str, Any]]] = [
        *(("train", {"seed": SEED, "epoch": epoch, "batch_size": 7}) for epoch in epochs),
        ("validation", {"seed": None, "epoch": 0, "batch_size": 2}),  # fewer than three ranks
    ]
    for split, order in orders:
        whole, *parts = (
            list(data.batches(split, part=part, **order).as_numpy_iterator())
            for part in (Part(), *(Part(rank, ranks) for rank in range(ranks)))
        )
        assert len(whole) > 1
        for batch, *found in zip(whole, *parts, strict=True):
            count = len(tf.nest.flatten(batch)[0])
            bounds = [count * rank // ranks for rank in range(ranks + 1)]
            sizes = np.diff(bounds).tolist()
            for (own, total), own_count in zip(found, sizes, strict=True):
                assert total == count
                assert total.dtype == np.int32
                assert len(tf.nest.flatten(own)[0]) == max(1, own_count)
            counted = [own for (own, _), own_count in zip(found, sizes, strict=True) if own_count]
            joined = tf.nest.map_structure(lambda *each: np.concatenate(each), *counted)
            tf.nest.map_structure(np.testing.assert_array_equal, joined, batch)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_block_of_a_study_fits_the_signature_that_receives_it(study: Study) -> None:
    from ostinato import study as studies_module

    studies_module.check(study.params)
