"""Forecasts of statsforecast's and neuralforecast's models, scored on Chicago rail and M4 hourly.

    python -m bench.forecast_peers OUT --chicago SERIES.csv --m4 FOLDER --python PEERS/bin/python

SERIES.csv is the city's export of daily boardings; FOLDER holds M4's Hourly-train.csv and
Hourly-test.csv. `python -m bench run forecast_peers` installs the peers. Their side is
bench/forecast_peer.py; what it does is written there. A model whose forecasts OUT holds already
does not run again.

Chicago: train 2016 to 2018, test 2019-01-01 to 2019-05-31, an origin each `--step` days: all
whose window lies inside the test. NHITS-7 and NHITS-14 are trained for as many days, each seed on
its own; scores are means over seeds. `-calendar`: with day type, holidays and time of the year
known in advance, as the networks have them. M4: the competition's sMAPE, MASE and OWA.

`--ours` adds runs of recipes/chicago and recipes/m4, by bench/forecast_ours.py, for all seeds.
Any forecasts in OUT/chicago/NAME.csv (origin: the last day known; day; forecast) or OUT/m4/NAME.csv
(series; step; forecast) are scored beside the peers'. Tables go to standard output, all figures to
OUT/scores.json. Fitting is in seconds of processor time; forecasts/s are by the wall.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BENCHMARK = {
    "measures": (
        "errors of statsforecast's, neuralforecast's and our models on Chicago's trains and "
        "M4's hourly series"
    ),
    "minutes": 180,
    "needs": (
        "OUT (a folder to write), and --chicago SERIES.csv (the export of daily boardings) or "
        "--m4 FOLDER (Hourly-train.csv and Hourly-test.csv of the competition)"
    ),
    "peers": {"--python": "forecasting"},
}

WEEK, DAY = 7, 24
TRAIN, TEST = slice("2016-01-01", "2018-12-31"), slice("2019-01-01", "2019-05-31")
HORIZONS = (7, 14)
STATISTICAL = (
    "SeasonalNaive",
    "AutoETS",
    "AutoARIMA",
    "AutoARIMA-calendar",
    "MSTL",
    "MSTL-calendar",
)
NEURAL = ("NHITS", "LSTM")
M4 = ("Naive2", "SeasonalNaive", "Theta", "AutoETS", "MSTL", "NHITS")

Scores = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--chicago", type=Path, help="the city's export")
    parser.add_argument("--m4", type=Path, help="folder of the competition's files")
    parser.add_argument("--python", help="the peers' interpreter; without it, only scores")
    parser.add_argument("--ours", nargs="*", default=[], help="runs to train and forecast with")
    parser.add_argument("--step", type=int, default=1, help="days between origins")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    peer = [args.python, "bench/forecast_peer.py"]
    found = {}
    for name, seed in product(args.ours, range(1, args.seeds + 1)):
        data = args.m4 if name.startswith("m4") else args.chicago
        out = args.out / ("m4" if name.startswith("m4") else "chicago") / f"{name}-seed{seed}.csv"
        own = ["--seed", str(seed), "--threads", str(args.threads)]
        run([sys.executable, "-m", "bench.forecast_ours"], data, out, name, own)
    if args.chicago:
        folder = args.out / "chicago"
        if args.python:
            common = ["--step", str(args.step), "--threads", str(args.threads)]
            for name in STATISTICAL:
                run(peer, args.chicago, folder / f"{name}.csv", name, common)
            for name, horizon, seed in product(NEURAL, HORIZONS, range(1, args.seeds + 1)):
                out = folder / f"{name}-{horizon}-seed{seed}.csv"
                own = [*common, "--horizon", str(horizon), "--seed", str(seed)]
                run(peer, args.chicago, out, name, own)
        found["chicago"] = chicago(args.chicago, folder)
        for horizon in HORIZONS:
            show(f"Chicago rail, {horizon} days", found["chicago"][str(horizon)])
    if args.m4:
        folder = args.out / "m4"
        for name in M4 if args.python else ():
            common = ["--threads", str(args.threads)]
            run(peer, args.m4, folder / f"{name}.csv", name, common)
        found["m4"] = m4(args.m4, folder)
        show("M4 hourly, 48 hours", found["m4"])
    (args.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n")


def run(program: list[str], data: Path, out: Path, name: str, options: list[str]) -> None:
    """Have a model's forecasts written, if they are not there."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [*program, out.parent.name, str(data), name, str(out), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def chicago(file: Path, folder: Path) -> dict[str, dict[str, Scores]]:
    """Scores by horizon and model, means over seeds."""
    raw = pd.read_csv(file, parse_dates=["service_date"]).drop_duplicates()
    truth = raw.set_index("service_date").sort_index()["rail_boardings"].astype(float)
    scale = truth[TRAIN].diff(WEEK).abs().mean()
    return {
        str(horizon): by_model(folder, partial(windows, truth, scale, horizon))
        for horizon in HORIZONS
    }


def windows(truth: Any, scale: float, horizon: int, rows: pd.DataFrame) -> Scores | None:
    """Scores of all whole windows of the test; None where there is none."""
    origin, day = pd.to_datetime(rows["origin"]), pd.to_datetime(rows["day"])
    table = pd.DataFrame({"origin": origin, "step": (day - origin).dt.days})
    table["forecast"], table["truth"] = rows["forecast"], truth.reindex(day).to_numpy()
    table = table[day.between(TEST.start, TEST.stop) & (table["step"] <= horizon)]
    whole = table.groupby("origin")["step"].transform("size") == horizon
    table = table[whole]
    if table.empty:
        return None
    error = (table["forecast"] - table["truth"]).abs()
    size = table["forecast"].abs() + table["truth"].abs()
    by_step = error.groupby(table["step"]).mean()
    return {
        "mae": error.mean(),
        "mae_next_day": by_step[1],
        "mae_last_day": by_step[horizon],
        "rmse": np.sqrt((error**2).mean()),
        "mase": error.mean() / scale,
        "smape": (200 * error / size).mean(),
        "windows": table["origin"].nunique(),
        "mae_by_day": by_step.tolist(),
    }


def m4(folder: Path, forecasts: Path) -> dict[str, Scores]:
    """Scores by model; OWA against Naive2."""
    past = pd.read_csv(folder / "Hourly-train.csv", index_col=0)
    truth = pd.read_csv(folder / "Hourly-test.csv", index_col=0).loc[past.index].to_numpy()
    values = past.to_numpy(float)  # padded with NaN
    scales = np.nanmean(np.abs(values[:, DAY:] - values[:, :-DAY]), axis=1)

    def score(rows: pd.DataFrame) -> Scores:
        table = rows.pivot_table(index="series", columns="step", values="forecast")
        found = table.loc[past.index].to_numpy()
        error = np.abs(found - truth)
        smape = 200 * error / (np.abs(found) + np.abs(truth))
        return {"smape": smape.mean(), "mase": (error.mean(axis=1) / scales).mean()}

    scores = by_model(forecasts, score)
    if "Naive2" in scores:
        base = scores["Naive2"]
        for found in scores.values():
            ratios = found["smape"] / base["smape"], found["mase"] / base["mase"]
            found["owa"] = sum(ratios) / 2
    return scores


def by_model(folder: Path, score: Any) -> dict[str, Scores]:
    """Scores of all forecasts in a folder: figures are means over seeds, costs beside them."""
    seeds: dict[str, list[Scores]] = {}
    for file in sorted(folder.glob("*.csv")):
        found = score(pd.read_csv(file))
        if found is not None:
            cost = file.with_suffix(".json")
            costs = json.loads(cost.read_text()) if cost.exists() else {}
            seeds.setdefault(file.stem.split("-seed")[0], []).append(found | costs)
    return {name: mean(runs) for name, runs in seeds.items()}


def mean(runs: list[Scores]) -> Scores:
    """Means of numbers over seeds; of the rest, the first."""
    figures = runs[0] | {"seeds": len(runs)}
    for key, value in runs[0].items():
        if isinstance(value, int | float | list):
            average = np.mean([run[key] for run in runs], axis=0)
            figures[key] = average.tolist()
    return figures


def show(title: str, scores: dict[str, Scores]) -> None:
    """Print a table, the best model first."""
    table = pd.DataFrame(scores).T
    table = table.sort_values("owa" if "owa" in table else "mae")
    figures = table.drop(columns=["mae_by_day", "versions"], errors="ignore").astype(float)
    print(f"\n{title}\n{figures.to_string(float_format='{:,.5g}'.format)}")
    if "mae_by_day" in table:
        days = pd.DataFrame(table["mae_by_day"].to_dict()).T.rename(columns=lambda step: step + 1)
        print(f"MAE by day\n{days.to_string(float_format='{:,.0f}'.format)}")


if __name__ == "__main__":
    main()
