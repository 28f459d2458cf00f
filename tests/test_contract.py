"""Every entry of ``runs``, shrunk by the types of its parameters, through all verbs."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import params, store
from ostinato.task import TrainingContext
from tests.tiny import shrunk_run

ROOT = Path(__file__).parent.parent
SEED = 20170428
MACHINE = {"precision": "float32", "devices": 1, "intra_op": None, "inter_op": None}
RUNS = params.load(ROOT / "params.yaml")["runs"]
DOODLES: dict[str, Any] = {"categories": ["circle", "fish", "house", "clock"], "per_class": 40}
FILMED = {"source": "doodles", "doodles": {**DOODLES, "per_class": 12}}
SMALL = {
    "doodles": DOODLES,
    "animated_sketches": {"drawings": FILMED},
    "gettext": {"packages": ["djangorestframework"]},
    "order": {"drawings": {"source": "doodles", "doodles": {**DOODLES, "per_class": 4}}},
}


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """Graphs as they are: to optimise one takes longer than to run it here."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small data set for an entry of ``data``, as prepare leaves it, made once."""

    @cache
    def prepare(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        entry = params.load(ROOT / "params.yaml")["data"][name]
        for part in ("raw", "scratch", "data"):
            (folder / part).mkdir()
        source = entry["fetch"]["source"]
        block = {**entry["fetch"][source], **SMALL.get(source, {})}
        sources = params.module(entry["domain"], "sources")
        fetch = params.bind(params.function(sources, source), block)
        fetch(folder / "raw", folder / "scratch", SEED)
        examples = params.module(entry["domain"], "dataset")
        params.bind(examples.prepare, entry["prepare"])(folder / "raw", folder / "data")
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

    def __init__(self, name: str, data: Any, folder: Path) -> None:
        self.values = params.load(ROOT / "params.yaml")
        self.entry = shrunk_run(self.values["runs"][name])
        self.module = params.model_module(self.entry["domain"], self.entry["model"])
        self.data, self.folder = data, folder
        self.model, self.history = self.trained("one")

    def trained(self, name: str) -> tuple[Any, list[dict[str, float]]]:
        """From scratch: an epoch of the data, then two of a batch, where there are epochs."""
        from ostinato.training import runtime

        given = {
            "epochs": 3,
            "learning_rate": 0.01,
            "warmup_fraction": 0.0,
            "schedule": "constant",
            "patience": 9,
        }
        block = self.entry["fit"] | {k: v for k, v in given.items() if k in self.entry["fit"]}
        fit: Callable[..., Any] = params.bind(self.module.fit, block)
        with params.bind(runtime.runtime, MACHINE)(SEED):
            model = params.bind(self.module.build, self.entry["build"])(self.data)
            history = fit(model, Repeated(self.data), TrainingContext(self.folder / name, SEED))
        return model, history


@pytest.fixture(scope="module", params=RUNS)
def run(
    request: pytest.FixtureRequest,
    prepared: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    entry = params.load(ROOT / "params.yaml")["runs"][request.param]
    data = params.module(entry["domain"], "dataset").load(prepared(entry["data"]))
    return Run(request.param, data, tmp_path_factory.mktemp("run"))


def inputs(run: Run) -> Any:
    """What a model reads of eight examples: an array, or a dict of arrays."""
    x, *_ = next(iter(run.data.batches("train", batch_size=8, seed=SEED, epoch=0)))
    return keras.tree.map_structure(lambda tensor: tensor.numpy(), x)


def answers(model: Any, x: Any) -> np.ndarray:
    return np.asarray(model(x, training=False))


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
        longer = np.concatenate([x["past_covariates"][:, :5], x["past"]], axis=1)
        for other in (x["past_covariates"][:, -9:], longer):
            assert np.isfinite(answers(model, {**x, "past_covariates": other})).all()


def translates(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of texts gives a logit for each piece, reads any length, and no padding."""
    expected = answers(model, x)
    assert expected.shape == (*x["before"].shape, run.data.vocabulary[1])
    padded = {name: np.pad(part, ((0, 0), (0, 3))) for name, part in x.items()}
    found = answers(model, padded)[:, : expected.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-4, err_msg="padding counts")


def watches(run: Run, model: Any, x: dict[str, np.ndarray]) -> None:
    """A model of clips gives probabilities, reads any number of frames, and no padding."""
    expected, clip = answers(model, x), x["clip"]
    assert expected.shape == (len(clip), len(run.data.classes))
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5, err_msg="no probabilities")
    padded = {**x, "clip_norm": np.pad(clip, ((0, 0), (0, 5), *[(0, 0)] * 3))}
    np.testing.assert_allclose(
        answers(model, padded), expected, atol=1e-5, err_msg="padding counts"
    )
    few = {"clip_norm": clip[:, :3], "frames": np.minimum(x["frames"], 3)}
    many = {"clip_norm": np.concatenate([clip, clip], axis=1), "frames": 2 * x["frames"]}
    for other in (few, many):
        assert np.isfinite(answers(model, other)).all()


LAWS: dict[str, Callable[[Run, Any, Any], None]] = {
    "sketches": recognises,
    "forecasting": forecasts,
    "translation": translates,
    "video": watches,
}


def test_a_run_keeps_the_contract(run: Run, tmp_path: Path) -> None:
    model, history = run.model, run.history
    assert history, "no epoch was recorded"
    assert all(math.isfinite(value) for record in history for value in record.values())
    if "epochs" in run.entry["fit"]:
        assert history[-1]["loss"] < history[1]["loss"], "a repeated batch teaches nothing"

    x = inputs(run)
    LAWS[run.entry["domain"]](run, model, x)

    store.write_model(tmp_path / "model.keras", model)
    loaded = store.read_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(answers(loaded, x), answers(model, x))


def test_the_same_seed_gives_the_same_model_to_the_last_byte(run: Run, tmp_path: Path) -> None:
    again, _ = run.trained("again")
    for one, two in zip(run.model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    store.write_model(tmp_path / "one.keras", run.model)
    store.write_model(tmp_path / "two.keras", again)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


def test_scores_are_finite_and_named(run: Run) -> None:
    scores = params.module(run.entry["domain"], "evaluation")
    block = run.values["evaluation"][run.entry["domain"]]
    scored = params.bind(scores.evaluate, block)(run.model, run.data, SEED)
    about = params.module(run.entry["domain"], "reporting")
    ends = {f"{about.SCORE}{end}" for end in ("", "_low", "_high")}
    assert {"samples", "parameters", *ends, *about.COLUMNS.values()} <= set(scored.metrics)
    assert all(math.isfinite(value) for value in scored.metrics.values())
    assert set(about.FIGURES) - {"learning_curves", "alignments"} <= set(scored.figures)
    answered = about.answers(scored.arrays)
    assert len(answered) == scored.metrics["samples"]
    gain, low, high = about.gain(answered, answered, block, SEED)
    assert gain == low == high == 0, "a run differs from itself"


@pytest.mark.parametrize("file", sorted(ROOT.glob("params*.yaml")), ids=lambda file: file.name)
def test_every_block_of_a_params_file_fits_what_receives_it(file: Path) -> None:
    from ostinato.training import runtime

    values = params.load(file)
    params.bind(runtime.runtime, values["runtime"])
    for entry in values["data"].values():
        sources = params.module(entry["domain"], "sources")
        blocks = {name: block for name, block in entry["fetch"].items() if name != "source"}
        assert entry["fetch"]["source"] in blocks
        for name, block in blocks.items():
            params.bind(params.function(sources, name), block)
        params.bind(params.module(entry["domain"], "dataset").prepare, entry["prepare"])
    for domain, block in values["evaluation"].items():
        params.bind(params.module(domain, "evaluation").score, block)
    for entry in values["runs"].values():
        assert set(entry) == {"data", "domain", "model", "build", "fit"}
        assert entry["data"] in values["data"]
        model = params.model_module(entry["domain"], entry["model"])
        params.bind(model.build, entry["build"])
        params.bind(model.fit, entry["fit"])
