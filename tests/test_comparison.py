"""The bootstrap: laws of intervals and of paired comparisons, and an independent slow version."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.errors import EvaluationError
from ostinato.evaluation.comparison import compare, metric_interval, resample
from ostinato.task import Metric, PerExample

ACCURACY = Metric("accuracy", "Accuracy")
LOSS = Metric("loss", "Loss", higher_is_better=False)
PERPLEXITY = Metric(
    "perplexity",
    "Perplexity",
    higher_is_better=False,
    aggregate=lambda sums: np.exp(sums[..., 0] / sums[..., 1]),
)


def results(
    values: Any, metric: Metric = ACCURACY, clusters: Any = None, counts: Any = None
) -> PerExample:
    values = np.asarray(values, float)
    rows = np.stack([values, np.ones(len(values)) if counts is None else counts], axis=1)
    clusters = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    return PerExample(np.arange(len(values)).astype(str), clusters, {metric.name: rows})


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(3, 2, 1000)
    low, high = metric_interval(results(values), ACCURACY, resamples=4000, seed=1)
    error = 1.96 * values.std() / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.02)


def test_clusters_are_drawn_together() -> None:
    """Copies of an example add nothing: the interval is that of the distinct examples."""
    values = np.random.default_rng(0).normal(size=50)
    single = metric_interval(results(values), ACCURACY, resamples=4000, seed=1)
    copies = results(np.repeat(values, 8), clusters=np.repeat(np.arange(50), 8))
    assert metric_interval(copies, ACCURACY, resamples=4000, seed=1) == pytest.approx(single)


def test_the_order_of_the_examples_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 2, (200, 2)).astype(float)
    order = generator.permutation(200)
    one = resample(rows, np.arange(200), resamples=50, seed=3)
    two = resample(rows[order], np.arange(200), resamples=50, seed=3)
    np.testing.assert_array_equal(one, two)


def test_the_multinomial_draw_has_the_distribution_of_drawing_each_example() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(size=60)
    slow = [generator.choice(values, 60).mean() for _ in range(4000)]
    sums = resample(results(values).statistics["accuracy"], np.arange(60), resamples=4000, seed=1)
    fast = sums[:, 0] / sums[:, 1]
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(
        np.quantile(fast, quantiles), np.quantile(slow, quantiles), rtol=0.03
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_a_comparison_is_antisymmetric_and_a_model_does_not_differ_from_itself(
    pairs: list[tuple[bool, bool]],
) -> None:
    one, two = (results(column) for column in zip(*pairs, strict=True))
    forth = compare(one, two, ACCURACY, resamples=20, seed=0)
    back = compare(two, one, ACCURACY, resamples=20, seed=0)
    assert forth.difference == pytest.approx(-back.difference)
    same = compare(one, one, ACCURACY, resamples=20, seed=0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert not same.improves()
    assert not same.worsens


def test_a_lower_loss_is_a_positive_difference() -> None:
    better, worse = results([1.0, 2.0] * 50, LOSS), results([1.5, 2.5] * 50, LOSS)
    comparison = compare(better, worse, LOSS, resamples=100, seed=0)
    assert comparison.difference == pytest.approx(0.5)
    assert comparison.low == pytest.approx(0.5)
    assert comparison.improves()
    assert not comparison.improves(margin=0.6)


def test_a_metric_that_is_no_mean_over_examples_is_aggregated_from_the_sums() -> None:
    nats, tokens = np.array([4.0, 9.0, 2.0] * 20), np.array([2.0, 3.0, 4.0] * 20)
    model = results(nats, PERPLEXITY, counts=tokens)
    assert model.value(PERPLEXITY) == pytest.approx(np.exp(nats.sum() / tokens.sum()))
    low, high = metric_interval(model, PERPLEXITY, resamples=500, seed=0)
    assert low < model.value(PERPLEXITY) < high


def test_examples_are_paired_by_key_and_those_without_a_value_are_left_out() -> None:
    one, two = results([1.0, 0.0, 1.0, np.nan]), results([0.0, 0.0, 1.0, 1.0])
    moved = PerExample(two.keys[::-1], two.clusters, {"accuracy": two.statistics["accuracy"][::-1]})
    comparison = compare(one, moved, ACCURACY, resamples=10, seed=0)
    assert comparison.examples == 3
    assert comparison.difference == pytest.approx(1 / 3)


def test_repeated_keys_are_paired_in_their_order() -> None:
    keys = np.array(["a", "a", "b"])
    rows = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    model = PerExample(keys, np.arange(3), {"accuracy": rows})
    assert compare(model, model, ACCURACY, resamples=10, seed=0).examples == 3


def test_a_metric_that_is_not_defined_for_the_examples_of_both_is_an_error() -> None:
    ratio = Metric("ratio", "Ratio", aggregate=lambda sums: sums[..., 0] / sums[..., 1])
    known, nothing = results([1.0, 2.0], ratio), results([1.0, 2.0], ratio, counts=[0.0, 0.0])
    unknown = results([np.nan, np.nan], ratio)
    with np.errstate(divide="ignore"), pytest.raises(EvaluationError, match="ratio: is not defin"):
        compare(known, nothing, ratio, resamples=10, seed=0)
    with pytest.raises(EvaluationError, match="ratio: no test example has a value in both"):
        compare(known, unknown, ratio, resamples=10, seed=0)


def test_samples_without_a_value_are_left_out_of_an_interval() -> None:
    """A sample that draws only examples of count 0 has no mean."""
    rare = results([0.0, 0.0, 6.0, 8.0], counts=[0.0, 0.0, 1.0, 1.0])
    low, high = metric_interval(rare, ACCURACY, resamples=500, seed=0)
    assert (low, high) == (6, 8)


def test_what_cannot_be_compared_is_an_error() -> None:
    one = results([1.0, 0.0])
    other = PerExample(np.array(["x", "y"]), one.clusters, one.statistics)
    with pytest.raises(EvaluationError, match="no test example in common"):
        compare(one, other, ACCURACY, resamples=10, seed=0)
    with pytest.raises(EvaluationError, match="one cluster"):
        metric_interval(results([1.0, 0.0], clusters=[7, 7]), ACCURACY, resamples=10, seed=0)
