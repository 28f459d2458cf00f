"""The trainings of a search.

    python -m stages.trial check PLAN
    python -m stages.trial train

PLAN is JSON. `train` is a worker: it reads requests from standard input and trains one after the
other, so imports, and graphs of the same shapes, are paid once. Writes nothing to data/ and
results/ and does not use MLflow: flows/tune.py reads the results from standard output.
"""

import gc
import json
import logging
import os
import resource
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from ostinato import models, params, store
from ostinato.errors import OstinatoError, ParamsError
from ostinato.study import Study
from ostinato.task import Record, TrainingContext
from ostinato.training.imports import import_keras_quietly
from ostinato.training.machine import this_machine
from stages.entry import command

if TYPE_CHECKING:
    from ostinato.training.graphs import Graphs

ROOT = Path(__file__).resolve().parent.parent


STOP = {"stop": True}  # the request to end the running training after its epoch
FREE = ("learning_rate", "epochs", "batch_size", "monitor", "patience")
"""Parameters of `trainer.fit` that no graph depends on."""


class TrialStoppedError(OstinatoError):
    """The flow has stopped the training."""


def main(verb: str, plan: str = "") -> None:
    """Check the plan of a search, or train its entries.

    Args:
        verb: check or train.
        plan: for a check: study (the path of the params file), seed, runtime and run (blocks of
            it), space (the values to try of each parameter, ``build.units``) and objective (a
            column of the history).
    """
    import_keras_quietly()
    if verb == "check":
        print(json.dumps(check(**json.loads(plan))))
    else:
        work()


def work() -> None:
    """Train what is requested, line by line of standard input, until it ends.

    A request has ``plan``, as for a check but without space and objective, and ``folder``, of the
    training's checkpoints: a killed training resumes from them. `STOP` ends a training after its
    epoch. The answers are the record of each epoch, and at the end ``ended``, which is completed or
    stopped, and ``memory``, the resident bytes of this process.

    A training that fails ends the process: no later one runs in a state that nobody knows.
    """
    from ostinato.training.graphs import Graphs

    graphs = Graphs()
    gc.freeze()  # the imported modules
    while line := sys.stdin.readline():
        request, ended = json.loads(line), "completed"
        if request == STOP:  # its training had ended
            continue
        try:
            train(**request["plan"], folder=Path(request["folder"]), graphs=graphs)
        except TrialStoppedError:
            ended = "stopped"
        gc.collect()
        # On a line of its own: a library may have written half a line to the same pipe.
        print("\n" + json.dumps({"ended": ended, "memory": resident_bytes()}), flush=True)


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

    if "placement" in run:
        raise ParamsError(
            "placement: a search trains on one device; search a run without it, which has the same "
            "results, and set the values found in this run"
        )
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


def train(
    study: str, seed: int, runtime: Any, run: Any, folder: Path, graphs: "Graphs | None" = None
) -> None:
    """Train as ``stages.train`` does; print the record of each epoch and the best epoch so far.

    Args:
        study: path of the params file.
        seed: of the study.
        runtime: block of the params file.
        run: entry of the params file.
        folder: of the checkpoints.
        graphs: of the trainings of this process so far.

    Raises:
        TrialStoppedError: the flow has requested it.
    """
    from ostinato.training import runtime as runtimes
    from ostinato.training import trainer

    machine, loaded = this_machine(), Study.load(study)
    model = models.load(run["domain"], run["model"])
    build, fit = params.bind(model.build, run["build"]), params.bind(model.fit, run["fit"])
    dataset = params.module(run["domain"], "dataset").load(loaded.data_folder(run["data"]))
    files = digests(loaded, run)
    checkpoints = folder / store.digest(seed, runtime, run, files)
    history: list[Record] = []

    def on_epoch(record: Record) -> None:
        history.append(record)
        monitor = run["fit"].get("monitor")  # none where nothing is learned by gradients
        best = trainer.best_epoch(history, monitor) if monitor else len(history)
        print(json.dumps({**record, "best": best}), flush=True)
        if graphs and select.select([sys.stdin], [], [], 0)[0]:
            sys.stdin.readline()  # STOP, or the end of the flow
            raise TrialStoppedError("stopped by the flow")

    if graphs and cast(object, model.fit) is trainer.fit and machine.devices == 1:
        kept = {name: value for name, value in run["fit"].items() if name not in FREE}
        graphs.select(store.digest(seed, runtime, {**run, "fit": kept}, files))
        context = TrainingContext(checkpoints, seed, on_epoch, graphs)
    else:
        context = TrainingContext(checkpoints, seed, on_epoch)
    device = runtimes.device_record(machine, params.entry(runtime, "precision"))
    logging.getLogger("ostinato").info("trains on %s", device)
    with params.bind(runtimes.runtime, runtime)(seed, machine):
        fit(build(dataset), dataset, context)


def resident_bytes() -> int:
    """The memory that this process occupies; where the system has no /proc, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


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
