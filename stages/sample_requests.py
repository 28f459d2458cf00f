"""Sample test examples as requests to a registered model.

python -m stages.sample_requests STUDY RUN MAX_EXAMPLES FILE
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ostinato import params, store
from ostinato.training.imports import import_keras_quietly
from stages.entry import command, load_study


def main(study: str, name: str, max_examples: str, file: str) -> None:
    """Write raw inputs of examples that a run or ensemble was tested on.

    Args:
        study: path of its params file.
        name: of the run or ensemble.
        max_examples: number of examples, at most.
        file: gets {"keys": [...], "inputs": [...]}, in an order that the seed determines.
    """
    loaded = load_study(study)
    entry = loaded.result(name)
    serving = params.module(entry["domain"], "serving")
    tested = store.read_arrays(loaded.result_folder(name) / "predictions.npz")["keys"]
    keys, counts = np.unique(tested, return_counts=True)
    keys = np.random.default_rng(loaded.params["seed"]).permutation(keys[counts == 1])
    import_keras_quietly()
    raw, prepared = loaded.raw_folder(entry["data"]), loaded.data_folder(entry["data"])
    count, sampled = int(max_examples), dict[str, Any]()
    # In parts, as all would fill the memory. Some examples cannot be requests: of most data sets
    # one part is enough, and the raw data are read once.
    for start in range(0, len(keys), 2 * count):
        drawn = keys[start : start + 2 * count].tolist()
        requests = serving.to_requests(raw, prepared, drawn)
        sampled |= {key: requests[key] for key in drawn if key in requests}
        if len(sampled) >= count:
            break
    chosen = list(sampled)[:count]
    content = {"keys": chosen, "inputs": [sampled[key] for key in chosen]}
    store.write_text(Path(file), json.dumps(content))


if __name__ == "__main__":
    command(main)
