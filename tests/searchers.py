"""Ten processes that work on one search: `python -m tests.searchers STORAGE NAME FOLDER...`.

Each process does what the loop of `tune` does, with a training of a fraction of a second. They are
forked, as each import of Prefect would take seconds. The first one to get trial 3 hangs in it: the
process that started them kills it.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
from optuna.trial import TrialState
from prefect.logging.loggers import disable_run_logger

from flows.engine import search as search_settings
from flows.engine.search import Search
from flows.engine.search_storage import (
    ignore_experimental_warnings,
    open_storage,
    storage_lock,
)
from flows.engine.search_trials import Heartbeats, ask, copy_result, find_twin, take_over

PROCESSES, TOTAL = 10, 24
HANGING = 3


def work(storage: str, name: str, folder: Path) -> None:
    """Work on the search until it is complete; begin when all processes are there."""
    os.chdir(folder)
    values = [str(value) for value in range(TOTAL)]
    with storage_lock(storage):
        study = optuna.create_study(
            storage=open_storage(storage), study_name=name, load_if_exists=True
        )
    search = Search(
        optuna_study=study,
        storage=storage,
        study=cast(Any, None),
        run="toy",
        plan={"seed": 7},
        space={"build.x": optuna.distributions.CategoricalDistribution(values)},
        sampler="grid",
        objective="validation_loss",
        files={},
        folder=folder,
        policy=cast(Any, SimpleNamespace()),
    )
    (folder / f"ready-{os.getpid()}").touch()
    while len(list(folder.parent.glob("*/ready-*"))) < PROCESSES:
        time.sleep(0.1)
    heartbeats = Heartbeats()
    while True:
        with storage_lock(storage):
            take_over(search, heartbeats, ())
            trial = ask(search, TOTAL)
            heartbeats.record([trial] if trial else [])
        if trial is None:
            if not study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                return
            time.sleep(search_settings.HEARTBEAT_INTERVAL_S)
            continue
        while (twin := find_twin(search, trial)) and not twin.state.is_finished():
            heartbeats.record([trial])
            time.sleep(0.1)
        if twin:
            copy_result(study, trial, twin)
            continue
        note = {"number": trial.number, "x": trial.params["build.x"], "process": os.getpid()}
        with (folder / "trained").open("a") as file:
            file.write(json.dumps(note) + "\n")
        time.sleep(600 if trial.number == HANGING else 0.3)
        study.tell(trial, float(trial.params["build.x"]))


def main(storage: str, name: str, *folders: str) -> None:
    """Fork the processes; they take turns in the folders, which stand for clones."""
    search_settings.HEARTBEAT_INTERVAL_S, search_settings.HEARTBEAT_TIMEOUT_S = 0.5, 4.0
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    children = []
    for index in range(PROCESSES):
        if not (child := os.fork()):
            with disable_run_logger(), ignore_experimental_warnings():
                work(storage, name, Path(folders[index % len(folders)]))
            os._exit(0)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    print(json.dumps(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
