"""A model and its test split to scores, tables and figures: ``python -m stages.evaluate RUN``."""

from pathlib import Path
from typing import Any

import pandas as pd

from ostinato import params, store
from ostinato.evaluation import figures
from ostinato.tracking import mirror
from stages import command, key_of, load_study, start_tensorflow


def main(name: str) -> None:
    """Score results/<name>/model.keras on the test split; write all of it beside the model."""
    name, values = key_of(name), load_study()
    run = params.entry(values, "runs", name)
    domain, results = params.entry(run, "domain"), Path("results", name)
    scores = params.module(domain, "evaluation")
    score = params.bind(scores.evaluate, params.entry(values, "evaluation", domain))
    start_tensorflow()
    from ostinato.training import trainer

    params.model_module(domain, params.entry(run, "model"))  # registers the model's layers
    model = store.read_model(results / "model.keras")
    data = params.module(domain, "dataset").load(Path("data", params.entry(run, "data")))
    scored = score(model, data, values["seed"])
    history = pd.read_csv(results / "history.csv")
    if "epochs" in run["fit"]:  # else nothing was learned
        monitor = run["fit"].get("monitor")  # none where weights of many epochs were averaged
        best = trainer.best_epoch(history.to_dict("records"), monitor) if monitor else None
        scored.figures["learning_curves"] = figures.learning_curves(history, best)
    keep(scored, results)
    mirror.mirror("evaluate", name)


def keep(scored: Any, folder: Path) -> None:
    """Write what ``score`` returned: metrics, speed, predictions, tables and figures."""
    store.write_json(folder / "metrics.json", scored.metrics)
    store.write_json(folder / "speed.json", scored.speed)
    store.write_arrays(folder / "predictions.npz", scored.arrays)
    with store.atomic_folder(folder / "tables") as made:
        for title, table in scored.tables.items():
            store.write_table(made / f"{title}.csv", table)
    with store.atomic_folder(folder / "figures") as made:
        for title, figure in scored.figures.items():
            store.write_figure(made / f"{title}.png", figure)


if __name__ == "__main__":
    command(main)
