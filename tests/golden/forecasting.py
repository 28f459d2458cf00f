# mypy: ignore-errors
"""Make forecasting.json: ``python forecasting.py > forecasting.json``.

With utilsforecast 0.2.17 (the metrics of statsforecast), which the project does not need.
"""

import json
import sys

import numpy as np
import pandas as pd
from utilsforecast import losses

SEASON, HORIZON, WINDOWS, LEVELS = 7, 5, 12, 10

random = np.random.default_rng(3)
history = 50 + 10 * np.sin(np.arange(60) * 2 * np.pi / SEASON) + random.normal(size=60)
truth = 50 + 10 * random.normal(size=(WINDOWS, HORIZON))
quantiles = np.sort(truth[..., None] + 6 * random.normal(size=(WINDOWS, HORIZON, LEVELS)), axis=-1)
levels = (np.arange(LEVELS) + 0.5) / LEVELS
forecast = quantiles[..., 4:6].mean(axis=-1)
flat = pd.DataFrame({"unique_id": "a", "ds": range(truth.size), "y": truth.ravel()})
flat["model"], flat["model-lo-80"] = forecast.ravel(), quantiles[..., 1].ravel()
flat["model-hi-80"] = quantiles[..., 8].ravel()
train = pd.DataFrame({"unique_id": "a", "ds": range(-60, 0), "y": history})


def one(table):
    return float(table["model"].iloc[0])


pinball = []
for i, level in enumerate(levels):
    flat["q"] = quantiles[..., i].ravel()
    pinball.append(float(losses.quantile_loss(flat, {"m": "q"}, level)["m"].iloc[0]))
json.dump(
    {
        "season": SEASON,
        "history": history.tolist(),
        "truth": truth.tolist(),
        "quantiles": quantiles.tolist(),
        "mae": one(losses.mae(flat, ["model"])),
        "rmse": one(losses.rmse(flat, ["model"])),
        "smape": 200 * one(losses.smape(flat, ["model"])),
        "mase": one(losses.mase(flat, ["model"], SEASON, train)),
        "coverage": one(losses.coverage(flat, ["model"], 80)),
        "pinball": pinball,
    },
    sys.stdout,
)
