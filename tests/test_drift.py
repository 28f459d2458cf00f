"""Drift is found where it is, and only there; profiles describe the data."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ostinato.data import drift
from ostinato.data.profile import SAMPLE
from ostinato.sketches import dataset
from ostinato.sketches.dataset import profile as profiles
from ostinato.sketches.formats import strokes
from ostinato.task import Profile
from tests.test_sketches_dataset import CLASSES, drawn, prepared, raw

LIMITS: dict[str, Any] = {
    "psi_threshold": 0.2,
    "ks_threshold": 0.15,
    "significance": 0.01,
    "bins": 10,
}
NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)
COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 1000), min_size=1).filter(
    lambda counts: any(counts.values())
)
PROFILES = st.builds(lambda n, c: known(numbers={"x": n}, counts={"y": c}), NUMBERS, COUNTS)


def known(numbers: Any = None, counts: Any = None) -> Profile:
    return Profile(1, numbers or {}, counts or {})


def compared(reference: Any, current: Any, **changed: Any) -> pd.DataFrame:
    return drift.compare(reference, current, **LIMITS | changed).set_index("feature")


@given(PROFILES)
@settings(max_examples=40)
def test_what_is_identical_has_not_moved(profile: Profile) -> None:
    found = compared(profile, profile, significance=1.0)
    np.testing.assert_array_equal(found["psi"], 0)
    assert found.loc["x", "ks"] == 0
    assert found["p"].tolist() == [1, 1]
    assert not found["drifted"].any()


@given(PROFILES, PROFILES)
@settings(max_examples=40)
def test_the_index_and_the_distance_are_the_same_both_ways_and_never_negative(
    one: Profile, other: Profile
) -> None:
    there, back = compared(one, other), compared(other, one)
    columns = ["psi", "ks", "p", "drifted"]
    pd.testing.assert_frame_equal(there[columns], back[columns], rtol=1e-9, atol=1e-12)
    assert (there["psi"] >= 0).all()


@given(PROFILES, PROFILES, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_values_and_of_categories_does_not_matter(
    one: Profile, other: Profile, random: Any
) -> None:
    values, counts = [*other.numbers["x"]], [*other.counts["y"].items()]
    random.shuffle(values)
    random.shuffle(counts)
    shuffled = known({"x": values}, {"y": dict(counts)})
    pd.testing.assert_frame_equal(compared(one, shuffled), compared(one, other), rtol=1e-9)


@given(PROFILES, PROFILES)
@settings(max_examples=40)
@pytest.mark.filterwarnings("ignore:ks_2samp. Exact:RuntimeWarning")
def test_the_tests_are_scipys_times_the_number_of_features(one: Profile, other: Profile) -> None:
    found = compared(one, other)
    wanted = stats.ks_2samp(one.numbers["x"], other.numbers["x"])
    assert found.loc["x", "ks"] == wanted.statistic
    assert found.loc["x", "p"] == pytest.approx(min(1, 2 * wanted.pvalue))
    table = pd.DataFrame([one.counts["y"], other.counts["y"]]).fillna(0)
    table = table.loc[:, table.any()]
    wanted = stats.chi2_contingency(table, correction=False)
    assert found.loc["y", "p"] == pytest.approx(min(1, 2 * wanted.pvalue))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=9), st.integers(2, 50))
def test_the_index_is_of_shares_and_its_textbook_formula(counts: list[int], factor: int) -> None:
    p, q = np.array(counts), np.array(counts[::-1])
    assert drift.stability_index(p, p * factor) == pytest.approx(0, abs=1e-12)
    wanted = sum((a - b) * np.log(a / b) for a, b in zip(p / p.sum(), q / q.sum(), strict=True))
    if min(counts) / sum(counts) > max(drift.MIN_SHARE, 0.5 / sum(counts)):
        assert drift.stability_index(p, q) == pytest.approx(wanted, abs=1e-12)


@given(st.integers(20, 10**9), st.integers(0, 6))
def test_an_empty_bin_weighs_no_more_the_more_examples_there_are(n: int, more: int) -> None:
    many = drift.stability_index([n, 0], [n // 2, n // 2])
    assert many <= drift.stability_index([10**9, 0], [10**9 // 2] * 2) + 0.01
    assert drift.stability_index([n, 0, *[0] * more], [n // 2, n // 2, *[0] * more]) == many


@pytest.mark.parametrize("draw", ["normal", "lognormal", "integers"])
def test_a_shift_is_found_and_noise_is_not(draw: str) -> None:
    random = np.random.default_rng(0)

    def values(shift: float) -> list[float]:
        if draw == "integers":
            return [float(x) for x in random.poisson(3 * (1 + shift), 1000)]
        return [float(x) for x in getattr(random, draw)(shift, 1, 1000)]

    then = known({"x": values(0)})
    assert not compared(then, known({"x": values(0)})).loc["x", "drifted"]
    found = compared(then, known({"x": values(0.6)})).loc["x"]
    assert found["drifted"]
    assert found["psi"] > LIMITS["psi_threshold"]
    assert "PSI" in found["why"]
    assert "KS" in found["why"]


def test_false_alarms_are_no_more_than_the_level_allows() -> None:
    """Of the corrected p alone, the size of the change left aside; 9 features at once."""
    random, level, rounds = np.random.default_rng(1), 0.05, 250
    weights = random.dirichlet(np.ones(30))

    def drawn_from_the_same() -> Profile:
        numbers = {f"n{i}": random.normal(size=300).tolist() for i in range(4)}
        numbers |= {f"i{i}": random.poisson(4, 300).tolist() for i in range(3)}
        words = [random.multinomial(2000, weights) for _ in range(2)]
        counts = {f"c{i}": dict(zip(map(str, range(30)), map(int, c), strict=True))
                  for i, c in enumerate(words)}  # fmt: skip
        return known(numbers, counts)

    pairs = ((drawn_from_the_same(), drawn_from_the_same()) for _ in range(rounds))
    alarms = sum((compared(a, b)["p"] < level).any() for a, b in pairs)
    # As many or more would be chance once in 1000 times, were the level just kept.
    assert alarms < stats.binom.isf(0.001, rounds, level)
    assert alarms > 0, "the test is not so blunt that it finds nothing ever"


def test_a_large_sample_makes_no_drift_of_a_small_difference_nor_a_small_one_of_chance() -> None:
    then, now = {"a": 500_000, "b": 500_000}, {"a": 510_000, "b": 490_000}
    found = compared(known(counts={"y": then}), known(counts={"y": now})).loc["y"]
    assert found["p"] < 1e-9
    assert not found["drifted"]
    assert found["why"].startswith("a small change: a 50.0% to 51.0%")
    found = compared(known({"x": [1, 2, 3]}), known({"x": [4, 5, 6]})).loc["x"]
    assert found["ks"] == 1
    assert not found["drifted"]
    assert found["why"] == "not significant"


def test_a_category_that_is_new_or_gone_is_drift_where_it_is_common_and_is_named() -> None:
    then = {"ant": 300, "bee": 300, "cat": 300}
    found = compared(known(counts={"y": then}), known(counts={"y": {**then, "dog": 200}}))
    assert found.loc["y", "drifted"]
    assert "dog 0.0% to 18.2% (new)" in str(found.loc["y", "why"])
    found = compared(known(counts={"y": then}), known(counts={"y": {"ant": 300, "bee": 290}}))
    assert "cat 33.3% to 0.0% (gone)" in str(found.loc["y", "why"])
    found = compared(known(counts={"y": then}), known(counts={"y": {**then, "dog": 1}}))
    assert not found.loc["y", "drifted"]


def test_a_constant_that_becomes_another_has_drifted_and_one_that_stays_has_not() -> None:
    fives, sevens = known({"x": [5.0] * 100}), known({"x": [7.0] * 80})
    assert not compared(fives, known({"x": [5.0] * 70})).loc["x", "drifted"]
    assert compared(fives, sevens).loc["x", "drifted"]
    one = {"y": {"only": 100, "never": 0}}
    assert not compared(known(counts=one), known(counts=one)).loc["y", "drifted"]


def test_a_feature_that_only_one_side_has_has_drifted() -> None:
    found = compared(known({"points": [1]}, {"y": {"a": 1}}), known({"ink": [1]}, {"y": {"a": 0}}))
    assert found["drifted"].all()
    assert found["why"].tolist() == [f"the feature is {w}" for w in ("gone", "gone", "new")]
    assert found["psi"].isna().all()


# Profiles of drawings


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {word: [drawn(word, i) for i in range(900)] for word in CLASSES}
    return raw(tmp_path_factory.mktemp("profile") / "raw", files)


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    return prepared(source, source.parent / "data", shard_size=700)


def profile(folder: Path) -> Profile:
    return Profile.read(folder / "profile.json")


def slow(rows: np.ndarray) -> list[float]:
    """The numbers of a drawing, stroke by stroke."""
    tracks = [track.astype(float) for track in strokes.from_stroke3(rows)]
    ink = sum(np.hypot(*np.diff(track, axis=0).T).sum() for track in tracks)
    width, height = np.ptp(np.concatenate(tracks), axis=0)
    aspect = width / (width + height) if width + height else 0.5
    return [len(rows), len(tracks), round(float(ink), 1), round(float(aspect), 4)]


def test_a_drawings_numbers_are_those_of_its_strokes(folder: Path) -> None:
    found: Any = dataset.load(folder).examples("train", 200)
    unfinished = np.array([[3, 4, 0], [0, 8, 1], [5, 0, 0]], np.int16)
    dot = np.array([[7, 7, 1]], np.int16)
    several = [*found, unfinished, dot]
    ends = np.cumsum([len(rows) * 6 for rows in several])
    content = np.concatenate(several).reshape(-1).view(np.uint8)
    wanted = np.array([slow(rows) for rows in several])
    np.testing.assert_allclose(profiles.features(content, ends, "strokes"), wanted, atol=0.11)
    assert wanted[-2:].tolist() == [[3, 2, 8, 0.3846], [1, 1, 0, 0.5]]


def test_a_profile_is_a_random_sample_of_the_training_drawings(folder: Path) -> None:
    found = profile(folder)
    drawings: Any = dataset.load(folder).examples("train")
    labels = Counter(CLASSES[label] for label in drawings.labels)
    assert found.counts == {"category": dict(sorted(labels.items()))}
    assert found.examples == len(drawings) > SAMPLE
    numbers = dict(zip(found.numbers, np.array([slow(rows) for rows in drawings]).T, strict=True))
    for name, sample in found.numbers.items():
        assert len(sample) == SAMPLE
        assert sample == sorted(sample)
        assert stats.ks_2samp(sample, numbers[name]).pvalue > 0.01
    assert (folder / "profile.json").stat().st_size < 200_000


@pytest.mark.parametrize(
    "changed", [{"shard_size": 40}, {"shard_size": 10**6, "workers": 1}], ids=str
)
def test_a_profile_does_not_depend_on_how_the_data_are_stored(
    source: Path, folder: Path, tmp_path: Path, changed: dict[str, int]
) -> None:
    assert profile(prepared(source, tmp_path / "again", **changed)) == profile(folder)


def test_a_profile_tells_longer_drawings_and_other_classes(
    source: Path, folder: Path, tmp_path: Path
) -> None:
    again = [drawn(word, i) for word in CLASSES for i in range(900, 1800)]
    same = raw(tmp_path / "same", {"more": again}, words=True)
    found = compared(profile(folder), profile(prepared(same, tmp_path / "1")))
    assert not found["drifted"].any(), "other drawings of the same kind"
    short = prepared(source, tmp_path / "2", max_points=25)
    found = compared(profile(folder), profile(short))
    assert set(found.index[found["drifted"]]) >= {"points", "strokes", "ink length"}
    assert not found.loc["category", "drifted"]
    fewer = raw(tmp_path / "fewer", {w: [drawn(w, i) for i in range(900)] for w in CLASSES[:2]})
    found = compared(profile(folder), profile(prepared(fewer, tmp_path / "3")))
    assert found.index[found["drifted"]].tolist() == ["category"]


def test_the_profile_of_bitmaps_is_their_ink() -> None:
    pixels = np.zeros((3, 4), np.uint8)
    pixels[1], pixels[2, 0] = 255, 255
    found = profiles.features(pixels.reshape(-1), np.array([4, 8, 12]), "bitmap")
    assert found.tolist() == [[0], [1], [0.25]]
    empty = np.empty(0, np.int64)
    assert profiles.features(empty.view(np.uint8), empty, "bitmap").shape == (0, 1)
