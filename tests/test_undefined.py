"""A metric that is not defined: None with its reason, in every place that shows or uses it."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.engine import candidates
from ostinato import store
from ostinato.evaluation import undefined
from ostinato.evaluation.classification import TOP1
from ostinato.promotion import Candidate
from ostinato.study import Study
from ostinato.task import Evaluation
from stages.evaluate import write
from tests.test_report import accurate, result, workspace, write_report

__all__ = ["workspace"]  # a fixture
REASON = "no drawing has a class, or a comma"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_becomes_none_with_a_reason(value: float | None) -> None:
    reasons = {"top1": REASON, "top5": "never shown"}
    evaluation = Evaluation({"top1": value, "top5": 0.5, "samples": 3}, undefined=reasons)
    assert evaluation.metrics == {"top1": None, "top5": 0.5, "samples": 3}
    assert evaluation.undefined == {"top1": REASON}
    assert math.isnan(evaluation.value("top1"))
    assert Evaluation({"a": value}).undefined == {"a": "its value is not finite"}


def test_an_evaluation_is_written_with_null_and_the_table_of_reasons() -> None:
    folder = Path("results/a")
    write(Evaluation({"top1": math.nan, "top5": 0.5}, undefined={"top1": REASON}), folder)
    assert store.read_json(folder / "metrics.json") == {"top1": None, "top5": 0.5}
    table = pd.read_csv(folder / "tables" / "undefined.csv")
    assert table.to_dict("records") == [{"metric": "top1", "reason": REASON}]
    assert undefined.read(folder) == {"top1": REASON}
    write(Evaluation({"top1": 0.5}), folder)
    assert not (folder / "tables" / "undefined.csv").exists()
    assert undefined.read(folder) == {}


def without(name: str, *metrics: str) -> None:
    """Take the values of metrics away from a written result."""
    folder = Path("results", name)
    values = store.read_json(folder / "metrics.json")
    store.write_json(folder / "metrics.json", {**values, **dict.fromkeys(metrics)})
    reasons = undefined.to_table(dict.fromkeys(metrics, REASON))
    store.write_table(folder / "tables" / "undefined.csv", reasons)


def test_the_report_shows_na_with_the_reason_below_the_table() -> None:
    for name in ("one", "two", "nearest"):
        result(name, accurate(0.9))
    without("one", "top5")
    without("two", "top5", "top1", "top1_low", "top1_high", "validation_top1")
    text = write_report(one="rnn", two="rnn", nearest="nearest")
    rows = {line.split(" ")[1].strip("*"): line for line in text.splitlines() if "| n/a" in line}
    assert {name: line.count("n/a") for name, line in rows.items()} == {"one": 1, "two": 3}
    assert f"n/a: Top-5 accuracy is not defined for one, two: {REASON}." in text
    assert f"n/a: Top-1 accuracy is not defined for two: {REASON}." in text
    assert "- two is" not in text  # it is not compared
    assert text.index("| two") > text.index("| one")  # a run without a value is the last


def test_a_report_without_any_value_of_the_primary_metric_is_written() -> None:
    for name in ("one", "nearest"):
        result(name, accurate(0.9))
        without(name, "top1", "top1_low", "top1_high", "validation_top1")
    text = write_report(one="rnn", nearest="nearest")
    assert f"n/a: Top-1 accuracy is not defined for nearest, one: {REASON}." in text
    assert "is the best of" not in text


def test_a_candidate_whose_gate_metric_is_not_defined_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("one", "two"):
        result(name, accurate(0.9))
    without("two", "validation_top1")
    entry = {"domain": "sketches", "data": "drawings", "model": "rnn"}
    values: dict[str, Any] = {"runs": {"one": entry, "two": entry}, "ensembles": {}}
    study = Study(Path("params.yaml"), {"root": ".", "at": "", **values})
    monkeypatch.setattr(candidates, "find_stale_results", lambda *_: {})
    assert candidates.find_candidates(candidates.Target(study, "drawings"), TOP1) == [
        Candidate("one", 0.9),
        Candidate("two", None, f"validation_top1 is not defined: {REASON}"),
    ]
