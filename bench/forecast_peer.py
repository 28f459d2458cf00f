"""The peers' side of bench/forecast_peers.py, run by an interpreter that has them.

    python bench/forecast_peer.py chicago SERIES.csv MODEL OUT.csv --horizon 14
    python bench/forecast_peer.py m4 FOLDER MODEL OUT.csv

One model forecasts from every origin; OUT.csv gets the forecasts, OUT.json what they cost.

Statistical models (statsforecast) are fitted anew every `--refit` days, on all days since the
training began; in between, `forward` applies what was fitted to all days known by then. Neural
ones (neuralforecast) are trained once, on the days before the first origin, the last `HELD_OUT`
of them for early stopping (the best weights are kept), and predict from all origins in one call.
On M4 they hold out the last 48 hours of each series' training part instead.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import holidays
import numpy as np
import pandas as pd

WEEK, YEAR, DAY = 7, 365.2425, 24  # days, days, hours
WINDOW, HELD_OUT = 56, 92  # days that a network reads, and days that stop its training
HOURS = 336  # that a network reads on M4
CHECKED = 25  # steps between looks at the days held out
M4_STEPS = 48

Cost = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["chicago", "m4"])
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", default="2016-01-01", help="first day of training")
    parser.add_argument("--first", default="2019-01-01", help="first day of the test")
    parser.add_argument("--last", default="2019-05-31", help="last day of the test")
    parser.add_argument("--horizon", type=int, default=14, help="days")
    parser.add_argument("--step", type=int, default=1, help="days between origins")
    parser.add_argument("--refit", type=int, default=28, help="days between fits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.task == "m4":
        rows, cost = m4(args)
    else:
        rows, cost = chicago(args)
    cost["versions"] = {name: version(name) for name in ("statsforecast", "neuralforecast")}
    args.out.with_suffix(".json").write_text(json.dumps(cost, indent=2) + "\n")
    rows.to_csv(args.out, index=False)  # last: what is there is whole


class Clock:
    """Seconds by the wall, and of the processor (what others on the machine disturb less)."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def costs(fit: Clock, forecast: Clock, forecasts: int) -> Cost:
    return {
        "fit_seconds": fit.wall,
        "fit_cpu_seconds": fit.cpu,
        "forecasts_per_second": forecasts / forecast.wall,
        "forecasts_per_cpu_second": forecasts / forecast.cpu,
    }


# Chicago rail


def chicago(args: argparse.Namespace) -> tuple[pd.DataFrame, Cost]:
    """Forecasts (origin: the last day known; day; forecast) of the days of the test."""
    table = ridership(args.data, args.horizon).loc[args.train :]
    first, last = table.index.get_indexer(pd.DatetimeIndex([args.first, args.last]))
    origins = np.arange(first, last + 1, args.step)  # row of the first day forecast
    if args.model in NEURAL:
        paths, cost = by_network(table, origins, args)
    else:
        paths, cost = by_statistics(table, origins, args)
    days = table.index.to_numpy()
    steps = origins[:, None] + np.arange(args.horizon)
    known = steps <= last
    rows = {"origin": np.repeat(days[origins - 1], known.sum(axis=1)), "day": days[steps[known]]}
    return pd.DataFrame(rows | {"forecast": paths[known]}), cost


def ridership(file: Path, beyond: int) -> pd.DataFrame:
    """Boardings by day, and what is known of each day in advance; `beyond` the last day too."""
    raw = pd.read_csv(file, parse_dates=["service_date"]).drop_duplicates()
    raw = raw.set_index("service_date").sort_index()
    days = pd.date_range(raw.index[0], raw.index[-1] + pd.Timedelta(days=beyond))
    weekday = days.dayofweek.to_numpy()
    usual = pd.Series(np.select([weekday == 5, weekday == 6], ["A", "U"], "W"), days)
    service = raw["day_type"].reindex(days).fillna(usual)
    table = raw[["rail_boardings", "bus"]].reindex(days).astype(float)
    for number in range(7):
        table[f"weekday {number}"] = weekday == number
    for kind in "WAU":  # weekday's, Saturday's, Sunday's and holiday's timetable
        table[f"service {kind}"] = service == kind
    listed = holidays.country_holidays("US", years=range(days[0].year - 1, days[-1].year + 2))
    free = pd.DatetimeIndex(sorted(listed))
    for name, ahead in (("after", -1), ("on", 0), ("before", 1)):
        table[f"holiday {name}"] = (days + pd.Timedelta(days=ahead)).isin(free)
    turn = 2 * np.pi * (days - pd.Timestamp(0)).days.to_numpy() / YEAR
    for harmonic in (1, 2):
        table[f"year sin {harmonic}"] = np.sin(harmonic * turn)
        table[f"year cos {harmonic}"] = np.cos(harmonic * turn)
    return table.astype(float)


def by_statistics(table: pd.DataFrame, origins: Any, args: argparse.Namespace) -> tuple[Any, Cost]:
    """Paths (origin, step)."""
    from statsforecast import models as sf

    model, calendar = {
        "SeasonalNaive": (sf.SeasonalNaive(WEEK), False),
        "AutoETS": (sf.AutoETS(WEEK), False),
        "AutoARIMA": (sf.AutoARIMA(season_length=WEEK), False),
        "AutoARIMA-calendar": (sf.AutoARIMA(season_length=WEEK), True),
        "MSTL": (sf.MSTL([WEEK, 52 * WEEK]), False),  # whole weeks: a Monday stays one
        "MSTL-calendar": (sf.MSTL(WEEK, trend_forecaster=sf.AutoARIMA()), True),
    }[args.model]
    # A seasonal model knows weekdays already; three flags that sum to one are one too many.
    names = [name for name in table.columns if name[:4] in ("holi", "year") or name == "service U"]
    known = table[names].to_numpy() if calendar else None
    y = table["rail_boardings"].to_numpy()

    def part(rows: slice) -> Any:
        return None if known is None else known[rows]

    fit, forecast, fitted, paths = Clock(), Clock(), -args.refit, []
    for origin in origins:
        past, future = slice(origin), slice(origin, origin + args.horizon)
        if origin - fitted >= args.refit or args.model == "SeasonalNaive":
            fitted = origin
            with fit:
                model = model.fit(y[past], part(past))
        with forecast:
            if fitted == origin:
                found = model.predict(args.horizon, part(future))
            else:
                found = model.forward(y[past], args.horizon, part(past), part(future))
        paths.append(found["mean"])
    return np.array(paths), costs(fit, forecast, len(origins))


# Networks: both read 56 days of rail, bus and calendar, and the calendar of the days ahead.

NEURAL = ("NHITS", "LSTM")


def network(args: argparse.Namespace, **settings: Any) -> Any:
    """neuralforecast's defaults, but for smaller batches, no windowed scaling, early stopping."""
    import neuralforecast.models
    import torch

    torch.set_num_threads(args.threads)
    quiet = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    settings |= {"windows_batch_size": 128, "random_seed": args.seed, "accelerator": "cpu"}
    return getattr(neuralforecast.models, args.model)(**settings, **quiet)


def by_network(table: pd.DataFrame, origins: Any, args: argparse.Namespace) -> tuple[Any, Cost]:
    """Paths (origin, step)."""
    from neuralforecast import NeuralForecast

    targets = ["rail_boardings", "bus"]
    trained = table.iloc[: origins[0]]
    centre, spread = trained[targets].mean(), trained[targets].std()
    scaled = table.assign(**((table[targets] - centre) / spread)).rename(
        columns={"rail_boardings": "y"}
    )
    scaled["ds"] = scaled.index
    ahead = [name for name in table.columns if name not in targets]
    model = network(
        args,
        h=args.horizon,
        input_size=WINDOW,
        futr_exog_list=ahead,
        hist_exog_list=["bus"],
        scaler_type="identity",
        early_stop_patience_steps=8,
        val_check_steps=CHECKED,
        callbacks=[best_weights()],
    )
    forecaster = NeuralForecast([model], freq="D")
    fit, forecast = Clock(), Clock()
    with fit:
        forecaster.fit(scaled.iloc[: origins[0]].assign(unique_id=0), val_size=HELD_OUT)

    def cut(begin: int, end: int, columns: list[str]) -> pd.DataFrame:
        """Rows around each origin, every origin as a series of its own."""
        parts = [scaled[columns].iloc[at + begin : at + end].assign(unique_id=at) for at in origins]
        return pd.concat(parts, ignore_index=True)

    with forecast:
        past = cut(-WINDOW, 0, ["ds", "y", "bus", *ahead])
        found = forecaster.predict(past, futr_df=cut(0, args.horizon, ["ds", *ahead]))
    paths = found.sort_values(["unique_id", "ds"])[args.model].to_numpy()
    paths = paths.reshape(len(origins), args.horizon)
    cost = costs(fit, forecast, len(origins))
    cost["steps"] = [step for step, _ in forecaster.models[0].valid_trajectories][-1]
    return paths * spread["rail_boardings"] + centre["rail_boardings"], cost


def best_weights() -> Any:
    """A callback that ends training with the weights of the lowest validation loss."""
    from pytorch_lightning import Callback

    class Best(Callback):
        loss = np.inf
        weights: Any = None

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            loss = float(trainer.callback_metrics["ptl/val_loss"])
            if not trainer.sanity_checking and loss < self.loss:
                self.loss, self.weights = loss, copy.deepcopy(pl_module.state_dict())

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.load_state_dict(self.weights)

    return Best()


# M4 hourly


def m4(args: argparse.Namespace) -> tuple[pd.DataFrame, Cost]:
    """Forecasts (series, step, forecast)."""
    table = pd.read_csv(args.data / "Hourly-train.csv", index_col=0)
    series = {name: row.dropna().to_numpy(float) for name, row in table.iterrows()}
    if args.model in NEURAL:
        paths, cost = by_global_network(list(series.values()), args)
    else:
        paths, cost = one_by_one(list(series.values()), args)
    rows = {"series": np.repeat(list(series), M4_STEPS)}
    rows |= {"step": np.tile(np.arange(1, M4_STEPS + 1), len(series))}
    return pd.DataFrame(rows | {"forecast": paths.ravel()}), cost


def one_by_one(series: list[Any], args: argparse.Namespace) -> tuple[Any, Cost]:
    """Paths (series, step) of a model of each series."""
    from statsforecast import models as sf

    fit, forecast = Clock(), Clock()
    if args.model == "Naive2":
        with forecast:
            paths = [naive2(y, M4_STEPS, DAY) for y in series]
        return np.array(paths), costs(fit, forecast, len(series))
    make: Callable[[], Any] = {
        "SeasonalNaive": lambda: sf.SeasonalNaive(DAY),
        "Theta": lambda: sf.DynamicOptimizedTheta(DAY),
        "AutoETS": lambda: sf.AutoETS(DAY),
        "MSTL": lambda: sf.MSTL([DAY, WEEK * DAY]),
    }[args.model]
    paths = []
    for y in series:
        with fit:
            model = make().fit(y)
        with forecast:
            paths.append(model.predict(M4_STEPS)["mean"])
    return np.array(paths), costs(fit, forecast, len(series))


def naive2(y: Any, steps: int, season: int) -> Any:
    """The last value, seasonally adjusted if the season shows at 90% (as the M4 guide has it)."""
    centred = y - y.mean()
    lags = [centred[lag:] @ centred[: len(y) - lag] for lag in range(season + 1)]
    correlation = np.array(lags) / lags[0]
    limit = 1.645 * np.sqrt((1 + 2 * (correlation[1:season] ** 2).sum()) / len(y))
    factors = np.ones(season)
    if len(y) >= 3 * season and abs(correlation[season]) > limit:
        # Classical multiplicative decomposition: the ratio to a centred moving average.
        half = season // 2
        kernel = np.ones(season + 1 - season % 2)
        if season % 2 == 0:
            kernel[[0, -1]] = 0.5
        ratios = np.full(len(y) + -len(y) % season, np.nan)
        ratios[half : len(y) - half] = y[half : len(y) - half] / np.convolve(
            y, kernel / season, "valid"
        )
        factors = np.nanmean(ratios.reshape(-1, season), axis=0)
        factors /= factors.mean()
    ahead = np.arange(len(y), len(y) + steps) % season
    return y[-1] / factors[(len(y) - 1) % season] * factors[ahead]


def by_global_network(series: list[Any], args: argparse.Namespace) -> tuple[Any, Cost]:
    """Paths (series, step) of one model for all series."""
    from neuralforecast import NeuralForecast

    parts = [
        pd.DataFrame({"unique_id": number, "ds": np.arange(len(y)), "y": y})
        for number, y in enumerate(series)
    ]
    model = network(
        args,
        h=M4_STEPS,
        input_size=HOURS,
        scaler_type="robust",
        early_stop_patience_steps=8,
        val_check_steps=CHECKED,
        callbacks=[best_weights()],
    )
    forecaster = NeuralForecast([model], freq=1)
    fit, forecast = Clock(), Clock()
    with fit:
        forecaster.fit(pd.concat(parts, ignore_index=True), val_size=M4_STEPS)
    with forecast:
        found = forecaster.predict()
    paths = found.sort_values(["unique_id", "ds"])[args.model].to_numpy()
    return paths.reshape(len(series), M4_STEPS), costs(fit, forecast, len(series))


if __name__ == "__main__":
    main()
