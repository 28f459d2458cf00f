"""Drift: two profiles of a data set compared, feature by feature.

In large samples every difference is significant, and in small ones noise looks like drift. So a
feature has drifted only if its difference is both significant and large.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field
from scipy import stats

from ostinato.task import Profile
from ostinato.units import Count, Fraction

MIN_SHARE = 1e-4  # a smaller share counts as this one, because the index takes its logarithm
NUM_CATEGORIES = 3  # changed categories that a reason names

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
    """Compare the profile of current data with a reference.

    Numeric features are tested by the two-sample Kolmogorov-Smirnov test, categorical ones by
    Pearson's test of homogeneity. Each p value is multiplied by the number of features (Bonferroni;
    Dunn 1961), so the probability of any false alarm is at most ``significance``.

    Args:
        reference: profile of the earlier data.
        current: profile of the new data.
        psi_threshold: population stability index from which a difference is large; usually 0.1 is
            called moderate and 0.25 major (Siddiqi 2006, Credit Risk Scorecards).
        ks_threshold: Kolmogorov-Smirnov distance of a numeric feature from which a difference is
            large.
        significance: level of significance, for all features together.
        bins: number of bins of a numeric feature for the population stability index.

    Returns:
        A row for each feature: feature, kind (numbers or counts), psi, ks (NaN for counts), p
        (corrected), drifted, why. A feature of only one of the profiles has drifted.
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
        why = "unchanged" if p >= significance else "a small change"
        if large:
            why = " and ".join(large) if drifted else "not significant"
        if kind == "counts" and p < significance:
            why += f": {summary(changes(side, other))}"
        rows.append([name, kind, index, distance, p, drifted, why])
    return pd.DataFrame(rows, columns=["feature", "kind", "psi", "ks", "p", "drifted", "why"])


def stability_index(then: ArrayLike, now: ArrayLike) -> float:
    """Population stability index of two histograms: sum of (p - q) ln(p / q) over their shares.

    This is Jeffreys' divergence (1946): symmetric, and 0 for equal shares. An empty bin counts as
    half an example, and at least as `MIN_SHARE`. So the index of a new or missing category is
    finite, and does not grow with the number of examples.

    Args:
        then: number of examples in each bin.
        now: the same of the other histogram.
    """
    a, b = np.asarray(then, np.float64), np.asarray(now, np.float64)
    least = max(MIN_SHARE, 0.5 / min(a.sum(), b.sum()))
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


def summary(table: pd.DataFrame) -> str:
    """The largest of `changes` as text."""
    return ", ".join(
        f"{row['category']} {row['then']:.1%} to {row['now']:.1%}"
        + (" (new)" if not row["then"] else " (gone)" if not row["now"] else "")
        for row in table.head(NUM_CATEGORIES).to_dict("records")
    )


def _features(profile: Profile) -> dict[tuple[str, str], Any]:
    """The features of a profile by name and kind, without empty ones."""
    counts = {
        name: {key: count for key, count in categories.items() if count}
        for name, categories in profile.counts.items()
    }
    features: dict[str, Mapping[str, Any]] = {"numbers": profile.numbers, "counts": counts}
    return {(name, kind): x for kind in features for name, x in features[kind].items() if x}


def _numbers(then: Sequence[float], now: Sequence[float], bins: int) -> tuple[float, float, float]:
    # The bins hold equal shares of the two samples together, so the index is symmetric. Ties give
    # fewer bins; equal values give one.
    edges = np.unique(np.quantile([*then, *now], np.arange(1, bins) / bins))
    indices = (np.searchsorted(edges, side) for side in (then, now))
    histograms = (np.bincount(index, minlength=len(edges) + 1) for index in indices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ks_2samp: Exact", RuntimeWarning)  # near p = 1
        test = stats.ks_2samp(then, now)
    return stability_index(*histograms), float(test.statistic), float(test.pvalue)


def _counts(then: Mapping[str, int], now: Mapping[str, int]) -> tuple[float, float, float]:
    table = np.array([[side.get(name, 0) for name in {**then, **now}] for side in (then, now)])
    p = stats.chi2_contingency(table, correction=False).pvalue if table.shape[1] > 1 else 1.0
    return stability_index(*table), np.nan, float(p)
