"""Metrics of classifiers agree with scikit-learn; intervals and comparisons have their coverage."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from sklearn.metrics import log_loss as reference_log_loss

from ostinato.errors import EvaluationError
from ostinato.evaluation import classification, comparison, timing
from ostinato.task import Metric, PerExample, mean

Predicted = tuple[np.ndarray, np.ndarray]
SEEDS = st.integers(0, 10_000)
METRIC = Metric("value", "Value")


def predicted(
    seed: int, examples: int = 300, classes: int = 7, sharpness: float = 2.0
) -> Predicted:
    """Probabilities (example, class) that correlate with the true classes (example,)."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=examples)
    score = random.normal(size=(examples, classes)) + sharpness * np.eye(classes)[truth]
    p = np.exp(score)
    return p / p.sum(axis=1, keepdims=True), truth


def names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


@settings(max_examples=50)
@given(SEEDS)
def test_metrics_agree_with_scikit_learn(seed: int) -> None:
    p, truth = predicted(seed)
    prediction, labels = p.argmax(axis=1), range(7)
    rank = classification.ranks(p, truth)
    assert classification.top_k_accuracy(rank, 1) == pytest.approx(
        accuracy_score(truth, prediction)
    )
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(truth, p, k=k, labels=labels)
        assert classification.top_k_accuracy(rank, k) == pytest.approx(expected)
    expected = reference_log_loss(truth, p, labels=labels)
    assert classification.log_loss(classification.likelihoods(p, truth)) == pytest.approx(expected)
    counts = classification.confusion_matrix(truth, prediction, 7)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, prediction, labels=labels))


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 40))
def test_per_class_agrees_with_scikit_learn_with_missing_classes(seed: int, examples: int) -> None:
    p, truth = predicted(seed, examples, classes=12)
    prediction = p.argmax(axis=1)
    counts = classification.confusion_matrix(truth, prediction, 12)
    table = classification.per_class(counts, names(12))
    expected = precision_recall_fscore_support(
        truth, prediction, labels=range(12), zero_division=np.nan
    )
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[name], column)
    assert table["f1"].mean() == pytest.approx(f1_score(truth, prediction, average="macro"))


@settings(max_examples=50)
@given(SEEDS)
def test_permuting_the_classes_changes_no_metric(seed: int) -> None:
    p, truth = predicted(seed)
    p = p.round(1)  # with ties
    order = np.random.default_rng(seed).permutation(7)
    permuted, labels = p[:, order], np.argsort(order)[truth]
    np.testing.assert_array_equal(
        classification.ranks(p, truth), classification.ranks(permuted, labels)
    )
    np.testing.assert_array_equal(
        classification.likelihoods(p, truth), classification.likelihoods(permuted, labels)
    )


def test_a_perfect_predictor_has_perfect_metrics() -> None:
    truth = np.arange(20) % 5
    p = np.eye(5)[truth]
    rank = classification.ranks(p, truth)
    table = classification.reliability(p.max(axis=1), rank == 1, 15)
    counts = classification.confusion_matrix(truth, p.argmax(axis=1), 5)
    assert classification.top_k_accuracy(rank, 1) == 1
    assert classification.mean_average_precision(rank, 3) == 1
    assert classification.log_loss(classification.likelihoods(p, truth)) == 0
    assert classification.expected_calibration_error(table) == 0
    assert (classification.per_class(counts, names(5))["f1"] == 1).all()


def test_a_constant_predictor_ranks_the_true_class_last() -> None:
    truth = np.arange(20) % 5
    p = np.full((20, 5), 0.2)
    rank = classification.ranks(p, truth)
    assert [classification.top_k_accuracy(rank, k) for k in (1, 3, 4, 5)] == [0, 0, 0, 1]
    assert classification.mean_average_precision(rank, 3) == 0
    loss = classification.log_loss(classification.likelihoods(p, truth))
    assert loss == pytest.approx(np.log(5))


def test_a_rank_counts_the_classes_that_are_at_least_as_probable() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.1, 0.45, 0.45]])
    ranks = classification.ranks(p, np.array([0, 0, 0, 2]))
    np.testing.assert_array_equal(ranks, [1, 2, 3, 2])


def test_mean_average_precision_is_the_mean_of_inverse_ranks_up_to_k() -> None:
    rank = np.array([1, 2, 3, 4])
    assert classification.mean_average_precision(rank, 3) == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert classification.mean_average_precision(rank, 1) == classification.top_k_accuracy(rank, 1)


def test_likelihood_zero_has_a_finite_log_loss() -> None:
    assert classification.log_loss(np.array([0.0])) == pytest.approx(15.942, abs=1e-3)


def slow_calibration_error(confidence: Any, correct: Any, bins: int) -> float:
    """Guo et al. 2017 (arXiv 1706.04599), equation 3, one bin at a time."""
    total = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (low < confidence) & (confidence <= high)
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return total / len(confidence)


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 30))
def test_calibration_error_agrees_with_a_slow_implementation(seed: int, bins: int) -> None:
    p, truth = predicted(seed)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == truth
    table = classification.reliability(confidence, correct, bins)
    expected = slow_calibration_error(confidence, correct, bins)
    assert classification.expected_calibration_error(table) == pytest.approx(expected)
    assert table["samples"].sum() == len(truth)


def test_calibration_bins_are_open_below_and_closed_above() -> None:
    confidence = np.array([0.0, 0.1, 0.25, 0.26, 0.5, 1.0])
    table = classification.reliability(confidence, np.array([0, 0, 1, 1, 0, 1]) > 0, 4)
    np.testing.assert_array_equal(table["samples"], [3, 2, 0, 1])
    np.testing.assert_allclose(table["accuracy"], [1 / 3, 1 / 2, np.nan, 1])


def test_a_calibrated_predictor_has_no_calibration_error() -> None:
    p, _ = predicted(1, examples=60_000)
    draw = np.random.default_rng(2).random((len(p), 1))
    truth = (p.cumsum(axis=1) < draw).sum(axis=1)
    correct = p.argmax(axis=1) == truth
    table = classification.reliability(p.max(axis=1), correct, 15)
    assert classification.expected_calibration_error(table) < 0.01
    overconfident = classification.reliability(np.minimum(p.max(axis=1) + 0.2, 1), correct, 15)
    assert classification.expected_calibration_error(overconfident) > 0.1


def collected(p: np.ndarray, truth: np.ndarray, size: int = 7) -> classification.Predictions:
    """Predictions of batches in a random order."""
    order = np.random.default_rng(size).permutation(len(p))
    batches = ((order[i : i + size], p[order[i : i + size]]) for i in range(0, len(p), size))
    return classification.collect(batches, truth, p.shape[1])


def test_collecting_batches_gives_the_metrics_of_the_whole_matrix() -> None:
    p, truth = predicted(4)
    found = collected(p, truth)
    np.testing.assert_array_equal(found.rank, classification.ranks(p, truth))
    np.testing.assert_array_equal(found.likelihood, classification.likelihoods(p, truth))
    np.testing.assert_array_equal(found.prediction, p.argmax(axis=1))
    np.testing.assert_array_equal(found.confidence, p.max(axis=1))
    assert found.probabilities.dtype == np.float16
    counts = classification.confusion_matrix(truth, found.prediction, 7)
    cells = classification.confusion_table(counts, names(7))
    pivot = cells.pivot_table("count", "truth", "prediction", "sum", fill_value=0)
    pd.testing.assert_frame_equal(
        pivot, pd.DataFrame(counts, names(7), names(7)), check_names=False, check_dtype=False
    )


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.full((4, 3), 0.5), "rows sum to 1.5"),
        (np.full((4, 3), np.nan), "did training diverge"),
        (np.full((4, 2), 0.5), r"shape \(4, 2\), expected \(4, 3\)"),
    ],
)
def test_outputs_that_are_no_distribution_are_an_error(p: np.ndarray, message: str) -> None:
    batches = [(np.arange(4), p)]
    with pytest.raises(EvaluationError, match=message):
        classification.collect(batches, np.zeros(4, int), 3)


def test_statistics_per_example_aggregate_to_the_metrics() -> None:
    p, truth = predicted(8)
    found = collected(p, truth)
    arrays = {"keys": np.arange(len(truth)).astype(str), **found.arrays()}
    metrics = ("top1", "top5", "map3", "log_loss")
    results = classification.per_example(arrays, metrics)
    wanted = {
        classification.TOP1: classification.top_k_accuracy(found.rank, 1),
        classification.TOP5: classification.top_k_accuracy(found.rank, 5),
        classification.MAP3: classification.mean_average_precision(found.rank, 3),
        classification.LOG_LOSS: classification.log_loss(found.likelihood),
    }
    for metric, value in wanted.items():
        assert results.value(metric) == pytest.approx(value, rel=1e-12)
    for seed in (3, 8):
        assert classification.mean_interval(found.correct, resamples=200, seed=seed) == (
            comparison.metric_interval(results, classification.TOP1, resamples=200, seed=seed)
        )


def results(values: Any, clusters: Any = None, keys: Any = None) -> PerExample:
    """Results whose metric is the mean of the values."""
    x = np.asarray(values, np.float64)
    return PerExample(
        np.arange(len(x)).astype(str) if keys is None else np.asarray(keys),
        np.arange(len(x)) if clusters is None else np.asarray(clusters),
        {"value": np.stack([x, np.ones(len(x))], axis=1)},
    )


def means(values: Any, resamples: int, seed: int, clusters: Any = None) -> np.ndarray:
    """Bootstrap means."""
    found = results(values, clusters)
    sums = comparison.resample(
        found.statistics["value"], found.clusters, resamples=resamples, seed=seed
    )
    return mean(sums)


def test_the_bootstrap_has_the_distribution_of_resampling_by_index() -> None:
    values = np.random.default_rng(0).exponential(size=200).round(1)
    ours = means(values, 20_000, 1)
    theirs = np.random.default_rng(1).choice(values, (20_000, 200)).mean(axis=1)
    assert ours.mean() == pytest.approx(values.mean(), abs=0.003)
    assert ours.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.02)
    levels = [0.01, 0.1, 0.5, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(ours, levels), np.quantile(theirs, levels), rtol=0.02)


def test_a_95_percent_interval_has_about_95_percent_coverage() -> None:
    random, inside = np.random.default_rng(3), 0
    for seed in range(1_000):
        values = random.random(400) < 0.7
        low, high = classification.mean_interval(values, resamples=1_000, seed=seed)
        inside += low <= 0.7 <= high
    assert 0.93 <= inside / 1_000 <= 0.97


def test_order_of_examples_and_chunk_size_change_no_bootstrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=50)
    first = means(values, 100, 7)
    np.testing.assert_array_equal(first, means(values[::-1], 100, 7))
    monkeypatch.setattr(comparison, "CHUNK", 120)
    np.testing.assert_allclose(first, means(values, 100, 7), rtol=1e-12)
    assert not np.array_equal(first, means(values, 100, 8))


def test_a_bootstrap_without_variation_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no examples"):
        means([], 10, 0)
    with pytest.raises(EvaluationError, match="in one cluster"):
        means([1, 2, 3], 10, 0, [7, 7, 7])


def test_repeating_the_examples_of_clusters_changes_no_interval() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=40))
    expected = means(values, 100, 7)
    index = np.arange(40)
    for k in (2, 5):
        repeated = means(np.repeat(values, k), 100, 7, np.repeat(index, k))
        np.testing.assert_allclose(repeated, expected, rtol=1e-9)


def test_clusters_restore_the_coverage_for_correlated_values() -> None:
    random, inside = np.random.default_rng(5), np.zeros(2)
    for seed in range(200):  # each loss is the mean of seven days' errors
        losses = np.convolve(random.normal(size=706), np.ones(7) / 7, "valid")
        for number, clusters in enumerate((None, np.arange(700) // 14)):
            low, high = classification.mean_interval(
                losses, resamples=200, seed=seed, clusters=clusters
            )
            inside[number] += low <= 0 <= high
    assert inside[0] / 200 < 0.7
    assert inside[1] / 200 > 0.87


def test_an_interval_contains_its_quantiles() -> None:
    values = np.arange(1_001) / 1_000
    assert comparison.interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert comparison.interval(values) == pytest.approx((0.025, 0.975))


def test_pairing_separates_models_whose_intervals_overlap() -> None:
    random = np.random.default_rng(5)
    ours = random.random(1_000) < 0.8
    theirs = ours & (random.random(1_000) > 0.02)  # wrong on 2% of the examples that ours solves
    alone = [
        classification.mean_interval(values, resamples=2_000, seed=0) for values in (ours, theirs)
    ]
    assert alone[0][0] < alone[1][1]
    paired = comparison.compare(results(ours), results(theirs), METRIC, resamples=2_000, seed=0)
    assert paired.low > 0
    assert paired.improves() or paired.worsens
    assert paired.difference == pytest.approx(ours.mean() - theirs.mean())


def test_pairing_does_not_separate_equally_good_models() -> None:
    random, apart = np.random.default_rng(6), 0
    for seed in range(300):
        difficulty = random.random(400)  # shared by the two
        one, other = (random.random((2, 400)) * 0.6 + difficulty * 0.4) < 0.5
        found = comparison.compare(results(one), results(other), METRIC, resamples=500, seed=seed)
        apart += found.improves() or found.worsens
    assert apart / 300 < 0.09


def test_swapping_the_models_changes_the_sign() -> None:
    one, other = np.random.default_rng(0).random((2, 80)) < 0.5
    settings_: dict[str, Any] = {"resamples": 20_000, "seed": 0}
    forth = comparison.compare(results(one), results(other), METRIC, **settings_)
    back = comparison.compare(results(other), results(one), METRIC, **settings_)
    assert back.difference == -forth.difference
    np.testing.assert_allclose([forth.low, forth.high], [-back.high, -back.low], atol=0.013)
    same = comparison.compare(results(one), results(one), METRIC, resamples=10, seed=0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_a_positive_difference_is_an_improvement_also_of_a_loss() -> None:
    loss = Metric("value", "Loss", higher_is_better=False)
    found = comparison.compare(results([1.0, 2.0]), results([2.0, 4.0]), loss, resamples=10, seed=0)
    assert found.difference == 1.5
    assert found.low > 0


def test_models_are_compared_on_their_common_keys() -> None:
    one = results([1, 0, 1], keys=["a", "b", "c"])
    other = results([9, 0, 0], keys=["z", "c", "b"])
    found = comparison.compare(one, other, METRIC, resamples=10, seed=0)
    assert (found.examples, found.clusters) == (2, 2)
    assert found.difference == 0.5
    with pytest.raises(EvaluationError, match="no test example in common"):
        comparison.compare(one, results([1], keys=["x"]), METRIC, resamples=10, seed=0)


def test_a_timer_runs_the_first_call_twice_and_sums_the_rest() -> None:
    calls: list[int] = []
    timer = timing.Timer(calls.append)
    assert timer.seconds == 0
    for number in (1, 2, 3):
        timer(number)
    assert calls == [1, 1, 2, 3]
    assert timer.seconds > 0


def test_speed_times_each_request_after_a_warm_up() -> None:
    calls: list[str] = []
    found = timing.speed(calls.append, ["a", "b"], seconds=0.5, examples=10)
    assert calls == ["a", "a", "b"]
    assert found["inference_ms_batched"] == 50
    assert found["inference_ms_single"] >= 0
