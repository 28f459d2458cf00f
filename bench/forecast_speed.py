"""Training time and forecasts/s of our runs beside the peers of bench/forecast_peers.py.

    python -m bench.forecast_speed chicago SERIES.csv --python PEERS/bin/python
    python -m bench.forecast_speed m4 FOLDER --python PEERS/bin/python

In each round every side trains and forecasts once, in a process of its own, one after the other,
with as many threads. Medians over the rounds, and the medians of each side's over the first of
ours in the same round. Seconds of the processor are what others on the machine disturb least.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

BENCHMARK = {
    "measures": (
        "training time and forecasts/s of our runs against statsforecast and neuralforecast"
    ),
    "minutes": 60,
    "needs": "the arguments chicago SERIES.csv or m4 FOLDER, with the files of forecast_peers",
    "peers": {"--python": "forecasting"},
}

OURS = {
    "chicago": ["rail-week-gru", "rail-week-n-beats"],
    "m4": ["m4-hourly-n-beats", "m4-hourly-conv-rnn"],
}
PEERS = {
    "chicago": ["NHITS", "LSTM", "AutoARIMA", "AutoETS", "MSTL"],
    "m4": ["NHITS", "AutoETS", "MSTL", "Theta"],
}
FIGURES = ("fit_seconds", "fit_cpu_seconds", "forecasts_per_second", "forecasts_per_cpu_second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["chicago", "m4"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--python", required=True, help="the peers' interpreter")
    parser.add_argument("--ours", nargs="*", help="runs of recipes/chicago and recipes/m4")
    parser.add_argument("--peers", nargs="*", help="models of bench/forecast_peer.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    found: dict[str, list[list[float]]] = defaultdict(list)
    commands = {
        n: [sys.executable, "-m", "bench.forecast_ours"] for n in args.ours or OURS[args.task]
    }
    own = ["--horizon", "7"] if args.task == "chicago" else []
    for name in args.peers or PEERS[args.task]:
        commands[name] = [args.python, "bench/forecast_peer.py"]
    for number in range(args.rounds):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "out.csv")
                options = own if command[0] == args.python else []
                options = [*options, "--seed", str(number + 1), "--threads", str(args.threads)]
                whole = [*command, args.task, str(args.data), name, str(out), *options]
                subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
                cost = json.loads(out.with_suffix(".json").read_text())
            found[name].append([cost[figure] for figure in FIGURES])
            print(f"round {number + 1}  {name}  {cost}", flush=True)
    first = next(iter(found))
    print("medians" + "".join(f"{figure:>26}" for figure in FIGURES) + f"   (times {first}'s)")
    for name, rounds in found.items():
        values = np.median(rounds, axis=0)
        ratios = np.median(np.divide(rounds, found[first]), axis=0)
        cells = [f"{v:14,.3g} ({r:8.3g})" for v, r in zip(values, ratios, strict=True)]
        print(f"{name:20}" + " ".join(cells))


if __name__ == "__main__":
    main()
