"""What the monitor reads of served series and their forecasts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from ostinato.data.profile import sorted_sample
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset.cleaning import ReadReport, read_series
from ostinato.forecasting.evaluation import per_example
from ostinato.forecasting.formats.layout import Details, RawManifest
from ostinato.forecasting.histories import Input, read_times
from ostinato.forecasting.serving import from_responses
from ostinato.task import Json, Manifest, PerExample, Profile

METRIC = metrics.METRICS["mae"]


def input_profile(inputs: Sequence[Json], folder: Path) -> Profile:
    """The profile of served histories: their values, changes and weekdays.

    Histories overlap from one request to the next: a step of a series counts once.

    Args:
        inputs: of requests.
        folder: of the version.
    """
    details = Details.of(Manifest.read(folder / "manifest.json"))
    steps: dict[str, dict[pd.Timestamp, float]] = {}
    for number, each in enumerate(inputs):
        history = Input.model_validate(each)
        times = read_times(f"input {number}", history.dates, details.rules.timezone)
        values = [np.nan if value is None else value for value in history.values]  # noqa: PD011
        series = steps.setdefault(history.series or details.series[0], {})
        series.update(zip(times[-details.window :], values[-details.window :], strict=True))
    ordered = [np.array([series[time] for time in sorted(series)]) for series in steps.values()]
    found, changes = np.concatenate(ordered), np.concatenate(list(map(np.diff, ordered)))
    days = Counter(time.day_name() for series in steps.values() for time in series)
    return Profile(
        examples=len(found),
        numbers={
            "value": sorted_sample(found[np.isfinite(found)]),
            "change": sorted_sample(changes[np.isfinite(changes)]),
        },
        counts={"day": dict(days)},
    )


def answer_profile(responses: Sequence[Json]) -> Profile:
    """The distributions of the forecast values and of their changes from step to step."""
    return _profile(np.array([response["forecast"] for response in responses], np.float64))


def reference_profile(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], manifest: Manifest
) -> Profile:
    """The same of the forecasts of the test split, from the arrays of the evaluation."""
    return _profile(arrays["forecast"])


def confidence(responses: Sequence[Json]) -> Float[np.ndarray, " answer"] | None:
    """No estimate: the truth of a forecast comes by itself."""
    return None


def find_truths(
    inputs: Sequence[Json], responses: Sequence[Json], raw: Path, manifest: Manifest
) -> list[Json]:
    """The observed values at the dates of forecasts, from data that were fetched since.

    Args:
        inputs: of requests.
        responses: forecasts.
        raw: folder of the raw data, as fetched last.
        manifest: of the prepared data.

    Returns:
        For each forecast a list with null for what is not known yet; None where nothing is known.
    """
    details = Details.of(manifest)
    observed: dict[str, pd.Series[float]] = {}
    for series in read_series(RawManifest.read(raw), details.rules, ReadReport(), 1.0):
        size = len(series.target)
        grid = pd.date_range(series.first, periods=size, freq=details.frequency, unit="s")
        observed[series.name] = pd.Series(np.where(series.observed, series.target, np.nan), grid)
    truths: list[Json] = []
    for each, response in zip(inputs, responses, strict=True):
        known = observed.get(each.get("series") or details.series[0])
        if known is None:
            truths.append(None)
            continue
        dates = pd.DatetimeIndex(response["dates"]).astype(known.index.dtype)
        values = known.reindex(dates).to_numpy()
        listed = [None if np.isnan(value) else float(value) for value in values]
        truths.append(listed if any(value is not None for value in listed) else None)
    return truths


def is_truth(truth: Json, response: Json) -> bool:
    """Whether a label can be one: a number or null for each step."""
    return (
        isinstance(truth, list)
        and len(truth) == len(response["forecast"])
        and all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            for value in truth
        )
        and any(value is not None for value in truth)
    )


def judge(
    inputs: Sequence[Json], responses: Sequence[Json], truths: Sequence[Json], keys: Sequence[str]
) -> PerExample:
    """The errors of each forecast; the metrics that divide by a naive error have no value.

    Overlapping forecasts are correlated, so the clusters are those of the evaluation: by the first
    date of the forecast, in all series.
    """
    rows = [[np.nan if value is None else value for value in truth] for truth in truths]
    names = [(each or {}).get("series") or "" for each in inputs]
    places = [
        f"{name}@{response['dates'][0]}" for name, response in zip(names, responses, strict=True)
    ]
    arrays = from_responses(responses, np.array(rows, np.float64), ())
    scale = np.full(len(rows), np.nan)
    return per_example({**arrays, "keys": np.array(places, np.str_), "scale": scale})


def _profile(forecasts: Float[np.ndarray, "window horizon"]) -> Profile:
    return Profile(
        examples=len(forecasts),
        numbers={
            "forecast": sorted_sample(forecasts.ravel()),
            "change of the forecast": sorted_sample(np.diff(forecasts, axis=1).ravel()),
        },
    )
