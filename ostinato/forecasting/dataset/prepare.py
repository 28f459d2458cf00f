"""Raw series to a prepared data set: cleaned, split by time, with features and scales."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int64, Integer
from pydantic import Field

from ostinato import store
from ostinato.errors import DataError
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.advice import warn
from ostinato.forecasting.dataset.cleaning import ReadReport, Series, read_series
from ostinato.forecasting.dataset.windows import SPLITS, fit_scale, split_origins, to_model_units
from ostinato.forecasting.formats.layout import (
    COVARIATES,
    Calendar,
    CalendarFeatures,
    Coding,
    Details,
    Duplicates,
    Gaps,
    RawManifest,
    Rules,
    ScaledBy,
    Scaling,
    Zeros,
)
from ostinato.forecasting.formats.numbers import Notation
from ostinato.forecasting.formats.times import read_iso
from ostinato.task import Manifest, Profile
from ostinato.units import Count, Fraction, Length

SplitBegin = Annotated[int, Field(ge=1)] | str
"""Where a split begins: steps before the end of each series, or a date."""

PROFILE_SAMPLE = 1000  # values of each feature in profile.json


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
    validation: SplitBegin,
    calibration: SplitBegin | None,
    test: SplitBegin,
    timezone: str | None,
    duplicates: Duplicates,
    gaps: Gaps,
    longest_gap: Count,
    zeros: Zeros,
    tolerated_rejects: Fraction,
    calendar: list[Calendar],
    country: str | None,
    subdivision: str | None,
    scaling: Scaling,
    per: ScaledBy,
    log: bool,
) -> None:
    """Clean raw series, put them on a regular grid, split them by time, and scale them.

    Args:
        raw: folder that a source has written.
        folder: empty; gets series.npz, manifest.json, profile.json and rejects.csv.
        horizon: steps that are forecast.
        window: steps that a model reads before the origin.
        season: steps of a season: 7 for days, 24 for hours.
        stride: steps between the origins of two training windows.
        since: the first time that is used; null: all.
        until: the last time that is used, or the whole last day, month or year; null: all.
        validation: where validation begins and training ends: steps before the end of each series,
            or a date.
        calibration: where the calibration of the intervals begins, likewise; null: calibration
            uses the validation split.
        test: where the test split begins, likewise; it goes to the end.
        timezone: whose wall time is used where times carry an offset from UTC; null refuses such
            times. Use UTC for steps shorter than a day: other zones repeat an hour in autumn.
        duplicates: what to do with rows that contradict each other about a time: refuse them, or
            keep the first or the last. Equal rows count as one.
        gaps: what to do with missing steps: refuse them, or fill them with the last value
            (forward) or that of the last season (seasonal). A served model fills the gaps of a
            request by the same rule.
        longest_gap: steps; a longer gap is an error.
        zeros: whether a target of zero is a value (keep) or missing.
        tolerated_rejects: share of the rows that may be unreadable.
        calendar: features of the date; see `features.calendar`.
        country: ISO code of the country whose holidays are used; null: none.
        subdivision: of the country, such as a state; null: the whole country.
        scaling: how the target is scaled; see `windows.fit_scale`.
        per: the data that a scale is fitted on: the training part of each series (a series
            without one is left out), that of all series together, or, where levels differ or
            drift, the past of each window.
        log: take log(1 + value) before scaling.

    Raises:
        DataError: a rule refuses a row (the message names it), too many rows are unreadable, a
            split is empty, or a logarithm does not exist.
    """
    manifest, report = RawManifest.read(raw), ReadReport()
    rules = Rules(since, until, timezone, duplicates, gaps, longest_gap, zeros, season)
    series = read_series(manifest, rules, report, tolerated_rejects)
    grid, first = _grid(series, manifest.frequency, horizon)
    lengths = np.array([len(each.target) for each in series])
    begins = (validation, validation if calibration is None else calibration, test)
    bounds = _bounds(begins, grid, first, lengths)
    if not bounds[:, 1].any():
        raise DataError(
            f"prepare: the training split is empty: the longest series has {lengths.max()} steps, "
            f"and validation begins at {validation}; use smaller values (or later dates) of "
            "validation, calibration and test"
        )
    if per == "series" and not (scalable := bounds[:, 1] > 0).all():
        for index in np.flatnonzero(~scalable):
            short = series[index]
            reason = (
                f"has no training step to fit a scale on: {lengths[index]} steps, and validation "
                f"begins at {validation}; see `per`"
            )
            report.leave_out(short.file, int(short.rows[0]), short.name, reason)
        series = [each for each, keep in zip(series, scalable, strict=True) if keep]
        first, lengths, bounds = first[scalable], lengths[scalable], bounds[scalable]
    report.counts["series"] = len(series)
    training = bounds[:, 1].tolist()
    codings = {
        kind: [
            _learn_coding(series, column, training, manifest.notation)
            for column in manifest.covariates(kind)
        ]
        for kind in COVARIATES
    }
    past, future, static = (
        _encode(series, codings[kind], manifest.notation, report) for kind in COVARIATES
    )
    report.check(tolerated_rejects)
    wanted = CalendarFeatures(calendar, country, subdivision)
    try:
        calendar_names, calendar_values = features.calendar(grid, wanted)
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"prepare: {error}") from None
    target = np.concatenate([each.target for each in series])
    if log and (lowest := float(target.min())) <= -1:
        raise DataError(f"log: needs values above -1, and the least is {lowest}; set log: false")
    centre, spread = _scales(series, training, scaling, per, log)
    ends = np.cumsum(lengths)
    store.write_arrays(
        folder / "series.npz",
        {
            "target": target,
            "observed": np.concatenate([each.observed for each in series]),
            "past": past,
            "future": future,
            "calendar": calendar_values,
            "static": static[ends - 1],
            "lengths": lengths,
            "first": first,
            "bounds": bounds,
            "centre": np.array(centre),
            "spread": np.array(spread),
            "times": grid.to_numpy().astype("datetime64[s]"),
        },
    )
    columns = ["file", "row", "column", "value", "reason"]
    store.write_table(folder / "rejects.csv", pd.DataFrame(report.rejects, columns=columns))
    sizes = _sizes(bounds, window=window, horizon=horizon, stride=stride)
    details = Details(
        frequency=manifest.frequency,
        horizon=horizon,
        window=window,
        season=season,
        stride=stride,
        scaling=scaling,
        per=per,
        log=log,
        rules=rules,
        notation=manifest.notation,
        stamps=manifest.stamps,
        calendar=wanted,
        codings=codings,
        features={
            **{k: [name for each in codings[k] for name in each.names] for k in COVARIATES},
            "calendar": calendar_names,
        },
        first=grid[0].isoformat(),
        last=grid[-horizon - 1].isoformat(),
        steps=int(lengths.sum()),
        rejects=len(report.rejects),
        counts=dict(sorted(report.counts.items())),
        digest=store.digest(folder / "series.npz"),
        series=[each.name for each in series],
        centre=centre,
        spread=spread,
    )
    prepared = Manifest(
        source=manifest.source,
        examples="windows",
        splits={split: {"windows": size} for split, size in sizes.items()},
        details=details.to_json(),
    )
    store.write_json(folder / "manifest.json", prepared.to_json())
    profile = _profile(series, training, first, grid)
    store.write_json(folder / "profile.json", profile.to_json())
    warn(series, details, bounds, report)


def _grid(
    series: list[Series], frequency: str, horizon: int
) -> tuple[pd.DatetimeIndex, Integer[np.ndarray, " series"]]:
    """The times of all series and of a horizon after them; the index of each series' first."""
    longest: dict[pd.Timestamp, int] = {}
    for each in series:
        longest[each.first] = max(longest.get(each.first, 0), len(each.target))
    last = max(pd.date_range(f, periods=n, freq=frequency)[-1] for f, n in longest.items())
    span = pd.date_range(min(longest), last, freq=frequency, unit="s")
    grid = pd.date_range(min(longest), periods=len(span) + horizon, freq=frequency, unit="s")
    first = grid.get_indexer(pd.DatetimeIndex([each.first for each in series]))
    return grid, first


def _bounds(
    begins: tuple[SplitBegin, ...],
    grid: pd.DatetimeIndex,
    first: Integer[np.ndarray, " series"],
    lengths: Integer[np.ndarray, " series"],
) -> Int64[np.ndarray, "series 5"]:
    """The step of each series at which each split begins, and at which the last one ends."""
    columns = [np.zeros_like(lengths)]
    for key, begin in zip(("validation", "calibration", "test"), begins, strict=True):
        if isinstance(begin, int):
            steps = lengths - begin
        else:
            steps = grid.searchsorted(read_iso(key, begin).start_time) - first
        columns.append(np.clip(steps, 0, lengths))
    bounds = np.stack([*columns, lengths], axis=1)
    if (np.diff(bounds, axis=1) < 0).any():
        raise DataError(
            f"prepare: validation {begins[0]}, calibration {begins[1]} and test {begins[2]} must "
            "begin in this order"
        )
    return bounds


def _sizes(
    bounds: Int64[np.ndarray, "series 5"], *, window: int, horizon: int, stride: int
) -> dict[str, int]:
    """The number of windows of each split; an error where one has none."""
    sizes = {
        split: int(
            split_origins(bounds, split, window=window, horizon=horizon, stride=stride)[1].sum()
        )
        for split in SPLITS
    }
    if empty := [split for split, size in sizes.items() if not size]:
        steps = bounds[:, -1].max()
        raise DataError(
            f"prepare: no window of {window} + {horizon} steps fits into {' and '.join(empty)}; "
            f"the longest series has {steps} steps. Move the beginning of a split (validation, "
            "calibration, test), or shorten window or horizon"
        )
    return sizes


def _scales(
    series: list[Series], training: list[int], scaling: Scaling, per: ScaledBy, log: bool
) -> tuple[list[float], list[float]]:
    """Centre and spread of each series; 0 and 1 where each window has its own scale."""
    parts = [
        to_model_units(each.target[:stop], log=log)
        for each, stop in zip(series, training, strict=True)
    ]
    if per == "all":
        scales = [fit_scale(np.concatenate(parts)[None], scaling)] * len(series)
    else:
        scales = [fit_scale(part[None], scaling if per != "window" else "none") for part in parts]
    return [float(centre.item()) for centre, _ in scales], [float(s.item()) for _, s in scales]


def _learn_coding(
    series: list[Series], column: str, training: list[int], notation: Notation
) -> Coding:
    """The coding of a column, learned from the training part of all series."""
    parts = [s.covariates[column][:stop] for s, stop in zip(series, training, strict=True)]
    ends = np.cumsum([len(part) for part in parts])

    def place(index: int) -> str:
        number = int(np.searchsorted(ends, index, side="right"))
        step = index - int(ends[number] - len(parts[number]))
        return f"{series[number].file}:{series[number].rows[step]}"

    return features.learn_coding(column, np.concatenate(parts), notation, place)


def _encode(
    series: list[Series], codings: list[Coding], notation: Notation, report: ReadReport
) -> Float32[np.ndarray, "step feature"]:
    """Columns of all series as features, one series after the other."""
    tables = [np.zeros((sum(len(each.target) for each in series), 0), np.float32)]
    for coding in codings:
        parts = []
        for part in series:
            cells = part.covariates[coding.column]
            table, unread = features.encode(coding, cells, notation)
            parts.append(table)
            report.counts["missing_cells"] += int((cells == "").sum())
            report.counts["unknown_cells"] += len(unread)
            for index in unread if coding.categories is None else ():
                row, cell = int(part.rows[index]), str(cells[index])
                report.reject(part.file, row, coding.column, cell, "not a number")
        tables.append(np.concatenate(parts))
    return np.concatenate(tables, axis=1)


def _profile(
    series: list[Series],
    training: list[int],
    first: Integer[np.ndarray, " series"],
    grid: pd.DatetimeIndex,
) -> Profile:
    """Distributions of the training part: values, steps' changes, lengths and weekdays."""
    parts = [each.target[:stop] for each, stop in zip(series, training, strict=True)]
    names, codes = np.unique(grid.day_name(), return_inverse=True)
    before = np.zeros((len(grid) + 1, len(names)), int)  # days of each name before a step
    before[1:] = np.cumsum(codes[:, None] == np.arange(len(names)), axis=0)
    counts = (before[first + training] - before[first]).sum(axis=0)
    return Profile(
        examples=int(sum(map(len, parts))),
        numbers={
            "value": _sample(np.concatenate(parts)),
            "change": _sample(np.concatenate([np.diff(part) for part in parts])),
            "length": _sample(np.array([float(len(each.target)) for each in series])),
        },
        counts={"day": dict(zip(names.tolist(), counts.tolist(), strict=True))},
    )


def _sample(values: Float[np.ndarray, " value"]) -> list[float]:
    """At most ``PROFILE_SAMPLE`` of the values, sorted, at equal distances of rank."""
    ordered = np.sort(values)
    count = min(PROFILE_SAMPLE, len(ordered))
    ranks = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [float(value) for value in ordered[ranks]]
