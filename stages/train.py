"""Arrays to a model and its history: ``python -m stages.train RUN``."""

from pathlib import Path

import pandas as pd

from ostinato import params, store
from ostinato.task import TrainingContext
from ostinato.tracking import mirror
from stages import command, key_of, load_study, start_tensorflow


def main(name: str) -> None:
    """Train the run ``name`` of params.yaml into results/<name>.

    A training that was killed goes on at its last finished epoch, as long as its parameters, its
    data and its code are the same: the checkpoint's folder is named by their digest.
    """
    name, values = key_of(name), load_study()
    run, seed = params.entry(values, "runs", name), values["seed"]
    domain, folder = params.entry(run, "domain"), Path("data", params.entry(run, "data"))
    start_tensorflow()
    from ostinato import layers
    from ostinato.training import losses, runtime, trainer

    model_file = params.model_module(domain, params.entry(run, "model"))
    build = params.bind(model_file.build, params.entry(run, "build"))
    fit = params.bind(model_file.fit, params.entry(run, "fit"))
    machine = params.bind(runtime.runtime, params.entry(values, "runtime"))
    used = (layers, losses, trainer, params.module(domain, "layers"), model_file)
    code = [Path(str(file.__file__)) for file in used]
    key = store.digest(run, seed, values["runtime"], folder / "manifest.json", *code)
    checkpoints = Path("scratch", "train", name, key)
    data = params.module(domain, "dataset").load(folder)
    results = Path("results", name)
    with mirror.live(name) as record, machine(seed):
        model = build(data)
        history = fit(model, data, TrainingContext(checkpoints, seed, record))
        store.write_model(results / "model.keras", model)
        store.write_table(results / "history.csv", pd.DataFrame(history))
    store.remove(checkpoints.parent)


if __name__ == "__main__":
    command(main)
