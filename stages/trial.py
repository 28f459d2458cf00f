"""One training of a search.

    python -m stages.trial check|train PLAN [FOLDER]

PLAN is JSON. Writes nothing to data/ and results/ and does not use MLflow: flows/tune.py reads the
results from standard output.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ostinato import models, params, store
from ostinato.errors import ParamsError
from ostinato.study import Study
from ostinato.task import Record, TrainingContext
from ostinato.training.imports import import_keras_quietly
from ostinato.training.machine import this_machine
from stages.entry import command

ROOT = Path(__file__).resolve().parent.parent


def main(verb: str, plan: str, folder: str = "") -> None:
    """Check the plan of a search, or train one of its entries.

    Args:
        verb: check or train.
        plan: study (the path of the params file), seed, runtime and run (blocks of it); for a check
            also space (the values to try of each parameter, ``build.units``) and objective (a
            column of the history).
        folder: of the training's checkpoints; a killed training resumes from them.
    """
    values = json.loads(plan)
    import_keras_quietly()
    if verb == "check":
        print(json.dumps(check(**values)))
    else:
        train(**values, folder=Path(folder))


def check(
    study: str, seed: int, runtime: Any, run: Any, space: dict[str, list[Any]], objective: str
) -> dict[str, Any]:
    """Check the plan of a search.

    Returns:
        problems: the values that do not fit their parameter, each with the reason.
        types: of each parameter: int, float or other.
        direction: minimize or maximize the objective.
        files: digests of the code and data that determine a result.

    Raises:
        ParamsError: the run itself or the objective is wrong.
    """
    from ostinato.training import runtime as runtimes
    from ostinato.training import trainer

    model = models.load(run["domain"], run["model"])
    params.bind(runtimes.runtime, runtime)
    if "metrics" in run["fit"]:
        known = [f"validation_{name}" for name in ("loss", *run["fit"]["metrics"])]
        if objective not in known:
            raise ParamsError(f"objective: no {objective!r}; {params.near(objective, known)}")
    problems, types = [], {}
    for part in ("build", "fit"):
        params.bind(getattr(model, part), run[part])
    for name, values in space.items():
        part, _, key = name.partition(".")
        function = getattr(model, part)
        for value in values:
            try:
                params.bind(function, {**run[part], key: value})
            except ParamsError as error:
                problems.append(str(error))
        hint = get_type_hints(function)[key]
        kinds = [kind for kind in (float, int) if kind in (hint, *get_args(hint))]
        types[name] = kinds[0].__name__ if kinds else "other"
    rises = trainer.best_epoch([{objective: 0.0}, {objective: 1.0}], objective) == 2
    return {
        "problems": problems,
        "types": types,
        "direction": "maximize" if rises else "minimize",
        "files": digests(Study.load(study), run),
    }


def train(study: str, seed: int, runtime: Any, run: Any, folder: Path) -> None:
    """Train as ``stages.train`` does; print the record of each epoch and the best epoch so far."""
    from ostinato.training import runtime as runtimes
    from ostinato.training import trainer

    machine, loaded = this_machine(), Study.load(study)
    model = models.load(run["domain"], run["model"])
    build, fit = params.bind(model.build, run["build"]), params.bind(model.fit, run["fit"])
    dataset = params.module(run["domain"], "dataset").load(loaded.data_folder(run["data"]))
    checkpoints = folder / store.digest(seed, runtime, run, digests(loaded, run))
    history: list[Record] = []

    def on_epoch(record: Record) -> None:
        history.append(record)
        monitor = run["fit"].get("monitor")  # none where nothing is learned by gradients
        best = trainer.best_epoch(history, monitor) if monitor else len(history)
        print(json.dumps({**record, "best": best}), flush=True)

    device = runtimes.device_record(machine, params.entry(runtime, "precision"))
    logging.getLogger("ostinato").info("trains on %s", device)
    with params.bind(runtimes.runtime, runtime)(seed, machine):
        fit(build(dataset), dataset, TrainingContext(checkpoints, seed, on_epoch))


def digests(study: Study, run: Any) -> dict[str, str]:
    """The digests of the code and the data that determine a training's result, by path."""
    code = params.training_code(run["domain"], run["model"])
    files = {path.resolve().relative_to(ROOT).as_posix(): path for path in code}
    manifest = study.data_folder(run["data"]) / "manifest.json"
    files[manifest.as_posix()] = manifest
    return {name: store.digest(path) for name, path in files.items()}


if __name__ == "__main__":
    try:
        command(main)
    except KeyboardInterrupt:  # the flow has stopped the trial
        sys.exit(130)
