"""Make forecast_metrics.json with utilsforecast 0.2.17, which the project does not need.

    PEERS/bin/python -m tests.golden.forecast_metrics > tests/golden/forecast_metrics.json

PEERS is the environment of bench/forecast_peers.py. Three series (one with zeros, one with values
below zero), 14 steps, season 7. sMAPE is M4's, 0 to 200, where utilsforecast's is 0 to 1; 0 / 0
counts as 0. MASE is scaled by the seasonal naive error of the history. OWA as in the M4 guide:
sMAPE and MASE, each a mean over series and divided by Naive2's, and then their mean. wQL: twice the
pinball loss of all steps over the sum of absolute truths, a mean over levels.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from utilsforecast import losses

from bench.forecast_peer import naive2

SEASON, STEPS, PAST = 7, 14, 42
LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
INTERVALS = {80: (1, 5), 95: (0, 6)}  # levels that bound them


def example() -> dict[str, Any]:
    random = np.random.default_rng(20190531)
    time = np.arange(PAST + STEPS)
    wave = np.sin(2 * np.pi * time / SEASON)
    noise = random.normal(size=(3, PAST + STEPS))
    values = np.stack([100 + 20 * wave, 8 + 6 * wave, 2 * wave]) + noise * [[4], [2], [1]]
    values[1] = np.maximum(values[1].round(), 0)
    history, truth = values[:, :PAST], values[:, PAST:]
    truth[1, 3] = 0
    scale = np.array([8, 4, 2])[:, None, None]
    missed = random.normal(size=(3, STEPS, 1)) + random.normal(size=(3, STEPS, len(LEVELS)))
    quantiles = np.sort(truth[..., None] + scale * missed, axis=-1)
    quantiles[1, 3] -= quantiles[1, 3, 3]  # truth and median are both 0
    simple = np.stack([naive2(y, STEPS, SEASON) for y in history[:2]] + [history[2, -STEPS:]])
    return {
        "season": SEASON,
        "levels": LEVELS,
        "history": history.round(4),
        "truth": truth.round(4),
        "forecast": quantiles[..., 3].round(4),
        "quantiles": quantiles.round(4),
        "naive2": simple.round(4),  # of the third, which has no multiplicative season, the last 14
    }


def expected(data: dict[str, Any]) -> dict[str, Any]:
    series = np.repeat(["a", "b", "c"], STEPS)
    table = pd.DataFrame({"unique_id": series, "ds": np.tile(np.arange(STEPS) + PAST, 3)})
    table["y"], table["model"] = data["truth"].ravel(), data["forecast"].ravel()
    table["naive2"] = data["naive2"].ravel()
    columns = [f"q{level}" for level in LEVELS]
    table[columns] = data["quantiles"].reshape(-1, len(LEVELS))
    for interval, (low, high) in INTERVALS.items():
        table[f"model-lo-{interval}"] = table[columns[low]]
        table[f"model-hi-{interval}"] = table[columns[high]]
    past = pd.DataFrame({"unique_id": np.repeat(["a", "b", "c"], PAST)})
    past["ds"], past["y"] = np.tile(np.arange(PAST), 3), data["history"].ravel()
    pooled = table.assign(unique_id="all")
    steps = table.assign(unique_id=table["ds"] - PAST + 1)

    def each(found: pd.DataFrame, model: str = "model") -> Any:
        return found.sort_values("unique_id")[model].to_numpy()

    def pinball(rows: pd.DataFrame) -> Any:
        """(level, series)"""
        pairs = zip(columns, LEVELS, strict=True)
        return [each(losses.quantile_loss(rows, {"model": name}, q)) for name, q in pairs]

    models = ["model", "naive2"]
    smape, mase = losses.smape(table, models), losses.mase(table, models, SEASON, past)
    ratios = [each(found).mean() / each(found, "naive2").mean() for found in (smape, mase)]
    many = {"model": columns}
    result = {
        "mae": each(losses.mae(table, ["model"])),
        "rmse": each(losses.rmse(table, ["model"])),
        "smape": 200 * each(smape),
        "mase": each(mase),
        "mae pooled": each(losses.mae(pooled, ["model"])),
        "rmse pooled": each(losses.rmse(pooled, ["model"])),
        "smape pooled": 200 * each(losses.smape(pooled, ["model"])),
        "mae by step": each(losses.mae(steps, ["model"])),
        "rmse by step": each(losses.rmse(steps, ["model"])),
        "smape naive2": 200 * each(smape, "naive2"),
        "mase naive2": each(mase, "naive2"),
        "owa": [sum(ratios) / 2],
        "pinball": pinball(table),
        "pinball pooled": pinball(pooled),
        "mqloss": each(losses.mqloss(table, many, LEVELS)),
        "scaled mqloss": each(losses.scaled_mqloss(table, many, LEVELS, SEASON, past)),
        "wql": each(losses.scaled_crps(table, many, LEVELS)),
        "wql pooled": each(losses.scaled_crps(pooled, many, LEVELS)),
    }
    for interval in INTERVALS:
        result[f"coverage {interval}"] = each(losses.coverage(table, ["model"], interval))
        result[f"winkler {interval}"] = each(losses.winkler_score(table, ["model"], interval))
    return result


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in values.items()}


if __name__ == "__main__":
    data = example()
    made = f"python -m tests.golden.forecast_metrics, utilsforecast {version('utilsforecast')}"
    parts = {"made by": made, "inputs": plain(data), "expected": plain(expected(data))}
    json.dump(parts, sys.stdout)
    print()
