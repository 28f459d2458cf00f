"""Put the values of one series on regular steps, and fill its gaps, in training and in serving."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from ostinato.forecasting.formats.layout import Gaps, Rules


class Regular(NamedTuple):
    """A series with a value at each step, from its first measured value to its last.

    Attributes:
        begin: step on the grid at which it begins.
        rows: for each step the index of its row, or of the row before where it has none.
        target: its values.
        observed: False where a value was missing and is filled in.
        covariates: cells by column; "" where a cell is missing.
    """

    begin: int
    rows: Integer[np.ndarray, " step"]
    target: Float[np.ndarray, " step"]
    observed: Bool[np.ndarray, " step"]
    covariates: dict[str, Shaped[np.ndarray, " step"]]


def to_regular(
    steps: Integer[np.ndarray, " row"],
    values: Float[np.ndarray, " row"],
    covariates: Mapping[str, Shaped[np.ndarray, " row"]],
    rules: Rules,
) -> Regular | None:
    """Put rows on regular steps and fill the gaps; None where no row has a value.

    A gap is filled from the past only, so that no window sees its future through it.

    Args:
        steps: of the rows on a grid, increasing.
        values: NaN where missing; a zero is missing where the rules say so.
        covariates: cells by column.
        rules: of cleaning.
    """
    if rules.zeros == "missing":
        values = np.where(values == 0, np.nan, values)
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return None
    inside = slice(int(finite[0]), int(finite[-1]) + 1)
    begin = int(steps[inside.start])
    at = steps[inside] - begin
    size = int(at[-1]) + 1
    target, rows = np.full(size, np.nan), np.zeros(size, int)
    target[at], rows[at] = values[inside], np.arange(inside.start, inside.stop)
    rows = np.maximum.accumulate(rows)
    found = {name: np.full(size, "", object) for name in covariates}
    for name, column in covariates.items():
        found[name][at] = column[inside]
    observed = np.isfinite(target)
    return Regular(begin, rows, _fill(target, rules.gaps, rules.season), observed, found)


def refused_gaps(observed: Bool[np.ndarray, " step"], rules: Rules) -> Iterator[tuple[int, int]]:
    """The first step of each gap that the rules refuse, and the first step after it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], observed, [True]]).astype(int)))
    for start, end in edges.reshape(-1, 2).tolist():
        if rules.gaps == "refuse" or end - start > rules.longest_gap:
            yield start, end


def rule_of(rules: Rules) -> str:
    """The rule that refuses a gap, in words."""
    return "gaps is refuse" if rules.gaps == "refuse" else f"longest_gap is {rules.longest_gap}"


def _fill(
    target: Float[np.ndarray, " step"], rule: Gaps, season: int
) -> Float[np.ndarray, " step"]:
    """Fill gaps with the value of a season ago, or the last one: from the past only.

    Interpolation would show a window that ends inside a gap its future.
    """
    filled = target.copy()
    for step in np.flatnonzero(~np.isfinite(target)):
        lag = season if rule == "seasonal" and step >= season else 1
        filled[step] = filled[step - lag]
    return filled
