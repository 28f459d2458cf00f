"""Models of several runs to one, and its scores: ``python -m stages.ensemble ENSEMBLE``."""

import time
from pathlib import Path

import pandas as pd

from ostinato import params, store
from ostinato.tracking import mirror
from stages import command, key_of, load_study, start_tensorflow
from stages.evaluate import keep


def main(name: str) -> None:
    """Combine the members of the ensemble ``name`` into ensembles/<name>, scored as a run is.

    The history has one row: its seconds are those of the members' trainings and of the weights.
    """
    name, values = key_of(name), load_study()
    block = params.entry(values, "ensembles", name)
    domain, data = params.entry(block, "domain"), params.entry(block, "data")
    scores = params.module(domain, "evaluation")
    score = params.bind(scores.evaluate, params.entry(values, "evaluation", domain))
    start_tensorflow()
    ensemble = params.model_module(domain, "ensemble")
    build = params.bind(ensemble.build, {"combine": params.entry(block, "combine")})
    folders = {member: Path("results", member) for member in block["members"]}
    members = {run: store.read_model(folder / "model.keras") for run, folder in folders.items()}
    trained = pd.concat([pd.read_csv(folder / "history.csv") for folder in folders.values()])
    loaded = params.module(domain, "dataset").load(Path("data", data))
    began, results = time.perf_counter(), Path("ensembles", name)
    model, shares = build(loaded, members)
    seconds = trained["seconds"].sum() + time.perf_counter() - began
    store.write_model(results / "model.keras", model)
    store.write_table(results / "history.csv", pd.DataFrame({"epoch": [1], "seconds": [seconds]}))
    scored = score(model, loaded, values["seed"])
    scored.tables["members"] = pd.DataFrame({"run": shares.keys(), "weight": shares.values()})
    keep(scored, results)
    mirror.mirror("ensemble", name)


if __name__ == "__main__":
    command(main)
