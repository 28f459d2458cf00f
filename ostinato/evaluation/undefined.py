"""Metrics without a value: tables/undefined.csv of a result, with the reason of each."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

TABLE = "undefined"


def to_table(undefined: Mapping[str, str]) -> pd.DataFrame:
    """The table of the metrics without a value, from `ostinato.task.Evaluation.undefined`."""
    return pd.DataFrame(undefined.items(), columns=["metric", "reason"])


def read(folder: Path) -> dict[str, str]:
    """The reason of each metric without a value of the result in ``folder``."""
    path = folder / "tables" / f"{TABLE}.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["metric"]: row["reason"] for row in csv.DictReader(file)}
