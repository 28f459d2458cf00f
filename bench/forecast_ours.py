"""Our side of bench/forecast_peers.py: a run of recipes/chicago or recipes/m4, on equal terms.

    python -m bench.forecast_ours chicago SERIES.csv rail-week-gru OUT.csv --seed 1
    python -m bench.forecast_ours m4 FOLDER m4-hourly-n-beats OUT.csv

OUT.csv gets the forecasts, OUT.json the costs. For Chicago the last `HELD_OUT` days before the test
are held out from training, as by the peers' networks, and the test is the peers'; the rest is the
run's. The time of training goes from building the model to its best weights; that of forecasting
from the prepared series to values in its units, for all origins at once, after compiling.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.forecast_peer import HELD_OUT, Clock, costs
from ostinato import params
from ostinato.forecasting import dataset, sources
from ostinato.forecasting.metrics import quantile
from ostinato.task import TrainingContext
from ostinato.training import runtime
from ostinato.training.keras_model import KerasModel
from ostinato.training.machine import Machine

TIMES = 20  # repetitions of all forecasts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["chicago", "m4"])
    parser.add_argument("data", type=Path)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", default="2019-01-01", help="first day of Chicago's test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    values = params.load(Path("recipes", args.task, "params.yaml"))
    run = values["runs"][args.run]
    block = values["data"][run["data"]]
    if args.task == "chicago":
        first = pd.Timestamp(args.first)
        held = f"{first - pd.Timedelta(days=HELD_OUT):%Y-%m-%d}"
        block["prepare"] |= {"validation": held, "calibration": None, "test": args.first}
        files = {"where": str(args.data)}
    else:
        files = {part: str(args.data / f"Hourly-{part}.csv") for part in ("train", "test")}
    machine = Machine(intra_op=1, inter_op=args.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        params.bind(runtime.runtime, values["runtime"])(args.seed, machine),
    ):
        data = prepared(Path(folder), block, files)
        module = params.model_module("forecasting", run["model"])
        fit, forecast = Clock(), Clock()
        with fit:
            model = params.bind(module.build, run["build"])(data)
            train = params.bind(module.fit, run["fit"])
            train(model, data, TrainingContext(Path(folder, "checkpoints"), args.seed))
        predictor, every = KerasModel(model), np.arange(data.size("test"))
        predictor(data.examples("test", every)[0])
        with forecast:
            for _ in range(TIMES):
                windows = data.windows("test", every)
                z = predictor(data.examples("test", every)[0]).astype(np.float64)
                paths = data.unscaled(quantile(z, 0.5), windows)
    cost = costs(fit, forecast, TIMES * len(every))
    args.out.with_suffix(".json").write_text(json.dumps(cost, indent=2) + "\n")
    table(args.task, windows.keys, paths).to_csv(args.out, index=False)


def prepared(folder: Path, block: dict[str, Any], files: dict[str, str]) -> dataset.SeriesDataset:
    """The data set of a block of params.yaml, from local files."""
    for name in ("raw", "scratch", "data"):
        (folder / name).mkdir()
    source = block["fetch"]["source"]
    fetch = params.bind(params.function(sources, source), {**block["fetch"][source], **files})
    fetch(folder / "raw", folder / "scratch", 1)
    params.bind(dataset.prepare, block["prepare"])(folder / "raw", folder / "data")
    return dataset.load(folder / "data")


def table(task: str, keys: Any, paths: Any) -> pd.DataFrame:
    """Forecasts (window, step) in the layout of the peers."""
    named = [str(key).rpartition("@") for key in keys]
    steps = np.tile(np.arange(paths.shape[1]), len(named))
    if task == "m4":
        series = np.repeat([name for name, _, _ in named], paths.shape[1])
        return pd.DataFrame({"series": series, "step": steps + 1, "forecast": paths.ravel()})
    first = pd.DatetimeIndex([at for _, _, at in named]).repeat(paths.shape[1])
    days = first + pd.to_timedelta(steps, "D")
    origin = first - pd.Timedelta(days=1)
    return pd.DataFrame({"origin": origin, "day": days, "forecast": paths.ravel()})


if __name__ == "__main__":
    main()
