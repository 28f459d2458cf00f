"""Whether data are still what they were: two profiles compared, feature by feature.

A profile is what a data set's ``profile.json`` holds, in every domain the same:

    {"numbers": {feature: [a sample of its values]},
     "counts": {feature: {category: how often}},
     "examples": how many}

Lengths are numbers; words of a vocabulary, classes and the like are categories.

In large samples every difference is significant, in small ones chance alone looks like drift. So
a feature has drifted only where both hold: the difference is significant, and it is large.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field
from scipy import stats

from ostinato.units import Count, Fraction

LEAST = 1e-4  # a share below this counts as this much: a logarithm is taken of it
NAMED = 3  # changed categories that are told by name

Profile = Mapping[str, Any]
Index = Annotated[float, Field(gt=0)]


def compare(
    reference: Profile,
    current: Profile,
    *,
    psi_threshold: Index,
    ks_threshold: Fraction,
    significance: Fraction,
    bins: Count,
) -> pd.DataFrame:
    """Compare what data are with what they were.

    The tests are Kolmogorov and Smirnov's of two samples for numbers, and Pearson's of homogeneity
    for categories. As many features are tested at once, each p is multiplied by their number
    (Bonferroni; Dunn 1961): the probability of any false alarm is at most ``significance``.

    Args:
        reference: the profile of the data as they were.
        current: the profile of the data as they are.
        psi_threshold: population stability index from which a difference is large; usually 0.1 is
            called moderate and 0.25 major (Siddiqi 2006, Credit Risk Scorecards).
        ks_threshold: Kolmogorov-Smirnov distance of numbers from which a difference is large.
        significance: of significance, for all features together.
        bins: into which numbers are cut for their index.

    Returns:
        A row for each feature: feature, kind (numbers or counts), psi, ks (NaN for counts), p
        (corrected), drifted, why. A feature that only one profile knows has drifted.
    """
    then, now = _features(reference), _features(current)
    tests = len(then.keys() & now.keys())
    rows = []
    for name, kind in {**then, **now}:
        side, other = then.get((name, kind)), now.get((name, kind))
        if not side or not other:
            why = f"the feature is {'gone' if side else 'new'}"
            rows.append([name, kind, np.nan, np.nan, np.nan, True, why])
            continue
        measured = _numbers(side, other, bins) if kind == "numbers" else _counts(side, other)
        index, distance, p = *measured[:2], min(1.0, measured[2] * tests)
        measures = (("PSI", index, psi_threshold), ("KS", distance, ks_threshold))
        large = [
            f"{word} {x:.3f} (at least {least:g})" for word, x, least in measures if x >= least
        ]
        drifted = bool(large) and p < significance
        why = "as it was" if p >= significance else "a small change"
        if large:
            why = " and ".join(large) if drifted else "chance may have done it"
        if kind == "counts" and p < significance:
            why += f": {told(changes(side, other))}"
        rows.append([name, kind, index, distance, p, drifted, why])
    return pd.DataFrame(rows, columns=["feature", "kind", "psi", "ks", "p", "drifted", "why"])


def stability_index(then: ArrayLike, now: ArrayLike) -> float:
    """Population stability index of two histograms: sum of (p - q) ln(p / q) over their shares.

    It is Jeffreys' divergence (1946), symmetric, 0 for equal shares. An empty bin counts as half
    an example, and at least as LEAST, so that what is new or gone neither is infinite nor weighs
    more the more examples there are.

    Args:
        then: (bin,): how many were in each.
        now: (bin,): the same bins.
    """
    a, b = np.asarray(then, np.float64), np.asarray(now, np.float64)
    least = max(LEAST, 0.5 / min(a.sum(), b.sum()))
    p, q = np.maximum(a / a.sum(), least), np.maximum(b / b.sum(), least)
    return float(np.sum((p - q) * np.log(p / q)))


def changes(then: Mapping[str, float], now: Mapping[str, float]) -> pd.DataFrame:
    """The share of each category then and now, largest change first: category, then, now."""
    names = sorted({*then, *now})
    shares = [[side.get(name, 0) / (sum(side.values()) or 1) for name in names]
              for side in (then, now)]  # fmt: skip
    table = pd.DataFrame({"category": names, "then": shares[0], "now": shares[1]})
    size = (table["now"] - table["then"]).abs()
    return table.iloc[np.argsort(-size.to_numpy(), kind="stable")].reset_index(drop=True)


def told(table: pd.DataFrame) -> str:
    """The largest of `changes` in words."""
    return ", ".join(
        f"{row['category']} {row['then']:.1%} to {row['now']:.1%}"
        + (" (new)" if not row["then"] else " (gone)" if not row["now"] else "")
        for row in table.head(NAMED).to_dict("records")
    )


def _features(profile: Profile) -> dict[tuple[str, str], Any]:
    """What a profile holds, by name and kind, without what there is none of."""
    counts = {
        name: {key: count for key, count in found.items() if count}
        for name, found in profile["counts"].items()
    }
    found = {"numbers": profile["numbers"], "counts": counts}
    return {(name, kind): x for kind in found for name, x in found[kind].items() if x}


def _numbers(then: Sequence[float], now: Sequence[float], bins: int) -> tuple[float, float, float]:
    # The bins hold equal shares of both samples together, so that neither side is special. Ties
    # make fewer of them; where all values are equal there is one.
    edges = np.unique(np.quantile([*then, *now], np.arange(1, bins) / bins))
    places = (np.searchsorted(edges, side) for side in (then, now))
    histograms = (np.bincount(place, minlength=len(edges) + 1) for place in places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ks_2samp: Exact", RuntimeWarning)  # near p = 1
        test = stats.ks_2samp(then, now)
    return stability_index(*histograms), float(test.statistic), float(test.pvalue)


def _counts(then: Mapping[str, int], now: Mapping[str, int]) -> tuple[float, float, float]:
    table = np.array([[side.get(name, 0) for name in {**then, **now}] for side in (then, now)])
    p = stats.chi2_contingency(table, correction=False).pvalue if table.shape[1] > 1 else 1.0
    return stability_index(*table), np.nan, float(p)
