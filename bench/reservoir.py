"""An echo state network against reservoirpy: steps/s of running and fitting, and the error.

    python -m bench run reservoir [--units 100,500] [--steps 10000] [--rounds 5]

Both sides have the same weights, series (Mackey-Glass, one step ahead) and ridge, take turns, and
keep the state of the training for the test. The best round counts. Without --python only the
project is measured.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.memory.formats.dynamics import mackey_glass
from ostinato.memory.formats.reservoir import NormalEquations, Reservoir, reservoir

BENCHMARK = {
    "measures": "an echo state network against reservoirpy: steps/s and error on Mackey-Glass",
    "minutes": 1,
    "peers": {"--python": "reservoirpy"},
}
RIDGE, WASHOUT = 1e-7, 100


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", default="100,500", help="of the reservoirs")
    parser.add_argument("--steps", type=int, default=10_000, help="of the series; half train")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", help="interpreter that has reservoirpy")
    args = parser.parse_args(arguments)
    series = mackey_glass(args.steps + 1, tau=17, substeps=10, seed=1)[:, None]
    x, y, end = series[:-1], series[1:], args.steps // 2
    for units in map(int, args.units.split(",")):
        drawn = reservoir(
            units,
            1,
            spectral_radius=0.95,
            connectivity=0.1,
            input_scale=1.0,
            input_connectivity=0.2,
            bias_scale=0.2,
            leak=0.5,
            seed=1,
        )
        rounds: dict[str, list[dict[str, float]]] = {"ostinato": []}
        with tempfile.TemporaryDirectory() as folder:
            peer = None
            if args.python:
                rounds["reservoirpy"] = []
                peer = start_peer(args.python, Path(folder) / "inputs.npz", drawn, x, y, end)
            for _ in range(args.rounds):
                rounds["ostinato"].append(measure(drawn, x, y, end))
                if peer and peer.stdin and peer.stdout:
                    peer.stdin.write("\n")
                    peer.stdin.flush()
                    rounds["reservoirpy"].append(json.loads(peer.stdout.readline()))
            if peer and peer.stdin:
                peer.stdin.close()
                peer.wait()
        for side, measured in rounds.items():
            fit, run = (min(each[part] for each in measured) for part in ("fit", "run"))
            print(
                f"{units} units, {side}: fit {end / fit:,.0f} steps/s, run "
                f"{(args.steps - end) / run:,.0f} steps/s, RMSE {measured[0]['rmse']:.2e}"
            )


def measure(drawn: Reservoir, x: np.ndarray, y: np.ndarray, end: int) -> dict[str, float]:
    """The seconds of fitting and of running, and the RMSE."""
    start = time.perf_counter()
    equations = NormalEquations(len(drawn.bias), 1)
    states = drawn.run(x[None, :end])[0]
    equations.add(states[WASHOUT:], y[WASHOUT:end])
    weights = equations.solve(RIDGE)
    middle = time.perf_counter()
    later = drawn.run(x[None, end:], states[-1:])[0]
    found = later @ weights[1:] + weights[0]
    seconds = time.perf_counter() - middle
    rmse = float(np.sqrt(np.mean((found - y[end:]) ** 2)))
    return {"fit": middle - start, "run": seconds, "rmse": rmse}


def start_peer(
    python: str, file: Path, drawn: Reservoir, x: np.ndarray, y: np.ndarray, end: int
) -> "subprocess.Popen[str]":
    """A process of the peer that waits for a line."""
    arrays: dict[str, Any] = {
        "input": drawn.input,
        "recurrent": drawn.recurrent,
        "bias": drawn.bias,
        "leak": drawn.leak,
        "ridge": RIDGE,
        "washout": WASHOUT,
        "end": end,
        "x": x,
        "y": y,
    }
    np.savez(file, **arrays)
    script = Path(__file__).with_name("reservoir_peer.py")
    return subprocess.Popen(
        [python, str(script), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    main()
