"""Drawings of another hand from a given day on: the monitor sees it, and feedback repairs it.

Data, model (nearest neighbours), service, log, monitor and source of feedback are real.
"""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import params, store
from ostinato.data import served
from ostinato.monitoring.examine import Findings, Period, Thresholds, examine
from ostinato.monitoring.reference import Reference, write_answers
from ostinato.sketches import dataset, evaluation, serving, sources
from ostinato.sketches.sources import generator
from ostinato.task import TrainingContext
from ostinato.training import keras_model
from tests import served_log

pytestmark = pytest.mark.slow

CLASSES = ["clock", "envelope", "fish", "house", "ladder", "sailboat", "star", "umbrella"]
BASE = {"source": "doodles", "doodles": {"categories": CLASSES, "per_class": 150}}
PREPARE = {
    "tolerated_rejects": 0.01, "validation": 0.25, "test": 0.25, "max_points": 400,
    "only_recognised": False, "shard_size": 1000, "workers": 2,
}  # fmt: skip
EVALUATE = {
    "resamples": 100, "bins": 5, "prefix_fractions": [], "max_examples": 1, "num_plots": 1,
    "batch_size": 256, "timed_requests": 1,
}  # fmt: skip
BUILD = {"references": 2000, "neighbours": 5, "blur": 1.0, "prior_votes": 0.5}
LIMITS = Thresholds(
    min_requests=100,
    min_labels=50,
    max_loss=0.1,
    drift={"psi_threshold": 0.2, "ks_threshold": 0.15, "significance": 0.01, "bins": 10},
)
FIRST, DAY = datetime(2026, 11, 28, tzinfo=UTC), timedelta(days=1)
PER_DAY = 400


def hand(seed: int, *, other: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The requests of a day with their truth; the other hand slants, turns and trembles."""
    inputs, truth = [], []
    for number in range(PER_DAY):
        name = CLASSES[number % len(CLASSES)]
        rng = np.random.default_rng([seed, number])
        strokes = [np.asarray(stroke, float) for stroke in generator.drawing(name, rng)]
        if other:
            turned = np.array([[0.87, 0.5], [-0.5, 0.87]]) @ np.array([[1, 0.0], [0.7, 1]])
            strokes = [s @ turned + rng.normal(0, 4, s.shape) for s in strokes]
        inputs.append({"strokes": [s.round(1).T.tolist() for s in strokes]})
        truth.append(name)
    return inputs, truth


class World:
    """Days of requests to versions of a model, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"

    def train(self, name: str, fetch: Any) -> Path:
        """Fetch, prepare, train, evaluate and package; returns the folder of the version."""
        places = [self.folder / name / part for part in ("raw", "data", "version")]
        for place in places:
            place.mkdir(parents=True)
        raw, prepared, version = places
        fetch(raw)
        params.bind(dataset.prepare, PREPARE)(raw, prepared)
        data, module = dataset.load(prepared), params.model_module("sketches", "nearest")
        model = params.bind(module.build, BUILD)(data)
        params.bind(module.fit, {"batch_size": 256})(model, data, TrainingContext(version, 1))
        keras_model.save(model, version / "model")
        predictor = keras_model.restore(version / "model")
        result = params.bind(evaluation.evaluate, EVALUATE)(predictor, data, 1)
        store.write_arrays(version / "serving.npz", result.serving)
        for file in ("manifest.json", "profile.json"):
            shutil.copy(prepared / file, version)
        about = {"domain": "sketches", "run": "a", "model": "nearest", "prepare": PREPARE}
        store.write_json(version / "about.json", about)
        store.write_json(version / "scores.json", dict(result.metrics))
        write_answers("sketches", result.arrays, data.manifest, version)
        return version

    def serve(self, version: Path, day: int, inputs: Sequence[Any], truth: Sequence[str]) -> float:
        """Answer and log the requests of a day; returns the accuracy."""
        read = [serving.Input.model_validate(one) for one in inputs]
        answers = [each.model_dump() for each in serving.load(version).predict(read, {})]
        rows = served_log.answers("sketches", FIRST + day * DAY + DAY / 2, inputs, answers)
        served_log.write(self.log, "requests", rows)
        self.rows = rows
        return float(np.mean([a["label"] == t for a, t in zip(answers, truth, strict=True)]))

    def look(self, version: Path, day: int) -> Findings:
        """What the monitor finds at the end of a day."""
        since, until = FIRST + day * DAY, FIRST + (day + 1) * DAY
        requests = served.read_requests(self.log, "sketches", since, until)
        labels = served.read_feedback(self.log, "sketches", since, until + DAY)
        joined, counts = served.join(requests, labels)
        reference = Reference.read(version, store.read_json(version / "scores.json"))
        found = Period(since, until, requests, joined, counts)
        return examine("sketches", "1", reference, found, LIMITS, seed=1)


def test_another_hand_is_seen_within_the_day_and_feedback_recovers_half_of_the_loss(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)

    def doodles(raw: Path) -> None:
        sources.doodles(raw, tmp_path, 3, categories=CLASSES, per_class=150)

    version = world.train("first", doodles)
    accuracy = world.serve(version, 0, *hand(10, other=False))
    calm = world.look(version, 0)
    measures = {each.name: each for each in calm.report.metrics}
    assert calm.report.status == "ok", calm.report.summary
    assert measures["estimated_top1"].value == pytest.approx(accuracy, abs=0.03)

    inputs, truth = hand(11, other=True)
    worse = world.serve(version, 1, inputs, truth)
    assert worse < accuracy - 0.2
    drifted = world.look(version, 1).report
    assert drifted.status == "warning"
    measures = {each.name: each for each in drifted.metrics}
    assert measures["inputs_drift"].exceeded
    estimated = measures["estimated_top1"]  # lower, and too optimistic: some errors are confident
    assert estimated.value is not None
    assert estimated.threshold is not None
    assert worse < estimated.value < estimated.threshold

    served_log.write(world.log, "feedback", served_log.truths(world.rows, truth, FIRST + 2 * DAY))
    measures = {each.name: each for each in world.look(version, 1).report.metrics}
    assert measures["top1"].value == pytest.approx(worse)
    assert measures["top1"].exceeded

    def with_feedback(raw: Path) -> None:
        block = {"base": BASE, "log": str(world.log), "model": "sketches", "labels": None}
        params.bind(sources.feedback, block)(raw, tmp_path, 3)

    again = world.train("second", with_feedback)
    assert store.read_json(tmp_path / "second" / "raw" / "manifest.json")["feedback"] == {
        "joined": PER_DAY, "unknown": 0, "doubled": 0, "contradicting": 0, "unusable": 0,
        "without input": 0, "added": PER_DAY, "unknown category": 0, "equal drawings": 0,
    }  # fmt: skip
    tests = [
        dataset.load(tmp_path / name / "data").examples("test").keys.tolist()
        for name in ("first", "second")
    ]
    assert tests[0] == tests[1]
    lost = hand(12, other=True)
    before, after = (world.serve(each, 3, *lost) for each in (version, again))
    print(
        json.dumps(
            {
                "calm": accuracy,
                "estimated on day 2": estimated.value,
                "other hand": before,
                "retrained": after,
            }
        )
    )
    assert after >= before + (accuracy - before) / 2
