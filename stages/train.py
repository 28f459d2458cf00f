"""Arrays to a model and its history: ``python -m stages.train RUN``."""

from pathlib import Path

from sequences import params, store
from stages import command, tracking


def main(name: str) -> None:
    """Train the run ``name`` of params.yaml into results/<name>.

    A training that was killed goes on at its last finished epoch, as long as its parameters, its
    data and its code are the same: the checkpoint's folder is named by their digest.
    """
    values = params.load()
    run = params.entry(values, "runs", name)
    domain, folder = params.entry(run, "domain"), Path("data", params.entry(run, "data"))
    model_file = params.module(domain, params.entry(run, "model"))
    build = params.bind(model_file.build, params.entry(run, "build"))
    fit = params.bind(model_file.fit, params.entry(run, "fit"))
    from sequences import training  # after the parameters are known to be right: 4 s

    machine = params.bind(training.machine, params.entry(values, "machine"))
    code = [training.__file__, model_file.__file__]
    key = store.digest(values["machine"], values["seed"], run, folder / "manifest.json")
    key = store.digest(key, *(Path(file) for file in code if file))
    checkpoints = Path("scratch", "train", name, key[:12])
    data = params.module(domain, "examples").load(folder)
    results = Path("results", name)
    with tracking.live(name, values) as record, machine(values["seed"]):
        model = build(data)
        history = fit(model, data, checkpoints, values["seed"], record)
        store.write_model(results / "model.keras", model)
        store.write_table(results / "history.csv", history)
    tracking.mirror("train", name)
    store.remove(checkpoints)


if __name__ == "__main__":
    command(main)
