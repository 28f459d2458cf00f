"""reservoirpy's side of bench/reservoir.py, for its interpreter (no project import).

    python bench/reservoir_peer.py INPUTS.npz

INPUTS has the weights, the series and the settings. For each line on standard input it runs and
fits the reservoir once, and prints the seconds of both and the RMSE as JSON.
"""

import json
import sys
import time

import numpy as np
from reservoirpy.nodes import Reservoir, Ridge


def main() -> None:
    given = dict(np.load(sys.argv[1]))
    leak, ridge, washout = float(given["leak"]), float(given["ridge"]), int(given["washout"])
    x, y, end = given["x"], given["y"], int(given["end"])
    for _ in sys.stdin:
        nodes = Reservoir(W=given["recurrent"], Win=given["input"], bias=given["bias"], lr=leak)
        readout = Ridge(ridge=ridge)
        model = nodes >> readout
        start = time.perf_counter()
        model.fit(x[:end], y[:end], warmup=washout)
        middle = time.perf_counter()
        found = model.run(x[end:])
        seconds = time.perf_counter() - middle
        rmse = float(np.sqrt(np.mean((found - y[end:]) ** 2)))
        print(json.dumps({"fit": middle - start, "run": seconds, "rmse": rmse}), flush=True)


if __name__ == "__main__":
    main()
