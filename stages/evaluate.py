"""Evaluate a model on the test split: ``python -m stages.evaluate STUDY RUN``."""

from pathlib import Path

import pandas as pd

from ostinato import models, params, store
from ostinato.evaluation import undefined
from ostinato.task import Evaluation
from ostinato.training.imports import import_keras_quietly
from stages.entry import command, key_of, load_study


def main(study: str, name: str) -> None:
    """Evaluate results/<name>/model on the test split; write the results beside it."""
    name, loaded = key_of(name), load_study(study)
    run, results = loaded.entry("runs", name), loaded.result_folder(name)
    module = params.module(run["domain"], "evaluation")
    evaluate = params.bind(module.evaluate, loaded.entry("evaluation", run["domain"]))
    import_keras_quietly()
    model = models.load(run["domain"], run["model"])
    predictor = model.restore(results / "model")
    dataset = params.module(run["domain"], "dataset").load(loaded.data_folder(run["data"]))
    write(evaluate(predictor, dataset, loaded.params["seed"]), results)
    write_learning_curves(run, results)


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write metrics, speed, arrays, tables and figures of an evaluation into ``folder``."""
    store.write_json(folder / "metrics.json", dict(evaluation.metrics))
    store.write_json(folder / "speed.json", dict(evaluation.speed))
    store.write_arrays(folder / "predictions.npz", evaluation.arrays)
    store.write_arrays(folder / "serving.npz", evaluation.serving)
    with store.atomic_folder(folder / "tables") as tables:
        for name, table in evaluation.tables.items():
            store.write_table(tables / f"{name}.csv", table)
        if evaluation.undefined:
            table = undefined.to_table(evaluation.undefined)
            store.write_table(tables / f"{undefined.TABLE}.csv", table)
    with store.atomic_folder(folder / "figures") as figures:
        for name, figure in evaluation.figures.items():
            if isinstance(figure, bytes):
                store.write_bytes(figures / name, figure)
            elif isinstance(figure, str):
                store.write_text(figures / f"{name}.svg", figure)
            else:
                store.write_figure(figures / f"{name}.png", figure)


def write_learning_curves(run: params.Block, folder: Path) -> None:
    """Draw the history of a run whose model was trained for several epochs."""
    if "epochs" not in run["fit"]:
        return
    from ostinato.evaluation import figures
    from ostinato.training.trainer import best_epoch

    history = pd.read_csv(store.existing(folder / "history.csv"))
    monitor = run["fit"].get("monitor")  # none where the weights of several epochs were averaged
    best = best_epoch(history.to_dict("records"), monitor) if monitor else None
    figure = figures.learning_curves(history, best)
    store.write_figure(folder / "figures" / "learning_curves.png", figure)


if __name__ == "__main__":
    command(main)
