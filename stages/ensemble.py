"""Combine the models of several runs: ``python -m stages.ensemble STUDY ENSEMBLE``."""

import time

import pandas as pd

from ostinato import models, params, store
from ostinato.training.imports import import_keras_quietly
from stages.entry import command, key_of, load_study
from stages.evaluate import write


def main(study: str, name: str) -> None:
    """Combine the members of the ensemble ``name`` into ensembles/<name>, evaluated like a run.

    The history has one row: its seconds are those of the members' trainings and of the weights.
    """
    name, loaded = key_of(name), load_study(study)
    block, results = loaded.entry("ensembles", name), loaded.result_folder(name)
    domain = block["domain"]
    module = params.module(domain, "evaluation")
    evaluate = params.bind(module.evaluate, loaded.entry("evaluation", domain))
    import_keras_quietly()
    ensemble = params.model_module(domain, "ensemble")
    build = params.bind(ensemble.build, {"combine": block["combine"]})
    folders = {run: loaded.result_folder(run) for run in block["members"]}
    members = {
        run: models.load(domain, loaded.model_name(run)).restore(folder / "model")
        for run, folder in folders.items()
    }
    histories = [store.existing(folder / "history.csv") for folder in folders.values()]
    trained = pd.concat([pd.read_csv(file) for file in histories])
    dataset = params.module(domain, "dataset").load(loaded.data_folder(block["data"]))
    began = time.perf_counter()
    model, weights = build(dataset, members)
    seconds = trained["seconds"].sum() + time.perf_counter() - began
    with store.atomic_folder(results / "model") as folder:
        ensemble.save(model, folder)
    store.write_table(results / "history.csv", pd.DataFrame({"epoch": [1], "seconds": [seconds]}))
    evaluation = evaluate(ensemble.restore(results / "model"), dataset, loaded.params["seed"])
    write(evaluation, results)
    table = pd.DataFrame({"run": weights.keys(), "weight": weights.values()})
    store.write_table(results / "tables" / "members.csv", table)


if __name__ == "__main__":
    command(main)
