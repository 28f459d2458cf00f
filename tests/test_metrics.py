"""Laws of the scores, and agreement with scikit-learn."""

import itertools
from typing import Any

import numpy as np
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

from ostinato.evaluation import bootstrap, classification

Made = tuple[np.ndarray, np.ndarray]
SEEDS = st.integers(0, 10_000)


def made(seed: int, examples: int = 300, classes: int = 7, sharpness: float = 2.0) -> Made:
    """Probabilities (example, class) that know something of their truths (example,)."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=examples)
    score = random.normal(size=(examples, classes)) + sharpness * np.eye(classes)[truth]
    p = np.exp(score)
    return p / p.sum(axis=1, keepdims=True), truth


@settings(max_examples=50)
@given(SEEDS)
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    p, truth = made(seed)
    prediction, labels = p.argmax(axis=1), range(7)
    rank = classification.ranks(p, truth)
    assert classification.top(rank, 1) == pytest.approx(accuracy_score(truth, prediction))
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(truth, p, k=k, labels=labels)
        assert classification.top(rank, k) == pytest.approx(expected)
    expected = reference_log_loss(truth, p, labels=labels)
    assert classification.log_loss(classification.likelihoods(p, truth)) == pytest.approx(expected)
    counts = classification.confusion(truth, prediction, 7)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, prediction, labels=labels))


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 40))
def test_per_class_agrees_with_scikit_learn_also_where_classes_are_missing(
    seed: int, examples: int
) -> None:
    p, truth = made(seed, examples, classes=12)
    prediction = p.argmax(axis=1)
    each = classification.per_class(classification.confusion(truth, prediction, 12))
    expected = precision_recall_fscore_support(
        truth, prediction, labels=range(12), zero_division=np.nan
    )
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(each[name], column)
    assert np.nanmean(each["f1"]) == pytest.approx(f1_score(truth, prediction, average="macro"))


@settings(max_examples=50)
@given(SEEDS)
def test_naming_the_classes_differently_changes_no_score(seed: int) -> None:
    p, truth = made(seed)
    p = p.round(1)  # with ties
    order = np.random.default_rng(seed).permutation(7)
    renamed, names = p[:, order], np.argsort(order)[truth]
    np.testing.assert_array_equal(
        classification.ranks(p, truth), classification.ranks(renamed, names)
    )
    np.testing.assert_array_equal(
        classification.likelihoods(p, truth), classification.likelihoods(renamed, names)
    )


def test_a_perfect_predictor_has_perfect_scores() -> None:
    truth = np.arange(20) % 5
    p = np.eye(5)[truth]
    rank = classification.ranks(p, truth)
    table = classification.reliability(p.max(axis=1), rank == 1, 15)
    each = classification.per_class(classification.confusion(truth, p.argmax(axis=1), 5))
    assert classification.top(rank, 1) == classification.mean_average_precision(rank, 3) == 1
    assert classification.log_loss(classification.likelihoods(p, truth)) == 0
    assert classification.calibration_error(table) == 0
    assert (each["f1"] == 1).all()


def test_a_constant_predictor_gets_nothing_for_free() -> None:
    truth = np.arange(20) % 5
    rank = classification.ranks(np.full((20, 5), 0.2), truth)
    assert [classification.top(rank, k) for k in (1, 3, 4, 5)] == [0, 0, 0, 1]
    assert classification.mean_average_precision(rank, 3) == 0
    likelihood = classification.likelihoods(np.full((20, 5), 0.2), truth)
    assert classification.log_loss(likelihood) == pytest.approx(np.log(5))


def test_a_rank_counts_the_classes_that_are_at_least_as_probable() -> None:
    p = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.1, 0.45, 0.45]]
    np.testing.assert_array_equal(classification.ranks(p, [0, 0, 0, 2]), [1, 2, 3, 2])


def test_mean_average_precision_is_the_mean_of_the_inverse_ranks_up_to_k() -> None:
    assert classification.mean_average_precision([1, 2, 3, 4], 3) == pytest.approx(
        (1 + 1 / 2 + 1 / 3) / 4
    )
    assert classification.mean_average_precision([1, 2, 3, 4], 1) == classification.top(
        [1, 2, 3, 4], 1
    )


def test_an_impossible_truth_costs_a_finite_log_loss() -> None:
    assert classification.log_loss([0.0]) == pytest.approx(15.942, abs=1e-3)


def slow_calibration_error(confidence: Any, correct: Any, bins: int) -> float:
    """Guo et al., equation 3, one bin at a time."""
    total = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (low < confidence) & (confidence <= high)
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return total / len(confidence)


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 30))
def test_calibration_error_is_that_of_guo_and_others(seed: int, bins: int) -> None:
    p, truth = made(seed)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == truth
    table = classification.reliability(confidence, correct, bins)
    expected = slow_calibration_error(confidence, correct, bins)
    assert classification.calibration_error(table) == pytest.approx(expected)
    assert table["samples"].sum() == len(truth)


def test_calibration_bins_are_open_below_and_closed_above() -> None:
    table = classification.reliability([0.0, 0.1, 0.25, 0.26, 0.5, 1.0], [0, 0, 1, 1, 0, 1], 4)
    np.testing.assert_array_equal(table["samples"], [3, 2, 0, 1])
    np.testing.assert_allclose(table["accuracy"], [1 / 3, 1 / 2, np.nan, 1])


def test_a_predictor_whose_truths_follow_its_probabilities_is_calibrated() -> None:
    p, _ = made(1, examples=60_000)
    draw = np.random.default_rng(2).random((len(p), 1))
    truth = (p.cumsum(axis=1) < draw).sum(axis=1)
    correct = p.argmax(axis=1) == truth
    assert (
        classification.calibration_error(classification.reliability(p.max(axis=1), correct, 15))
        < 0.01
    )
    sure = classification.reliability(np.minimum(p.max(axis=1) + 0.2, 1), correct, 15)
    assert classification.calibration_error(sure) > 0.1


def test_the_bootstrap_has_the_distribution_of_resampling_by_index() -> None:
    values = np.random.default_rng(0).exponential(size=200).round(1)
    ours = bootstrap.bootstrap(values, 20_000, 1)
    theirs = np.random.default_rng(1).choice(values, (20_000, 200)).mean(axis=1)
    assert ours.mean() == pytest.approx(values.mean(), abs=0.003)
    assert ours.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.02)
    levels = [0.01, 0.1, 0.5, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(ours, levels), np.quantile(theirs, levels), rtol=0.02)


def test_a_bootstrap_interval_of_95_percent_holds_the_truth_in_about_95_percent() -> None:
    random, inside = np.random.default_rng(3), 0
    for seed in range(1_000):
        low, high = bootstrap.interval(bootstrap.bootstrap(random.random(400) < 0.7, 1_000, seed))
        inside += low <= 0.7 <= high
    assert 0.93 <= inside / 1_000 <= 0.97


def test_the_order_of_the_examples_and_the_size_of_a_chunk_change_no_bootstrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=50)
    first = bootstrap.bootstrap(values, 100, 7)
    np.testing.assert_array_equal(first, bootstrap.bootstrap(values[::-1], 100, 7))
    monkeypatch.setattr(classification, "CHUNK", 120)
    np.testing.assert_allclose(first, bootstrap.bootstrap(values, 100, 7), rtol=1e-12)
    assert not np.array_equal(first, bootstrap.bootstrap(values, 100, 8))


def test_a_bootstrap_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap.bootstrap([], 10, 0)
    with pytest.raises(ValueError, match="of one cluster"):
        bootstrap.bootstrap([1, 2, 3], 10, 0, [7, 7, 7])


def test_examples_that_are_drawn_together_count_as_one() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=40))
    expected = bootstrap.bootstrap(values, 100, 7)
    each = np.arange(40)
    np.testing.assert_allclose(bootstrap.bootstrap(values, 100, 7, each), expected, rtol=1e-12)
    often = [bootstrap.bootstrap(np.repeat(values, k), 100, 7, np.repeat(each, k)) for k in (2, 5)]
    np.testing.assert_allclose(often, [expected, expected], rtol=1e-9)


def test_of_losses_that_overlap_in_time_clusters_alone_tell_how_sure_their_mean_is() -> None:
    random, inside = np.random.default_rng(5), np.zeros(2)
    for seed in range(200):  # each loss is the mean of seven days' errors
        losses = np.convolve(random.normal(size=706), np.ones(7) / 7, "valid")
        for number, clusters in enumerate((None, np.arange(700) // 14)):
            low, high = bootstrap.interval(bootstrap.bootstrap(losses, 200, seed, clusters))
            inside[number] += low <= 0 <= high
    assert inside[0] / 200 < 0.7
    assert inside[1] / 200 > 0.87


def test_an_interval_grows_with_its_level_and_holds_its_quantiles() -> None:
    means = np.arange(1_001) / 1_000
    assert bootstrap.interval(means, 0.9) == pytest.approx((0.05, 0.95))
    assert bootstrap.interval(means) == pytest.approx((0.025, 0.975))


def test_pairing_tells_apart_runs_that_their_own_intervals_do_not() -> None:
    random = np.random.default_rng(5)
    one = random.random(1_000) < 0.8
    other = one & (random.random(1_000) > 0.02)  # as good, but for 2% of its right answers
    alone = [bootstrap.interval(bootstrap.bootstrap(run, 2_000, 0)) for run in (one, other)]
    low, _ = bootstrap.interval(bootstrap.paired_bootstrap(one, other, 2_000, 0))
    assert alone[0][0] < alone[1][1]
    assert low > 0


def test_pairing_does_not_tell_apart_runs_that_are_equally_good() -> None:
    random, apart = np.random.default_rng(6), 0
    for seed in range(300):
        hard = random.random(400)  # shared by the two
        one, other = (random.random((2, 400)) * 0.6 + hard * 0.4) < 0.5
        low, high = bootstrap.interval(bootstrap.paired_bootstrap(one, other, 500, seed))
        apart += not low <= 0 <= high
    assert apart / 300 < 0.09


def test_the_two_sides_of_a_pair_only_change_the_sign() -> None:
    one, other = np.random.default_rng(0).random((2, 80)) < 0.5
    forth = bootstrap.paired_bootstrap(one, other, 20_000, 0)
    back = bootstrap.paired_bootstrap(other, one, 20_000, 0)
    np.testing.assert_allclose(bootstrap.interval(forth), np.negative(bootstrap.interval(back))[::-1],
                               atol=0.013)  # fmt: skip
    assert not bootstrap.paired_bootstrap(one, one, 10, 0).any()


def test_runs_of_different_examples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 examples against 2"):
        bootstrap.paired_bootstrap([1, 0, 1], [1, 0], 10, 0)
