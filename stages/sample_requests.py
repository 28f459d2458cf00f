"""Test examples as questions to a registered model: ``python -m stages.sample_requests RUN LIMIT FILE``."""

import json
from pathlib import Path

import numpy as np

from ostinato import params, store
from ostinato.tracking import mirror
from stages import command, load_study, start_tensorflow


def main(name: str, limit: str, file: str) -> None:
    """Write the raw form of examples that a run or ensemble was tested on, at most ``limit``.

    ``file`` gets {"keys": [...], "inputs": [...]}, in an order that the seed determines.
    """
    values = load_study()
    run = params.entry({**values["runs"], **values.get("ensembles", {})}, name)
    served = params.module(params.entry(run, "domain"), "serving")
    tested = store.read_arrays(mirror.result(name)[0] / "predictions.npz")["keys"]
    keys, counts = np.unique(tested, return_counts=True)
    keys = np.random.default_rng(values["seed"]).permutation(keys[counts == 1])
    start_tensorflow()
    data = params.entry(run, "data")
    found = served.questions(Path("data", "raw", data), Path("data", data), keys.tolist())
    chosen = [key for key in keys.tolist() if key in found][: int(limit)]
    asked = {"keys": chosen, "inputs": [found[key] for key in chosen]}
    store.write_text(Path(file), json.dumps(asked))


if __name__ == "__main__":
    command(main)
