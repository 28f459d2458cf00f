"""The domain's face: raw series to clean and split ones, and those as windows for training."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from ostinato import store
from ostinato.errors import DataError
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.cleaning import Rules, Series, Told, read
from ostinato.forecasting.dataset.features import Calendar
from ostinato.forecasting.dataset.windows import SPLITS, Data, origins, scale
from ostinato.units import Count, Fraction, Length

__all__ = ["DataError", "load", "prepare"]

Array = NDArray[Any]
Begin = str | Annotated[int, Field(ge=1)]
"""Where a split begins: a date, or so many steps before the end of each series."""

SAMPLE = 1000  # values of each kind in profile.json

load = Data


def prepare(
    raw: Path,
    folder: Path,
    *,
    horizon: Length,
    window: Length,
    season: Length,
    stride: Count,
    since: str | None,
    until: str | None,
    validation: Begin,
    calibration: Begin | None,
    test: Begin,
    timezone: str | None,
    duplicates: Literal["refuse", "first", "last"],
    gaps: Literal["refuse", "forward", "seasonal"],
    longest_gap: Count,
    zeros: Literal["keep", "missing"],
    tolerated_rejects: Fraction,
    calendar: list[Calendar],
    country: str | None,
    subdivision: str | None,
    scaling: Literal["standard", "min_max", "robust", "none"],
    per: Literal["series", "all", "window"],
    log: bool,
) -> None:
    """Write raw series clean, on a regular grid, split by time, with features and scales.

    Args:
        raw: a folder with a manifest, as the sources fill it.
        folder: an empty folder; gets ``series.npz``, ``manifest.json``, ``profile.json`` and
            ``rejects.csv``.
        horizon: steps that are forecast.
        window: steps that a model reads before it forecasts.
        season: steps after which the series resembles itself: 7 for days, 24 for hours.
        stride: steps between the origins of two training windows.
        since: the first time that counts; null for all.
        until: the last one, or the day, month or year with it; null for all.
        validation: where validation begins and training ends: a date, or steps before the end.
        calibration: where the part for the intervals' widths begins; null: it is validation's.
        test: where the test begins; it goes to the end.
        timezone: whose wall time counts where times carry an offset from UTC; null refuses them.
            UTC for steps shorter than a day: elsewhere an hour comes twice in autumn.
        duplicates: rows that contradict each other about a time: an error, or which one counts.
            Rows that agree are one.
        gaps: missing steps: an error, or filled with the last value or that of a season ago.
        longest_gap: more missing steps in a row are an error.
        zeros: whether a target of zero is one, or is missing.
        tolerated_rejects: share of the rows in which something may be unreadable.
        calendar: features of the date; see ``features.calendar``.
        country: whose holidays count, as an ISO code; null where none do.
        subdivision: of the country, such as a state; null for the whole.
        scaling: how the target is scaled for the network.
        per: what a scale is fitted on: a series' training part (a series that has none is left
            out, as a reject), that of all, or, where levels differ or drift, each window's own
            past.
        log: take log(1 + value) before scaling.

    Raises:
        DataError: a rule refuses a row (the message names it), too much is unreadable, a split is
            empty, or a logarithm does not exist.
    """
    about, told = store.read_json(raw / "manifest.json"), Told()
    rules = Rules(since, until, timezone, duplicates, gaps, longest_gap, zeros, season)
    series = read(raw, about, rules, told, tolerated_rejects)
    grid, first = _grid(series, about["frequency"], horizon)
    lengths = np.array([len(each.target) for each in series])
    marks = (validation, validation if calibration is None else calibration, test)
    bounds = _bounds(marks, grid, first, lengths)
    if per == "series" and not (scalable := bounds[:, 1] > 0).all():
        for place in np.flatnonzero(~scalable):
            file, late = about["files"][0]["path"], series[place]
            reason = "has no step of training to scale it by; see `per`"
            told.reject(file, late.row, "series", late.name, reason)
        told.tolerate(tolerated_rejects if scalable.any() else 0.0)  # never all of them
        series = [each for each, has in zip(series, scalable, strict=True) if has]
        first, lengths, bounds = first[scalable], lengths[scalable], bounds[scalable]
    told.counts["series"] = len(series)
    columns = about.get("columns", {"past": [], "known": [], "static": []})
    training = [bound[1] for bound in bounds]
    codes = {part: _codes(series, columns[part], training) for part in ("past", "known", "static")}
    past, known, static = (_coded(series, codes[part], told) for part in codes)
    try:
        dated, table = features.calendar(grid, calendar, country, subdivision)
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"prepare: {error}") from None
    target = np.concatenate([each.target for each in series])
    if log and (low := float(target.min())) <= -1:
        raise DataError(f"log: needs values above -1, and the least is {low}; set log: false")
    parts = [each.target[:stop] for each, stop in zip(series, training, strict=True)]
    scaled = [np.log1p(part) if log else part for part in parts]
    if per == "all":
        scales = [scale(np.concatenate(scaled)[None], scaling)] * len(series)
    else:
        scales = [scale(part[None], scaling if per != "window" else "none") for part in scaled]
    centres, spreads = (
        [float(value.item()) for value in part] for part in zip(*scales, strict=True)
    )
    ends = np.cumsum(lengths)
    store.write_arrays(
        folder / "series.npz",
        {
            "target": target,
            "observed": np.concatenate([each.observed for each in series]),
            "past": past,
            "known": known,
            "calendar": table,
            "static": static[ends - 1],
            "lengths": lengths,
            "first": first,
            "bounds": bounds,
            "centre": np.array(centres),
            "spread": np.array(spreads),
            "times": grid.to_numpy().astype("datetime64[s]"),
        },
    )
    rejects = pd.DataFrame(told.rejects, columns=["file", "row", "column", "value", "reason"])
    store.write_table(folder / "rejects.csv", rejects)
    sizes = {s: int(origins(bounds, s, window, horizon, stride)[1].sum()) for s in SPLITS}
    if empty := [split for split, size in sizes.items() if not size]:
        raise DataError(
            f"no window of {window} + {horizon} steps lies in {' and '.join(empty)} "
            f"({lengths.max()} steps at most in a series); move the beginning of a split, or "
            "shorten window or horizon"
        )
    manifest = {
        "source": about["source"],
        "frequency": about["frequency"],
        "horizon": horizon,
        "window": window,
        "season": season,
        "stride": stride,
        "scaling": scaling,
        "per": per,
        "log": log,
        "rules": rules._asdict(),
        "from": str(grid[0]),
        "to": str(grid[-horizon - 1]),
        "steps": int(lengths.sum()),
        "rejects": len(told.rejects),
        "counts": dict(sorted(told.counts.items())),
        "features": {
            **{
                part: [name for code in each for name in code.names] for part, each in codes.items()
            },
            "calendar": dated,
        },
        "codes": {part: [code._asdict() for code in each] for part, each in codes.items()},
        "calendar": {"kinds": calendar, "country": country, "subdivision": subdivision},
        "splits": {split: {"windows": size} for split, size in sizes.items()},
        "digest": store.digest(folder / "series.npz"),
        "centre": centres,
        "spread": spreads,
        "series": [each.name for each in series],
    }
    store.write_json(folder / "manifest.json", manifest)
    store.write_json(folder / "profile.json", _profile(series, training, first, grid))


def _grid(
    series: list[Series], frequency: str, horizon: int
) -> tuple[pd.DatetimeIndex, NDArray[np.int64]]:
    """The times of all series, and the place of each one's first."""
    longest: dict[pd.Timestamp, int] = {}
    for each in series:
        longest[each.first] = max(longest.get(each.first, 0), len(each.target))
    last = max(pd.date_range(f, periods=n, freq=frequency)[-1] for f, n in longest.items())
    span = pd.date_range(min(longest), last, freq=frequency, unit="s")
    grid = pd.date_range(min(longest), periods=len(span) + horizon, freq=frequency, unit="s")
    first = grid.get_indexer(pd.DatetimeIndex([each.first for each in series]))
    return grid, first


def _bounds(
    marks: tuple[str | int, ...],
    grid: pd.DatetimeIndex,
    first: Array,
    lengths: Array,
) -> Array:
    """Where each series' splits begin and the last one ends, int64 (series, 5), in its steps."""
    columns = [np.zeros_like(lengths)]
    for mark in marks:
        if isinstance(mark, int):
            begin = lengths - mark
        else:
            try:
                begin = grid.searchsorted(pd.Timestamp(mark)) - first
            except ValueError:
                raise DataError(f"prepare: {mark!r} is no date, such as 2014-12-31") from None
        columns.append(np.clip(begin, 0, lengths))
    bounds = np.stack([*columns, lengths], axis=1)
    if (np.diff(bounds, axis=1) < 0).any():
        raise DataError(
            f"prepare: validation {marks[0]}, calibration {marks[1]} and test {marks[2]} must "
            "begin in this order"
        )
    return bounds


def _codes(series: list[Series], columns: list[str], training: list[int]) -> list[features.Coding]:
    """How columns become numbers, learned from the training part of all series."""
    return [
        features.learn(
            column,
            np.concatenate(
                [s.covariates[column][:stop] for s, stop in zip(series, training, strict=True)]
            ),
        )
        for column in columns
    ]


def _coded(series: list[Series], codes: list[features.Coding], told: Told) -> Array:
    """Columns of all series as features, float32 (step of all series, feature)."""
    tables = [np.zeros((sum(len(each.target) for each in series), 0), np.float32)]
    for code in codes:
        coded = [features.encode(code, each.covariates[code.column]) for each in series]
        tables.append(np.concatenate([table for table, _ in coded]))
        told.counts["strange"] += sum(strange for _, strange in coded)
        told.counts["blank"] += sum(int((s.covariates[code.column] == "").sum()) for s in series)
    return np.concatenate(tables, axis=1)


def _profile(
    series: list[Series], training: list[int], first: Array, grid: pd.DatetimeIndex
) -> dict[str, Any]:
    """What the training part is like, for a later check of drift: samples and counts."""
    parts = [each.target[:stop] for each, stop in zip(series, training, strict=True)]
    steps = [np.diff(part) for part in parts]
    names, codes = np.unique(grid.day_name(), return_inverse=True)
    before = np.zeros((len(grid) + 1, len(names)), int)  # days of each name before a step
    before[1:] = np.cumsum(codes[:, None] == np.arange(len(names)), axis=0)
    counts = (before[first + training] - before[first]).sum(axis=0)
    return {
        "numbers": {
            "value": _sample(np.concatenate(parts)),
            "change": _sample(np.concatenate(steps)),
            "length": _sample(np.array([len(each.target) for each in series])),
        },
        "counts": {"day": dict(zip(names.tolist(), counts.tolist(), strict=True))},
        "examples": int(sum(map(len, parts))),
    }


def _sample(values: Array) -> list[float]:
    """At most ``SAMPLE`` of the values, sorted, evenly over their ranks."""
    ordered = np.sort(values)
    places = np.linspace(0, len(ordered) - 1, min(SAMPLE, len(ordered))).round().astype(int)
    return [float(value) for value in ordered[places]]
