"""The monitor: requests and labels from the log, estimates, drift, and the report of a period."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ostinato import store
from ostinato.data import served
from ostinato.errors import DataError
from ostinato.monitoring import calibration, figures
from ostinato.monitoring.calibration import Calibrator, estimate_accuracy
from ostinato.monitoring.examine import Findings, Period, Thresholds, examine
from ostinato.monitoring.reference import Reference, write_answers
from ostinato.monitoring.report import MonitoringReport
from ostinato.serving import request_log
from ostinato.sketches import monitoring
from ostinato.sketches.sources import generator
from ostinato.task import Manifest
from tests import served_log

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DRIFT = {"psi_threshold": 0.2, "ks_threshold": 0.15, "significance": 0.01, "bins": 10}
LIMITS = Thresholds(min_requests=100, min_labels=50, max_loss=0.1, drift=DRIFT)
CLASSES = ["circle", "house"]


@cache
def drawings(count: int, seed: int, stretch: float = 1.0) -> list[dict[str, Any]]:
    """Requests with drawings; ``stretch`` makes them wider."""
    found = []
    for number in range(count):
        strokes = generator.drawing(CLASSES[number % 2], np.random.default_rng([seed, number]))
        wide = [np.asarray(stroke) * [stretch, 1] for stroke in strokes]
        found.append({"strokes": [stroke.T.tolist() for stroke in wide]})
    return found


def answer(label: str, probability: float) -> dict[str, Any]:
    return {"label": label, "probability": probability, "probabilities": {label: probability}}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A version whose confidence of 0.9 is right in 80% of the cases, and 0.6 in 40%."""
    folder = tmp_path_factory.mktemp("version")
    manifest = Manifest("doodles", "drawings", {}, CLASSES)
    about = {"domain": "sketches", "run": "a", "model": "rnn", "prepare": {"max_points": 100}}
    store.write_json(folder / "about.json", about)
    profile = monitoring.input_profile(drawings(300, 1), folder)
    store.write_json(folder / "profile.json", profile.to_json())
    random = np.random.default_rng(1)
    confidence = np.repeat([0.9, 0.6], [800, 200])
    correct = random.permutation(np.r_[np.ones(640), np.zeros(160)])
    correct = np.r_[correct, np.arange(200) < 80].astype(bool)
    arrays = {"validation_confidence": confidence, "validation_correct": correct}
    store.write_arrays(folder / "serving.npz", arrays)
    likely = np.tile([[0.9, 0.1], [0.1, 0.9]], (200, 1))
    write_answers("sketches", {"probabilities": likely}, manifest, folder)
    return Reference.read(folder, {"top1": 0.8})


def period(
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    labels: Sequence[str] | None = None,
    until: datetime = NOW,
) -> Period:
    listed = served_log.answers("sketches", until - DAY / 2, inputs, outputs)
    rows = pd.DataFrame(listed, columns=served.COLUMNS["requests"])
    known = rows.iloc[: len(labels or [])].assign(truth=labels or [])
    return Period(until - DAY, until, rows, known, {"joined": len(known)})


def look(found: Period, reference: Reference, limits: Thresholds = LIMITS) -> Findings:
    return examine("sketches", "1", reference, found, limits, seed=1)


def measures(findings: Findings) -> dict[str, Any]:
    return {each.name: each for each in findings.report.metrics}


def usual(count: int = 200) -> list[dict[str, Any]]:
    return [answer(CLASSES[number % 2], 0.9) for number in range(count)]


# Calibration


def test_a_calibrator_finds_the_frequency_of_right_answers() -> None:
    random = np.random.default_rng(0)
    confidence = random.beta(4, 2, 20_000)
    logit = np.log(confidence / (1 - confidence))
    true = 1 / (1 + np.exp(0.5 - 0.6 * logit))  # overconfident
    calibrator = Calibrator.fit(confidence, random.uniform(size=20_000) < true)
    assert (calibrator.offset, calibrator.slope) == pytest.approx((-0.5, 0.6), abs=0.06)
    assert np.abs(calibrator(confidence) - true).max() < 0.02


@pytest.mark.parametrize("right", [True, False])
def test_a_calibrator_exists_where_all_answers_are_right_or_wrong(right: bool) -> None:
    confidence = np.linspace(0.5, 1, 100)
    probability = Calibrator.fit(confidence, np.full(100, right))(confidence)
    assert (np.abs(probability - right) < 0.05).all()


def test_the_estimate_follows_a_shift_of_confidence_that_keeps_calibration() -> None:
    random = np.random.default_rng(0)
    then, now = random.beta(8, 2, 4000), random.beta(4, 3, 1000)
    correct, truth = random.uniform(size=4000) < then, (random.uniform(size=1000) < now).mean()
    value, low, high = estimate_accuracy(now, then, correct, seed=1)
    assert value == pytest.approx(truth, abs=0.03)
    assert low < truth < high
    assert 0.02 < high - low < 0.1


def test_the_interval_has_its_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "RESAMPLES", 50)
    random, inside = np.random.default_rng(5), 0
    for seed in range(40):
        then, now = random.beta(8, 2, 300), random.beta(6, 3, 200)
        correct, truth = random.uniform(size=300) < then, (random.uniform(size=200) < now).mean()
        _, low, high = estimate_accuracy(now, then, correct, seed=seed)
        inside += low <= truth <= high
    assert inside >= 34  # of 38 expected


# The period


def test_usual_requests_are_ok(reference: Reference) -> None:
    findings = look(period(drawings(200, 2), usual(), CLASSES * 50), reference)
    report, found = findings.report, measures(findings)
    assert (report.status, report.requests, report.reasons) == ("ok", 200, ())
    assert found["inputs_drift"].value == found["answers_drift"].value == 0
    assert found["estimated_top1"].value == pytest.approx(0.8, abs=0.005)
    assert found["estimated_top1"].threshold == pytest.approx(0.72)
    assert found["top1"].value == 1
    assert found["latency_p50"].value == 3
    assert {row["feature"] for row in report.drift} == {
        "points", "strokes", "ink length", "aspect", "confidence", "predicted class",
    }  # fmt: skip
    assert MonitoringReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_another_hand_is_drift_of_the_inputs(reference: Reference) -> None:
    findings = look(period(drawings(200, 2, stretch=2.5), usual()), reference)
    found = measures(findings)["inputs_drift"]
    assert found.exceeded
    assert "aspect: PSI" in found.text
    assert findings.report.status == "warning"
    assert not measures(findings)["answers_drift"].exceeded


def test_lower_confidence_is_a_lower_estimate(reference: Reference) -> None:
    unsure = [answer(CLASSES[number % 2], 0.6) for number in range(200)]
    findings = look(period(drawings(200, 2), unsure), reference)
    found = measures(findings)["estimated_top1"]
    assert found.value == pytest.approx(0.4, abs=0.005)
    assert found.low < 0.4 < found.high < found.threshold
    assert found.exceeded


def test_labels_decide_when_there_are_enough(reference: Reference) -> None:
    wrong = ["circle"] * 60  # half of these answers are wrong
    found = measures(look(period(drawings(200, 2), usual(), wrong), reference))["top1"]
    assert (found.value, found.exceeded) == (0.5, True)
    assert found.low < 0.5 < found.high < found.threshold
    assert "0.800 on the test split" in found.text
    few = measures(look(period(drawings(200, 2), usual(), wrong[:40]), reference))["top1"]
    assert (few.value, few.exceeded) == (0.5, False)
    assert "fewer than 50 decide nothing" in few.text


def test_too_few_requests_decide_nothing(reference: Reference) -> None:
    shifted = drawings(99, 2, stretch=2.5)
    report = look(period(shifted, usual(99), ["circle"] * 80), reference).report
    assert report.status == "ok"
    assert report.summary == "99 requests are too few: nothing is decided before 100"
    assert not any(each.exceeded for each in report.metrics)
    assert look(period([], []), reference).report.requests == 0


def test_a_log_without_inputs_or_answers_says_what_to_set(reference: Reference) -> None:
    report = look(period([None] * 200, usual()), reference).report
    assert report.status == "warning"
    assert report.reasons == ("the log has no inputs: serve with --log-inputs keep",)
    hashed = period(drawings(200, 2), usual())
    hashed.requests["output"] = "a" * 64
    found = look(hashed, reference)
    assert "estimated_top1" not in measures(found)
    assert "serve with --log-outputs keep" in found.report.summary


def test_a_version_of_earlier_code_says_that_it_has_no_reference(
    reference: Reference, tmp_path: Path
) -> None:
    store.write_json(tmp_path / "about.json", store.read_json(reference.folder / "about.json"))
    old = Reference.read(tmp_path, {"top1": None})
    found = measures(look(period(drawings(200, 2), usual()), old))
    assert found["estimated_top1"].value is None
    assert "register it again" in found["inputs_drift"].text
    assert found["top1"].threshold is None


def test_the_figures_of_a_report(reference: Reference) -> None:
    found = look(period(drawings(200, 2), usual(), CLASSES * 50), reference)
    before = look(period(drawings(200, 3), usual(), until=NOW - DAY), reference).report
    drawn = figures.draw(found, [before], 0.2, 0.15)
    assert drawn.keys() == {
        "quality.png", "drift.png", "inputs_distributions.png", "answers_distributions.png",
        "predicted_class.png",
    }  # fmt: skip
    (estimated, *_) = drawn["quality.png"][1].axes[0].lines
    assert np.array(estimated.get_ydata()) == pytest.approx([0.8, 0.8], abs=0.005)


# The log


def test_the_log_is_read_by_model_and_period(tmp_path: Path) -> None:
    for hours in (1, 30, 60):
        time = NOW - timedelta(hours=hours)
        for model in ("sketches", "other"):
            rows = served_log.answers(model, time, [{"n": hours}], [answer("circle", 0.9)])
            served_log.write(tmp_path, "requests", rows)
    found = served.read_requests(tmp_path, "sketches", NOW - 2 * DAY, NOW)
    assert served.parsed(found["input"].tolist()) == [{"n": 30}, {"n": 1}]
    with pytest.raises(DataError, match="serve --log-folder"):
        served.read_requests(tmp_path / "none", "sketches", NOW - DAY, NOW)


def test_labels_are_joined_counted_and_never_guessed(tmp_path: Path) -> None:
    rows = served_log.answers("sketches", NOW - DAY, [{}] * 5, [answer("circle", 0.9)] * 5)
    served_log.write(tmp_path, "requests", rows)
    sent = served_log.truths(rows[:4], ["circle", "house", "house", "circle"], NOW)
    again = served_log.truths(rows[:2], ["circle", "circle"], NOW)  # the same; another one
    strange = [{**sent[0], "request_id": "0" * 32}, {**sent[0], "item": 1}]
    served_log.write(tmp_path, "feedback", [*sent, *again, *strange])
    logged = served.read_requests(tmp_path, "sketches", NOW - 2 * DAY, NOW + DAY)
    labels = served.read_feedback(tmp_path, "sketches", NOW - 2 * DAY, NOW + DAY)
    joined, counts = served.join(logged, labels)
    assert counts == {
        "joined": 3, "unknown": 2, "doubled": 1, "contradicting": 2, "unusable": 0,
    }  # fmt: skip
    found = dict(zip(joined["request_id"], joined["truth"], strict=True))
    expected = {0: "circle", 2: "house", 3: "circle"}
    assert found == {rows[index]["request_id"]: truth for index, truth in expected.items()}
    assert served.join(logged, labels.iloc[:0])[1]["joined"] == 0


def test_a_file_of_labels_is_csv_or_ndjson(tmp_path: Path) -> None:
    table, lines = tmp_path / "labels.csv", tmp_path / "labels.ndjson"
    table.write_text('request_id,item,truth\na,0,cat\nb,1,"[1.5, null]"\nc,,7\n')
    lines.write_text('{"request_id": "a", "truth": "cat"}\n\n{"request_id": "b", "item": 1, '
                     '"truth": [1.5, null]}\n{"request_id": "c", "truth": "7"}\n')  # fmt: skip
    expected = [["a", 0, '"cat"'], ["b", 1, "[1.5, null]"], ["c", 0, '"7"']]
    for file in (table, lines):
        assert served.read_label_file(file).to_numpy().tolist() == expected
    for text, message in {
        "request_id,label\na,cat\n": "line 1: found the columns",
        "request_id,item,truth\na,x,cat\n": "line 2: found item 'x'",
    }.items():
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            served.read_label_file(table)
    lines.write_text('{"request_id": "a", "truth": "cat"}\n[1]\n')
    with pytest.raises(DataError, match="line 2"):
        served.read_label_file(lines)
    with pytest.raises(DataError, match="no such file"):
        served.read_label_file(tmp_path / "none.csv")


def test_the_columns_are_those_that_the_server_writes() -> None:
    assert set(served.COLUMNS["requests"]) < set(request_log.REQUESTS.names)
    assert set(served.COLUMNS["feedback"]) == set(request_log.FEEDBACK.names)
