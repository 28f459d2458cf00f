"""Small series for tests: a CSV file, with errors where a test needs them, and its data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ostinato import params, store
from ostinato.forecasting import dataset, sources
from ostinato.forecasting.dataset import SeriesDataset

RULES: dict[str, Any] = {
    "horizon": 3,
    "window": 7,
    "season": 7,
    "stride": 1,
    "since": None,
    "until": None,
    "validation": 60,
    "calibration": 40,
    "test": 20,
    "timezone": None,
    "duplicates": "refuse",
    "gaps": "refuse",
    "longest_gap": 2,
    "zeros": "keep",
    "tolerated_rejects": 0.0,
    "calendar": ["weekday", "year", "holiday"],
    "country": "US",
    "subdivision": None,
    "scaling": "standard",
    "per": "series",
    "log": False,
}
COLUMNS: dict[str, Any] = {
    "date": "day",
    "date_format": None,
    "series": None,
    "target": "value",
    "past_covariates": ["other"],
    "future_covariates": ["kind"],
    "static_covariates": [],
    "frequency": "D",
    "stamps": "exact",
    "decimal": ".",
    "thousands": None,
    "missing": [],
    "timeout": 1.0,
    "retries": 1,
}
EVALUATION: dict[str, Any] = {
    "stride": 1,
    "intervals": [0.8, 0.95],
    "calibration_window": 5,
    "num_plots": 1,
    "batch_size": 64,
    "timed_requests": 1,
    "resamples": 100,
}


def table(days: int = 120, seed: int = 0) -> pd.DataFrame:
    """A weekly season with noise; all values are different."""
    random = np.random.default_rng(seed)
    times = pd.date_range("2020-01-01", periods=days)
    return pd.DataFrame(
        {
            "day": times.strftime("%Y-%m-%d"),
            "value": (20 + 5 * np.sin(times.day_of_week) + random.normal(size=days))
            .round(6)
            .astype(str),
            "other": random.normal(size=days).round(6).astype(str),
            "kind": np.where(times.day_of_week < 5, "work", "rest"),
        }
    )


def prepared(
    folder: Path, rows: pd.DataFrame | str, columns: dict[str, Any] | None = None, **rules: Any
) -> SeriesDataset:
    """The data set of a CSV file with ``rows``, prepared by RULES with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else rows.to_csv(index=False)
    (folder / "series.csv").write_text(text, encoding="utf-8")
    block = {**COLUMNS, **(columns or {}), "where": str(folder / "series.csv")}
    return fetched(folder, "csv", block, **rules)


def fetched(folder: Path, source: str, block: dict[str, Any], **rules: Any) -> SeriesDataset:
    """The data set of a source, prepared by RULES with changes."""
    for name in ("raw", "scratch", "data"):
        store.remove(folder / name)
        (folder / name).mkdir()
    fetch = params.bind(params.function(sources, source), block)
    fetch(folder / "raw", folder / "scratch", 1)
    params.bind(dataset.prepare, {**RULES, **rules})(folder / "raw", folder / "data")
    return dataset.load(folder / "data")


def counts(folder: Path) -> dict[str, int]:
    """The counts of the data set's manifest."""
    return dataset.load(folder / "data").details.counts
