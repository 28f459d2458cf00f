"""Examine a period of a served model: drift, estimated and realised quality, and the decision."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from ostinato.data import drift, served
from ostinato.errors import EvaluationError, RequestError
from ostinato.evaluation.comparison import metric_interval
from ostinato.monitoring.calibration import estimate_accuracy
from ostinato.monitoring.reference import Reference
from ostinato.monitoring.report import Measure, MonitoringReport
from ostinato.task import Json, Metric, Profile

MAX_INPUTS = 2000  # of a period, that are profiled
RESAMPLES = 1000
INPUTS, ANSWERS = "inputs", "answers"
_OPTIONS = {INPUTS: "inputs", ANSWERS: "outputs"}


@dataclass(frozen=True)
class Thresholds:
    """When the monitor acts.

    Args:
        min_requests: inputs of a period; with fewer, nothing is decided.
        min_labels: labels; with fewer, the realised metric decides nothing.
        max_loss: share of the test split's metric that may be lost: 0.1 of an accuracy of 0.9 is an
            accuracy of 0.81. The whole 95% interval has to lie beyond.
        drift: arguments of `ostinato.data.drift.compare`.
    """

    min_requests: int
    min_labels: int
    max_loss: float
    drift: Mapping[str, Any]

    def bound(self, tested: float, metric: Metric) -> float:
        """The value of a metric beyond which too much is lost."""
        return tested * (1 - self.max_loss if metric.higher_is_better else 1 + self.max_loss)


@dataclass(frozen=True)
class Period:
    """What a version was asked in a period, and the labels of its answers.

    Args:
        since: beginning.
        until: end.
        requests: of the period, of `served.read_requests`.
        labelled: answers with their ``truth``, also of earlier days.
        labels: their number by kind.
    """

    since: datetime
    until: datetime
    requests: pd.DataFrame
    labelled: pd.DataFrame
    labels: dict[str, int]


@dataclass(frozen=True)
class Findings:
    """A report, and what its figures show.

    Args:
        report: without figures.
        profiles: of inputs and answers: then and now.
        confidence: of the answers; empty where the domain has none.
    """

    report: MonitoringReport
    profiles: Mapping[str, tuple[Profile, Profile]]
    confidence: np.ndarray


def examine(
    model: str,
    version: str,
    reference: Reference,
    period: Period,
    thresholds: Thresholds,
    *,
    seed: int,
) -> Findings:
    """Examine the requests of a period.

    Args:
        model: its name in the log.
        version: that answered.
        reference: of the version.
        period: that is examined.
        thresholds: of the decision.
        seed: of sampling and bootstrap.
    """
    count = len(period.requests)
    report = MonitoringReport(
        model=model,
        model_version=version,
        time=period.until.isoformat(timespec="seconds"),
        since=period.since.isoformat(timespec="seconds"),
        until=period.until.isoformat(timespec="seconds"),
        requests=count,
        status="ok",
        summary="",
        labels=period.labels,
    )
    if count < thresholds.min_requests:
        summary = (
            f"{count:,} requests are too few: nothing is decided before {thresholds.min_requests:,}"
        )
        realised = _realised(reference, period, thresholds, seed, deciding=False)
        return Findings(replace(report, summary=summary, metrics=(realised,)), {}, np.empty(0))
    sampled = served.sample(period.requests, MAX_INPUTS, seed)
    inputs = served.parsed(sampled["input"].tolist())
    responses = served.parsed(period.requests["output"].tolist())
    sides = [_side(INPUTS, inputs, reference, thresholds)]
    sides.append(_side(ANSWERS, responses, reference, thresholds))
    measures = [side.measure for side in sides]
    evidence = None if responses is None else reference.module.confidence(responses)
    if evidence is not None:
        measures.append(_estimated(evidence, reference, thresholds, seed))
    measures.append(_realised(reference, period, thresholds, seed, deciding=True))
    measures += _latency(period.requests)
    reasons = [each.text for each in measures if each.exceeded]
    reasons += [side.measure.text for side in sides if side.measure.value is None]
    report = replace(
        report,
        metrics=tuple(measures),
        drift=tuple(row for side in sides for row in side.rows),
        reasons=tuple(reasons),
        status="warning" if reasons else "ok",
        summary=_summary(measures, reasons),
    )
    profiles = {side.kind: side.profiles for side in sides if side.profiles}
    return Findings(report, profiles, np.empty(0) if evidence is None else evidence)


@dataclass(frozen=True)
class _Side:
    """The drift of inputs, or of answers.

    Args:
        kind: inputs or answers.
        measure: how many features drifted.
        rows: of the report's drift.
        profiles: then and now; None where they could not be compared.
    """

    kind: str
    measure: Measure
    rows: Sequence[dict[str, Json]] = ()
    profiles: tuple[Profile, Profile] | None = None


def _side(
    kind: str, values: Sequence[Json] | None, reference: Reference, thresholds: Thresholds
) -> _Side:
    then = reference.inputs if kind == INPUTS else reference.answers

    def unknown(reason: str) -> _Side:
        return _Side(kind, Measure(f"{kind}_drift", None, reason))

    if values is None:
        return unknown(f"the log has no {kind}: serve with --log-{_OPTIONS[kind]} keep")
    if then is None:
        return unknown(f"the version has no profile of its {kind}: register it again")
    try:
        if kind == INPUTS:
            now = reference.module.input_profile(values, reference.folder)
        else:
            now = reference.module.answer_profile(values)
    except RequestError as error:  # such as a video whose file is gone
        return unknown(f"the {kind} cannot be read again: {error}")
    table = compare(then, now, thresholds.drift)
    rows = [{**_plain(row), "of": kind} for row in table.to_dict("records")]
    return _Side(kind, _drift(kind, table), rows, (then, now))


def compare(then: Profile, now: Profile, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """The drift test of `retrain`, on the features that served data have.

    Served inputs have no class, and no other feature that only labelled data have.
    """
    known = replace(
        then,
        numbers={name: then.numbers[name] for name in now.numbers if name in then.numbers},
        counts={
            name: then.counts[name]
            for name in now.counts
            if then.counts.get(name) and now.counts[name]
        },
    )
    return drift.compare(known, now, **thresholds)


def _drift(kind: str, table: pd.DataFrame) -> Measure:
    drifted = table[table["drifted"]]
    listed = "; ".join(f"{row.feature}: {row.why}" for row in drifted.itertuples())
    text = f"{len(drifted)} of {len(table)} features of the {kind} drifted"
    return Measure(
        f"{kind}_drift",
        float(len(drifted)),
        f"{text} ({listed})" if listed else text,
        threshold=0.0,
        unit="features",
        exceeded=bool(len(drifted)),
    )


def _estimated(
    confidence: np.ndarray, reference: Reference, thresholds: Thresholds, seed: int
) -> Measure:
    """The accuracy that the confidences let expect."""
    metric: Metric = reference.module.METRIC
    name = f"estimated_{metric.name}"
    if not {"validation_confidence", "validation_correct"} <= reference.serving.keys():
        text = "the version has no confidence on its validation split; train and register it again"
        return Measure(name, None, text)
    value, low, high = estimate_accuracy(
        confidence,
        reference.serving["validation_confidence"].astype(np.float64),
        reference.serving["validation_correct"].astype(bool),
        seed=seed,
    )
    bound = _bound(reference, thresholds)
    text = f"{metric.title} expected from calibrated confidence, without labels"
    exceeded = bound is not None and high < bound
    return Measure(name, value, text, low, high, bound, metric.unit, exceeded)


def _realised(
    reference: Reference, period: Period, thresholds: Thresholds, seed: int, *, deciding: bool
) -> Measure:
    """The metric of the labelled answers."""
    module, rows = reference.module, period.labelled
    metric: Metric = module.METRIC
    responses = served.parsed(rows["output"].tolist())
    if not len(rows) or responses is None:
        why = "no answer has a label" if not len(rows) else "the log has no answers"
        return Measure(metric.name, None, f"{metric.title}: {why}")
    inputs = served.parsed(rows["input"].tolist())
    keys = (rows["request_id"] + ":" + rows["item"].astype(str)).tolist()
    results = module.judge(inputs or [None] * len(rows), responses, rows["truth"].tolist(), keys)
    value = results.value(metric)
    text = f"{metric.title} of {len(rows):,} answers with labels"
    tested, bound = reference.scores.get(metric.name), _bound(reference, thresholds)
    try:
        low, high = metric_interval(results, metric, resamples=RESAMPLES, seed=seed)
    except EvaluationError:
        text += "; too few independent ones for an interval"
        return Measure(metric.name, value, text, None, None, bound, metric.unit)
    best = high if metric.higher_is_better else low
    worse = bound is not None and math.isfinite(best) and metric.better(bound, best)
    if tested is not None:
        text += f"; {format(tested, metric.format)} on the test split"
    if len(rows) < thresholds.min_labels:
        text += f"; fewer than {thresholds.min_labels} decide nothing"
    exceeded = worse and deciding and len(rows) >= thresholds.min_labels
    return Measure(metric.name, value, text, low, high, bound, metric.unit, exceeded)


def _bound(reference: Reference, thresholds: Thresholds) -> float | None:
    """The threshold of the domain's metric; None where it has no value on the test split."""
    metric: Metric = reference.module.METRIC
    tested = reference.scores.get(metric.name)
    return None if tested is None else thresholds.bound(float(tested), metric)


def _latency(requests: pd.DataFrame) -> Sequence[Measure]:
    values = requests["latency_ms"].to_numpy(np.float64)
    return [
        Measure(f"latency_p{percent}", float(np.percentile(values, percent)),
                f"{percent}% of the requests were answered within this time", unit="ms")
        for percent in (50, 99)
    ]  # fmt: skip


def _summary(measures: Sequence[Measure], reasons: Sequence[str]) -> str:
    if reasons:
        return f"{'; '.join(reasons)}."
    parts = [
        f"{each.name.replace('_', ' ')} {each.value:.3f}"
        for each in measures
        if each.threshold is not None and each.value is not None and not each.name.endswith("drift")
    ]
    return f"No threshold is exceeded{': ' if parts else ''}{', '.join(parts)}."


def _plain(row: Mapping[Any, Any]) -> dict[str, Json]:
    """A row of the drift as JSON: null for NaN."""
    return {
        str(name): None
        if isinstance(value, float) and math.isnan(value)
        else value.item()
        if isinstance(value, np.generic)
        else value
        for name, value in row.items()
    }
