"""Small series for tests: a CSV file with chosen dirt, and what prepare makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ostinato import params, store
from ostinato.forecasting import dataset, sources

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
    "timeout": 1.0,
    "retries": 1,
}


def table(days: int = 120, seed: int = 0) -> pd.DataFrame:
    """A weekly rhythm with noise; every value another."""
    random = np.random.default_rng(seed)
    at = pd.date_range("2020-01-01", periods=days)
    return pd.DataFrame(
        {
            "day": at.strftime("%Y-%m-%d"),
            "value": (20 + 5 * np.sin(at.day_of_week) + random.normal(size=days))
            .round(6)
            .astype(str),
            "other": random.normal(size=days).round(6).astype(str),
            "kind": np.where(at.day_of_week < 5, "work", "rest"),
        }
    )


def prepared(folder: Path, rows: pd.DataFrame | str, columns: Any = None, **rules: Any) -> Any:
    """The data set that prepare makes of a CSV file with ``rows``, by RULES with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else rows.to_csv(index=False)
    (folder / "series.csv").write_text(text, encoding="utf-8")
    for name in ("raw", "scratch", "data"):
        store.remove(folder / name)
        (folder / name).mkdir()
    block = {**COLUMNS, **(columns or {}), "where": str(folder / "series.csv")}
    params.bind(sources.csv, block)(folder / "raw", folder / "scratch", 1)
    params.bind(dataset.prepare, {**RULES, **rules})(folder / "raw", folder / "data")
    return dataset.load(folder / "data")


def counts(folder: Path) -> dict[str, int]:
    """What prepare counted."""
    return dict(store.read_json(folder / "data" / "manifest.json")["counts"])
