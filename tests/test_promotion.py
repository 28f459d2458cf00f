"""The choice of the challenger and the gate, without a registry: how often does luck win?"""

import math
from typing import Any

import numpy as np
import pytest

from ostinato.evaluation.classification import TOP1
from ostinato.promotion import Candidate, Gate, Verdict, choose
from ostinato.task import Comparison, Metric, PerExample

LOSS = Metric("loss", "Loss", higher_is_better=False)
GATE = Gate(
    metric="top1",
    at_least=0.0,
    margin=0.0,
    confidence=0.95,
    resamples=400,
    max_examples=1,
    approval=False,
)
NIGHTS, CHALLENGERS, EXAMPLES = 100, 20, 400


def results(correct: np.ndarray) -> PerExample:
    rows = np.stack([correct.astype(float), np.ones(len(correct))], axis=1)
    keys = np.arange(len(correct))
    return PerExample(keys.astype(str), keys, {"top1": rows})


def champion_changes(seed: int, *, chosen_on: str) -> int:
    """How often the champion changes in a hundred nights with twenty equal challengers each.

    All models are equally good: right on each example with a probability that only the example
    decides. Each night has new examples.
    """
    random, changes = np.random.default_rng(seed), 0
    for night in range(NIGHTS):
        splits = {}
        for split in ("validation", "test"):
            easy = random.beta(4, 1, EXAMPLES)  # the probability of each example
            splits[split] = random.random((CHALLENGERS + 1, EXAMPLES)) < easy
        values = splits[chosen_on][1:].mean(axis=1).tolist()
        candidates = [Candidate(str(number), value) for number, value in enumerate(values)]
        run = choose(candidates, TOP1)
        assert run is not None
        champion, challenger = splits["test"][0], splits["test"][1 + int(run)]
        found = GATE.compare(results(challenger), results(champion), TOP1, seed=night)
        changes += found.improves(GATE.margin)
    return changes


def test_equal_challengers_replace_the_champion_at_most_as_often_as_the_stated_error() -> None:
    seeds = range(4)
    nights, error = NIGHTS * len(seeds), (1 - GATE.confidence) / 2
    changes = sum(champion_changes(seed, chosen_on="validation") for seed in seeds)
    # Three standard deviations above the expected number at the stated error.
    assert changes <= nights * error + 3 * math.sqrt(nights * error)
    # The best of twenty on the same examples that it is judged on is mostly the luckiest.
    assert champion_changes(0, chosen_on="test") > 5 * NIGHTS * error


@pytest.mark.parametrize("metric", [TOP1, LOSS], ids=lambda metric: metric.name)
def test_the_best_on_the_validation_split_is_chosen(metric: Metric) -> None:
    candidates = [
        Candidate("low", 0.1),
        Candidate("high", 0.9),
        Candidate("same", 0.9 if metric is TOP1 else 0.1),
        Candidate("broken", left_out="it is broken"),
    ]
    assert choose(candidates, metric) == ("high" if metric is TOP1 else "low")
    assert choose(candidates[3:], metric) is None
    assert choose([], metric) is None


def test_a_score_without_a_value_does_not_pass() -> None:
    assert GATE.passes(math.nan) == (False, "top1 has no value on the test split")
    assert GATE.passes(0.5)[0]


def verdict(**changed: Any) -> Verdict:
    comparison = Comparison("top1", 0.021, 0.004, 0.038, 0.95, 900, 850)
    values: dict[str, Any] = {
        "model": "sketches",
        "promoted": True,
        "reason": "better than version 3",
        "metric": TOP1,
        "candidates": [
            Candidate("floor", 0.8),
            Candidate("best", 0.95),
            Candidate("stale", left_out="its evaluation is of an earlier model"),
        ],
        "run": "best",
        "version": 4,
        "champion": 3,
        "score": 0.941,
        "examples": 1000,
        "champion_score": 0.92,
        "comparison": comparison,
    }
    return Verdict(**values | changed)


def test_a_verdict_is_one_table_of_all_candidates_with_the_decision() -> None:
    lines = verdict().to_markdown().splitlines()
    assert lines[:3] == ["## sketches: a new champion", "", "Better than version 3."]
    assert lines[4:] == [
        "| Candidate | Top-1 accuracy, validation | Top-1 accuracy, test "
        "| Improvement on the champion | Decision |",
        "| --- | ---: | ---: | ---: | --- |",
        "| version 3 |  | 0.920 |  | was champion |",
        "| **best** | 0.950 | 0.941 | +0.021 [+0.004, +0.038] "
        "| chosen; becomes champion (version 4) |",
        "| floor | 0.800 |  |  | not chosen |",
        "| stale |  |  |  | left out: its evaluation is of an earlier model |",
        "",
        "best has the best Top-1 accuracy on the validation split. It alone was judged on the test "
        "split: 1,000 examples. Paired with the champion on 900 of them in 850 clusters; brackets: "
        "95% confidence interval.",
    ]


def test_a_verdict_without_a_champion_or_without_a_gate_says_what_is_known() -> None:
    first = verdict(champion=None, champion_score=None, comparison=None, promoted=False)
    assert "| **best** | 0.950 | 0.941 |  | chosen; not promoted" in first.to_markdown()
    assert "stays champion" not in first.to_markdown()
    approved = Verdict("sketches", True, "version 4 was approved", run="best", version=4)
    assert approved.to_markdown() == "## sketches: a new champion\n\nVersion 4 was approved.\n"


def test_the_numbers_of_a_verdict_are_those_of_its_comparison() -> None:
    assert verdict().to_metrics() == {
        "validation": 0.95,
        "score": 0.941,
        "examples": 1000.0,
        "champion_score": 0.92,
        "difference": 0.021,
        "low": 0.004,
        "high": 0.038,
        "confidence": 0.95,
        "clusters": 850.0,
        "compared": 900.0,
    }
