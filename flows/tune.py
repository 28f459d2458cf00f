"""Search over the parameters of a run: grid, random or Bayesian, with pruning of bad trials.

Optuna draws the values, and its storage has the state of the search: flows that name the same
search work on it together, and the run after a killed one resumes it. A trial is
`python -m stages.trial` in a process of its own; its value comes from the validation split alone,
and it equals the result of `dvc repro` for the same entry of params.yaml, bit for bit. Nothing is
written outside scratch/ and MLflow: the best entry becomes a result when it is pasted into
params.yaml.

Optuna's own grid sampler does not support trials that are asked for one by one, so the points of a
grid are enqueued. Its heartbeat does not support them either, so the loop of the flow records it.
Its documentation prefers a journal file to SQLite for many writers; but only databases support
heartbeats, and a few flows that wait for each other's writes are not many.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import re
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from flows.engine import commands, devices, dvc_graph
from ostinato import params, store
from ostinato.errors import ParamsError
from ostinato.study import Study
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import runs
from ostinato.tracking.client import masked
from ostinato.units import Name

HEARTBEAT_INTERVAL_S = 5  # of a trial
HEARTBEAT_TIMEOUT_S = 20  # after which the flow of a trial is dead, and the trial is enqueued again
MLFLOW_BATCH = 1000  # metrics that MLflow accepts at once
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "killed": "KILLED", "failed": "FAILED"}


class Values(BaseModel):
    """Some values of a parameter; a value may be a list."""

    model_config = ConfigDict(extra="forbid")

    values: list[Any] = Field(min_length=1, description="The values to choose from")

    def bounds(self) -> list[Any]:
        """The values that must be valid for the parameter."""
        return self.values

    def grid(self) -> list[Any]:
        """The values of a grid."""
        return self.values


class Range(BaseModel):
    """All numbers between two."""

    model_config = ConfigDict(extra="forbid")

    low: int | float = Field(description="The lowest value")
    high: int | float = Field(description="The highest value")
    log: bool = Field(default=False, description="Whether to draw on a logarithmic scale")
    step: int | float | None = Field(default=None, gt=0, description="Between two values")

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and (self.step or self.low <= 0):
            raise ValueError("a logarithmic range must be above 0 and has no step")
        return self

    def bounds(self) -> list[Any]:
        """The values that must be valid for the parameter."""
        return [self.low, self.high]

    def grid(self) -> list[Any]:
        """The values of a grid.

        Raises:
            ParamsError: the range has no step.
        """
        step = self.step or (1 if isinstance(self.low, int) else None)
        if self.log or not step:
            raise ParamsError("space: a grid needs values, or ranges with a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [round(self.low + i * step, 12) for i in range(count)]


@dataclass(frozen=True)
class Search:
    """A search: a study of Optuna, and what is needed to work on it.

    Args:
        optuna_study: of the search.
        storage: of the study.
        study: with the params file.
        run: the name of the run.
        plan: arguments of `stages.trial`: study, seed, runtime and run.
        space: distributions by parameter.
        sampler: bayesian, random or grid.
        objective: column of the history.
        files: digests of the code and data that determine a result.
        folder: of the search, in scratch/.
    """

    optuna_study: optuna.Study
    storage: optuna.storages.RDBStorage
    study: Study
    run: str
    plan: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]
    sampler: str
    objective: str
    files: Mapping[str, str]
    folder: Path

    @property
    def name(self) -> str:
        """The name of the search."""
        return str(self.optuna_study.study_name)

    def entry(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The run's entry in params.yaml with the parameters of a trial."""
        entry: dict[str, Any] = deepcopy(self.plan["run"])
        for name, value in decode_params(drawn).items():
            part, _, key = name.partition(".")
            entry[part][key] = value
        return entry


def tune_folder(study: Study) -> Path:
    """The folder of all searches of a study."""
    return study.scratch("tune")


@flow(name="tune", flow_run_name="tune {run}")
def tune(
    run: str,
    space: dict[str, Values | Range],
    trials: Annotated[int, Field(ge=1)] = 20,
    sampler: Literal["bayesian", "random", "grid"] = "bayesian",
    pruner: Literal["median", "hyperband", "none"] = "median",
    max_concurrency: Annotated[int, Field(ge=1)] = 1,
    objective: str | None = None,
    name: Name | None = None,
    storage: str | None = None,
    study: str = "params.yaml",
) -> dict[str, Any]:
    """Search over the parameters of a run; the best is written as an entry for params.yaml.

    The same search run again resumes where it stopped, until the number of trials is reached. A
    trial that cannot be trained is recorded with the reason.

    Args:
        run: An entry of `runs` in the params file; its data must be prepared.
        space: For each parameter, such as build.units or fit.learning_rate, the values or the
            range to try. All other parameters stay as in the params file.
        trials: Number of trials in total, over all flows and all runs of the search. A grid ends
            earlier when all its points were tried.
        sampler: bayesian uses the results of earlier trials (tree-structured Parzen estimator);
            random does not; grid tries every combination.
        pruner: Stops a trial that is worse at an epoch than the median of earlier trials (median),
            or that is not among the best of its rung (hyperband).
        max_concurrency: Number of trials that this flow runs at the same time; each gets GPUs of
            its own.
        objective: Column of the history, at the epoch that the training restores; must be of the
            validation split. By default the column that the run itself monitors.
        name: Of the search. By default derived from all that determines a result, so a different
            search has a different name.
        storage: Address of Optuna's database, for flows on several machines:
            postgresql://HOST/NAME. By default the variable OPTUNA_STORAGE (for an address with a
            password: parameters are shown), or a file of SQLite in scratch/tune.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
    """
    with commands.supervised():
        loaded = dvc_graph.check_study(study)
        search = open_search(loaded, run, space, sampler, pruner, objective, name, storage)
        set_status(search, "RUNNING")
        try:
            run_trials(search, trials, max_concurrency)
            result = conclude(search)
        except BaseException as error:
            set_status(search, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        set_status(search, "FINISHED")
        return result


# Before the first trial


def open_search(
    study: Study,
    run: str,
    space: Mapping[str, Values | Range],
    sampler: str,
    pruner: str,
    objective: str | None,
    name: str | None,
    storage: str | None,
) -> Search:
    """Check the parameters of `tune`, and create or load the search.

    Raises:
        ParamsError: a parameter is wrong, or the search of that name has other parameters.
    """
    entry = study.entry("runs", run)
    plan = {
        "study": study.path.as_posix(),
        "seed": study.params["seed"],
        "runtime": study.params["runtime"],
        "run": entry,
    }
    objective = objective or str(entry["fit"].get("monitor", "validation_loss"))
    check_request(study, run, space, objective)
    if sampler == "grid":
        space = {key: Values(values=choice.grid()) for key, choice in space.items()}
    bounds = {key: choice.bounds() for key, choice in space.items()}
    checked = check_space({**plan, "space": bounds, "objective": objective})
    distributions = {
        key: to_distribution(key, choice, checked["types"][key]) for key, choice in space.items()
    }
    fixed = deepcopy(entry)
    for key in space:
        part, _, parameter = key.partition(".")
        del fixed[part][parameter]
    identity = {
        "objective": objective,
        "sampler": sampler,
        "space": {key: choice.model_dump() for key, choice in space.items()},
        **plan,
        "run": fixed,
        "files": checked["files"],
    }
    name = name or f"{re.sub('[^a-z0-9]+', '-', run.lower())[:55]}-{store.digest(identity)[:8]}"
    folder = tune_folder(study)
    url = storage or os.environ.get("OPTUNA_STORAGE")
    url = url or f"sqlite:///{folder.resolve() / 'studies.db'}?timeout=60"
    max_epochs = max([*bounds.get("fit.epochs", []), entry["fit"].get("epochs", 1)])
    pruners = {
        "median": optuna.pruners.MedianPruner(),
        "hyperband": optuna.pruners.HyperbandPruner(max_resource=max_epochs),
        "none": optuna.pruners.NopPruner(),
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with searches_lock(folder), ignore_experimental_warnings():
        database = optuna.storages.RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_INTERVAL_S,
            grace_period=HEARTBEAT_TIMEOUT_S,
            heartbeat_stale_trial_callback=enqueue_again,
        )
        optuna_study = optuna.create_study(
            storage=database,
            pruner=pruners[pruner],
            study_name=name,
            direction=checked["direction"],
            load_if_exists=True,
        )
        stored = optuna_study.user_attrs.get("search")
        if stored is None:
            optuna_study.set_user_attr("search", identity)
    if stored and (differences := list(_differences(stored, identity))):
        message = f"the search {name!r} has other parameters; choose another name:"
        raise ParamsError("\n  ".join([message, *differences]))
    get_run_logger().info("search %s in %s", name, masked(url))
    return Search(
        optuna_study=optuna_study,
        storage=database,
        study=study,
        run=run,
        plan=plan,
        space=distributions,
        sampler=sampler,
        objective=objective,
        files=checked["files"],
        folder=folder / name,
    )


def check_request(
    study: Study, run: str, space: Mapping[str, Values | Range], objective: str
) -> None:
    """Check what needs no model: the objective, the names in the space, and the data.

    Raises:
        ParamsError: one of them is wrong.
    """
    entry = study.entry("runs", run)
    if not objective.startswith("validation_"):
        raise ParamsError(f"objective: {objective!r} is not of the validation split")
    known = [f"{part}.{key}" for part in ("build", "fit") for key in entry[part]]
    if not space:
        raise ParamsError(f"space: empty; name one of {', '.join(known)}")
    for name in space:
        if name not in known:
            raise ParamsError(f"space: runs.{run} has no {name!r}; {params.near(name, known)}")
    data = entry["data"]
    if not (study.data_folder(data) / "manifest.json").exists():
        raise ParamsError(
            f"{study.data_folder(data)}: not prepared; run "
            f"`dvc repro {study.stage('prepare', data)}` first"
        )


def check_space(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Run `stages.trial check`, as models are not imported into a flow.

    Raises:
        ParamsError: a value of the space does not fit its parameter.
    """
    output = commands.run(sys.executable, "-m", "stages.trial", "check", json.dumps(plan))
    if output.code:
        raise ParamsError("\n".join(output.lines[-10:]))
    checked: dict[str, Any] = json.loads(output.lines[-1])
    if problems := checked["problems"]:
        raise ParamsError("\n".join(["space: invalid values:", *problems]))
    return checked


def to_distribution(name: str, choice: Values | Range, kind: str) -> BaseDistribution:
    """Optuna's distribution of a parameter; values of a list are stored as JSON.

    Args:
        name: of the parameter.
        choice: its values or its range.
        kind: its type: int, float or other.

    Raises:
        ParamsError: a range does not fit the type.
    """
    if isinstance(choice, Values):
        return CategoricalDistribution(list(dict.fromkeys(map(json.dumps, choice.values))))
    whole = isinstance(choice.step, int | None)
    if kind == "int" and whole:
        return IntDistribution(int(choice.low), int(choice.high), choice.log, choice.step or 1)
    if kind == "float":
        return FloatDistribution(choice.low, choice.high, choice.log, choice.step)
    reason = "the step must be a whole number" if kind == "int" else "not a number: give values"
    raise ParamsError(f"space.{name}: {reason}")


def _differences(stored: Any, given: Any, path: str = "") -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted({*stored, *given}):
            yield from _differences(stored.get(key), given.get(key), f"{path}.{key}".lstrip("."))
    elif stored != given:
        yield f"{path}: stored {stored!r}, given {given!r}"


# The trials


def run_trials(search: Search, total: int, max_concurrency: int) -> None:
    """Run trials until the search has ``total`` of them, and none runs in any flow.

    Args:
        search: to work on.
        total: number of trials over all flows.
        max_concurrency: number of trials that this flow runs at the same time.
    """
    pending: list[Trial] = []
    futures: dict[int, Any] = {}
    while True:
        new = prepare_next(search, total, futures, pending, max_concurrency)
        pending += [new] if new else []
        for trial in list(pending):
            twin = find_twin(search.optuna_study, trial)
            if twin and not twin.state.is_finished():
                continue
            pending.remove(trial)
            if twin:
                copy_result(search.optuna_study, trial, twin)
            else:
                name = f"trial {trial.number}: {format_params(trial.params)}"
                futures[trial.number] = run_trial.with_options(task_run_name=name).submit(
                    search, trial
                )
        if new:
            continue
        running = search.optuna_study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        if not futures and not running:
            return
        wait_for_any(futures)
        for number, future in list(futures.items()):
            if future.wrapped_future.done():
                del futures[number]
                if state_of(trial_of(search.optuna_study, number)) == "killed":
                    future.result()  # raises: the flow has failed, not the trial


def prepare_next(
    search: Search,
    total: int,
    futures: Mapping[int, Any],
    pending: list[Trial],
    max_concurrency: int,
) -> Trial | None:
    """Record heartbeats, take over the trials of dead flows, and ask for the next trial.

    Returns:
        None where this flow is busy, or there is no trial to start.
    """
    study = search.optuna_study
    with searches_lock(search.folder.parent), ignore_experimental_warnings():
        check_unchanged(search)
        for number in (*futures, *(trial.number for trial in pending)):
            # First: on a busy machine this flow's own trials would look dead.
            record_heartbeat(search, number)
        optuna.storages.fail_stale_trials(study)
        new = ask(search, total) if len(futures) < max_concurrency else None
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if "heartbeats" not in trial.user_attrs:  # of any flow, which may be dead
                record_heartbeat(search, trial.number)
                trial_id = _trial_id(search, trial.number)
                search.storage.set_trial_user_attr(trial_id, "heartbeats", True)
    return new


def wait_for_any(futures: Mapping[int, Any]) -> None:
    """Wait until a trial of this flow has ended, at most for the interval of the heartbeats."""
    if futures:
        threads = [future.wrapped_future for future in futures.values()]
        wait(threads, timeout=HEARTBEAT_INTERVAL_S, return_when=FIRST_COMPLETED)
    else:
        commands.wait_or_stop(HEARTBEAT_INTERVAL_S)


def ask(search: Search, total: int) -> Trial | None:
    """The next trial, or None where there is none to start.

    A suggestion is a function of the seed, of its number and of the results so far: a search with
    ``max_concurrency`` 1 repeats, however often it was stopped.
    """
    study = search.optuna_study
    known = study.get_trials(deepcopy=False)
    started = [trial for trial in known if state_of(trial) not in ("waiting", "killed")]
    if len(started) >= total:
        return None
    if not any(state_of(trial) == "waiting" for trial in known):
        if search.sampler == "grid":
            choices = (distribution.choices for distribution in search.space.values())
            products = itertools.product(*choices)
            points = (dict(zip(search.space, point, strict=True)) for point in products)
            tried = [trial.params for trial in known]
            point = next((point for point in points if point not in tried), None)
            if point is None:
                return None
            study.enqueue_trial(point)
        # Hashed, as the first numbers of neighbouring seeds are similar.
        seed = int(store.digest(search.plan["seed"], len(known))[:8], 16)
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            if search.sampler == "bayesian"
            else optuna.samplers.RandomSampler(seed)
        )
    return study.ask(dict(search.space))


class TrialError(Exception):
    """A trial cannot be trained; the message is the reason."""


class History:
    """The records of a trial's epochs: reported to Optuna and logged to MLflow as they arrive."""

    def __init__(self, search: Search, trial: Trial) -> None:
        self.search, self.trial = search, trial
        self.records: list[dict[str, Any]] = []
        self.logged = log_trial(search, trial, "running", self.records)

    def add(self, line: str) -> None:
        """Take a line of the trial's output.

        Raises:
            TrialError: a record lacks the objective.
            TrialPruned: the pruner stops the trial.
        """
        if not line.startswith("{"):
            get_run_logger().info(line)
            return
        record, objective = json.loads(line), self.search.objective
        if objective not in record:
            raise TrialError(f"no {objective!r} in the history; found {', '.join(record)}")
        self.records.append(record)
        self.logged = self.logged and log_trial(self.search, self.trial, "running", self.records)
        self.trial.report(record[objective], record["epoch"])
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def value(self) -> float:
        """The objective at the best epoch.

        Raises:
            TrialError: it is not finite.
        """
        objective = self.search.objective
        value = float(self.records[self.records[-1]["best"] - 1][objective])
        if not math.isfinite(value):
            raise TrialError(f"{objective} is {value}")
        return value


@task(name="trial", cache_policy=NO_CACHE)
def run_trial(search: Search, trial: Trial) -> State[Any]:
    """Train the entry of a trial, and report the result to Optuna; the state names it, too."""
    study, entry = search.optuna_study, search.entry(trial.params)
    checkpoints = search.folder / "trials" / store.digest(entry)
    history = History(search, trial)
    value = error = None
    try:
        value = train_trial(search, entry, checkpoints, history)
        ended = TrialState.COMPLETE
        state: State[Any] = Completed(message=f"{search.objective} {value:.6g}")
    except optuna.TrialPruned:
        ended = TrialState.PRUNED
        state = Completed(name="Pruned", message=f"after epoch {history.records[-1]['epoch']}")
    except TrialError as failure:
        error, ended, state = str(failure), TrialState.FAIL, Failed(message=str(failure))
    except UpdateFinishedTrialError:
        return lost()
    except BaseException:  # the flow ends: the next flow takes the trial over at once
        study.tell(trial, state=TrialState.FAIL)
        enqueue_again(study, trial_of(study, trial.number))
        log_trial(search, trial, "killed", history.records)
        raise
    try:
        trial.set_user_attr("history", history.records)
        if error:
            trial.set_user_attr("error", error)
        study.tell(trial, value, ended)
    except UpdateFinishedTrialError:
        return lost()
    store.remove(checkpoints)
    get_run_logger().info("%s: %s", state.name, state.message)
    log_trial(search, trial, state_of(trial_of(study, trial.number)), history.records)
    return state


def train_trial(
    search: Search, entry: Mapping[str, Any], checkpoints: Path, history: History
) -> float:
    """Run `stages.trial train`; returns the objective at the best epoch.

    Raises:
        TrialError: the training failed.
        TrialPruned: the pruner has stopped it.
    """
    plan = json.dumps({**search.plan, "run": entry})
    command = ("-m", "stages.trial", "train", plan, str(checkpoints))
    with devices.reserve_devices(search.plan["runtime"]["devices"]) as env:
        output = commands.run(sys.executable, *command, on_line=history.add, env=env)
    if output.code or not history.records:
        raise TrialError(failure_reason(output))
    return history.value()


def lost() -> State[Any]:
    """The state of a trial that another flow has taken over."""
    message = "its heartbeats were late, so another flow has started the trial again"
    return Completed(name="Lost", message=message)


def failure_reason(output: commands.Output) -> str:
    """The reason of a failed training: its last error, or its last line."""
    if output.code >= 128:
        return f"ended by signal {output.code - 128}; out of memory?"
    lines = [line.strip() for line in output.lines if line.strip() and not line.startswith("{")]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or lines or [f"ended with code {output.code} and no output"])[-1]


def find_twin(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """The first earlier trial with the same parameters that has ended or runs."""
    for other in study.get_trials(deepcopy=False)[: trial.number]:
        if other.params == trial.params and state_of(other) not in ("waiting", "killed"):
            return other
    return None


def copy_result(study: optuna.Study, trial: Trial, twin: FrozenTrial) -> None:
    """Give a trial the result of its twin: the same training again would have the same result."""
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    for name in ("history", "error"):
        if name in twin.user_attrs:
            trial.set_user_attr(name, twin.user_attrs[name])
    trial.set_user_attr("same_as", twin.number)
    study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, twin.state)
    get_run_logger().info("trial %d equals trial %d: not trained", trial.number, twin.number)


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a trial whose flow has died; Optuna calls this for stale trials."""
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def record_heartbeat(search: Search, number: int) -> None:
    """Record a heartbeat of a trial."""
    search.storage.record_heartbeat(_trial_id(search, number))


def _trial_id(search: Search, number: int) -> int:
    study_id = search.storage.get_study_id_from_name(search.name)
    return int(search.storage.get_trial_id_from_study_id_trial_number(study_id, number))


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """The trial of a number."""
    return study.get_trials(deepcopy=False)[number]


def state_of(trial: FrozenTrial) -> str:
    """waiting, running, complete, pruned, failed, or killed (which is enqueued again)."""
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "killed"
    return str(trial.state.name).lower()


def decode_params(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial as in params.yaml."""
    return {name: json.loads(v) if isinstance(v, str) else v for name, v in drawn.items()}


def format_params(drawn: Mapping[str, Any]) -> str:
    """The parameters of a trial in one line."""
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in decode_params(drawn).items()
    )


def check_unchanged(search: Search) -> None:
    """Raise a RuntimeError where code or data have changed since the search was opened."""
    changed = [
        name
        for name, digest in search.files.items()
        if not (path := Path(name)).exists() or store.digest(path) != digest
    ]
    if changed:
        raise RuntimeError(
            f"{', '.join(changed)}: changed since the search began, so new trials are not "
            "comparable with earlier ones; start another search"
        )


@contextlib.contextmanager
def searches_lock(folder: Path) -> Iterator[None]:
    """Exclude other flows of this checkout: while tables are created, and while trials start."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=60):
        yield


@contextlib.contextmanager
def ignore_experimental_warnings() -> Iterator[None]:
    """Ignore Optuna's warnings that heartbeats and the constant liar are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield


# The results


def conclude(search: Search) -> dict[str, Any]:
    """Write the best entry, the table and the figures; log the search to MLflow.

    Raises:
        RuntimeError: no trial was trained to its end.
    """
    study, folder = search.optuna_study, search.folder / "report"
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    for trial in finished:
        if not log_trial(search, trial, state_of(trial), trial.user_attrs.get("history", [])):
            break
    ended = [trial for trial in finished if state_of(trial) != "killed"]
    rows = [row_of(trial) for trial in ended]
    artifact = re.sub("[^a-z0-9]+", "-", f"tune-{search.name.lower()}")  # as Prefect allows it
    create_table_artifact(
        [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows],
        key=artifact,
        description=f"Trials of `{search.name}`",
    )
    counts = Counter(row["state"] for row in rows)
    if not counts["complete"]:
        reasons = Counter(row["note"] for row in rows if row["state"] == "failed")
        text = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(1))
        raise RuntimeError(f"search {search.name}: none of {len(rows)} trials completed; {text}")
    best = study.best_trial
    text = best_entry(search, best, ", ".join(f"{n} {state}" for state, n in counts.most_common()))
    with searches_lock(search.folder.parent), store.atomic_folder(folder) as written:
        store.write_text(written / "best.yaml", text)
        store.write_table(written / "trials.csv", pd.DataFrame(rows))
        write_figures(search, ended, written)
    with log_and_continue(), mlflow_store.connected() as client:
        key = mlflow_run(client, search).info.run_id
        client.log_artifacts(key, str(folder))
        client.log_metric(key, search.objective, best.value)
    path = folder / "best.yaml"
    create_markdown_artifact(
        f"# Best of `{search.name}`\n\nTrial {best.number}: {search.objective} {best.value:.6g}. "
        f"Paste the entry under `runs:` in {search.study.path} (it is in {path} too).\n\n"
        f"```yaml\n{text}```\n",
        key=f"{artifact}-best",
        description=f"Best of `{search.name}`",
    )
    get_run_logger().info("best of %d trials: trial %d: %s", len(rows), best.number, path)
    return {
        "name": search.name,
        "trials": len(rows),
        "best": best.number,
        search.objective: best.value,
        "entry": str(path),
    }


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's row of the table."""
    history, attributes = trial.user_attrs.get("history", []), trial.user_attrs
    twin = f"equals trial {attributes['same_as']}" if "same_as" in attributes else ""
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "value": trial.value,
        "epochs": len(history),
        "best epoch": history[-1]["best"] if history else None,
        **decode_params(trial.params),
        "seconds": round(sum(record.get("seconds", 0) for record in history)),
        "note": attributes.get("error", twin),
    }


def best_entry(search: Search, best: FrozenTrial, counts: str) -> str:
    """The best trial's entry for params.yaml, indented as under `runs:`, with a comment.

    Args:
        search: of the trial.
        best: the trial.
        counts: of the trials by state, in words.
    """
    name = f"{search.run}-tuned"
    epoch = best.user_attrs["history"][-1]["best"]
    about = (
        f"Found by `tune`: trial {best.number} of search {search.name} ({counts}), "
        f"{search.sampler} over {', '.join(search.space)}. {search.objective} {best.value:.4f} in "
        f"epoch {epoch}; `dvc repro {search.study.stage('train', name)}` reproduces it."
    )

    def in_flow_style(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: in_flow_style(inner) for key, inner in value.items()}
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        return value

    stream = StringIO()
    YAML().dump({name: in_flow_style(search.entry(best.params))}, stream)
    comment = textwrap.fill(about, 96, initial_indent="# ", subsequent_indent="# ")
    return textwrap.indent(f"{comment}\n{stream.getvalue()}", "  ")


def write_figures(search: Search, ended: list[FrozenTrial], folder: Path) -> None:
    """Draw the trials that have ended."""
    from flows.engine import tuning_figures

    values = [np.nan if trial.value is None else trial.value for trial in ended]
    table = pd.DataFrame([row_of(trial) for trial in ended]).assign(value=values)
    curves = [
        {"trial": t.number, "state": state_of(t), "epoch": epoch, "value": value}
        for t in ended
        for epoch, value in sorted(t.intermediate_values.items())
    ]
    logs = {name: bool(getattr(drawn, "log", False)) for name, drawn in search.space.items()}
    objective = search.objective
    minimized = search.optuna_study.direction == optuna.study.StudyDirection.MINIMIZE
    best = search.optuna_study.best_trial.number
    figures = {
        "trials": tuning_figures.trials(table, objective, minimized),
        "curves": tuning_figures.learning_curves(pd.DataFrame(curves), best, objective),
        "parameters": tuning_figures.parameters(table, logs, objective),
    }
    for title, figure in figures.items():
        store.write_figure(folder / f"{title}.png", figure)


# MLflow


def log_trial(
    search: Search, trial: Trial | FrozenTrial, state: str, records: list[dict[str, Any]]
) -> bool:
    """Bring a trial's MLflow run up to date; returns whether that succeeded."""
    logged = False
    with log_and_continue(), mlflow_store.connected() as client:
        from mlflow.entities import Metric, RunTag

        run = mlflow_run(client, search, trial)
        if run.data.tags["state"] not in STATUS:
            now, metrics = run.info.start_time, []
            for record in records:
                now += round(1000 * record.get("seconds", 0))
                metrics += [
                    Metric(key, value, now, record["epoch"])
                    for key, value in record.items()
                    if key not in ("epoch", "best") and math.isfinite(value)
                    if record["epoch"] > int(run.data.tags["epochs"])
                ]
            tags = [RunTag("state", state), RunTag("epochs", str(len(records)))]
            for start in range(0, len(metrics), MLFLOW_BATCH):
                client.log_batch(run.info.run_id, metrics[start : start + MLFLOW_BATCH])
            client.log_batch(run.info.run_id, tags=tags)
            if state in STATUS:
                client.set_terminated(run.info.run_id, STATUS[state])
        logged = True
    return logged


def mlflow_run(client: Any, search: Search, trial: Trial | FrozenTrial | None = None) -> Any:
    """The MLflow run of a trial, or of the search, its parent; created where there is none."""
    from mlflow.entities import Param

    experiment_name = runs.experiment_name(search.study, search.plan["run"]["data"])
    experiment = mlflow_store.experiment(client, experiment_name)
    number = str(trial.number) if trial else "all"
    tags = {"stage": "tune", "search": search.name, "trial": number}
    wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    if found := client.search_runs([experiment], wanted):
        return found[0]
    tags |= {"run": search.run, "mlflow.source.name": "flows/tune.py"}
    if trial:
        parent = mlflow_run(client, search)
        tags |= {"mlflow.parentRunId": parent.info.run_id, "state": "running", "epochs": "0"}
        entry = search.entry(trial.params)
        values = {f"{part}.{key}": v for part in ("build", "fit") for key, v in entry[part].items()}
        title = f"trial {number}"
    else:
        identity = search.optuna_study.user_attrs["search"]
        settings = {key: identity[key] for key in ("objective", "sampler", "seed")}
        values = {**settings, **identity["space"], **identity["files"]}
        title = f"tune {search.name}"
    run = client.create_run(experiment, run_name=title, tags=tags)
    client.log_batch(
        run.info.run_id, params=[Param(key, str(value)[:6000]) for key, value in values.items()]
    )
    return run


def set_status(search: Search, status: str) -> None:
    """Set the status of the search's run in MLflow."""
    with log_and_continue(), mlflow_store.connected() as client:
        key = mlflow_run(client, search).info.run_id
        if status == "RUNNING":
            client.update_run(key, status)
        else:
            client.set_terminated(key, status)


@contextlib.contextmanager
def log_and_continue() -> Iterator[None]:
    """Log a failure of MLflow as a warning: Optuna has the state, and a later run logs the rest."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(
            "not tracked in %s: %s; run the same search again later to complete it",
            masked(mlflow_store.uri()),
            masked(str(error))[:300],
        )


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.tune")
    parser.add_argument("run", metavar="RUN", help="an entry of runs in the params file")
    parser.add_argument(
        "space",
        metavar="PARAMETER=CHOICE",
        nargs="+",
        help="'build.units=[32, 64]' or 'fit.learning_rate={low: 0.001, high: 0.01, log: true}'",
    )
    parser.add_argument("--trials", type=int)
    parser.add_argument("--sampler", choices=["bayesian", "random", "grid"])
    parser.add_argument("--pruner", choices=["median", "hyperband", "none"])
    parser.add_argument("--max-concurrency", type=int)
    for name in ("objective", "name", "storage", "study"):
        parser.add_argument(f"--{name}")
    arguments = {
        key: value for key, value in vars(parser.parse_args()).items() if value is not None
    }
    pairs = (item.partition("=") for item in arguments.pop("space"))
    choices = {name: YAML(typ="safe").load(choice) for name, _, choice in pairs}
    space = {name: {"values": c} if isinstance(c, list) else c for name, c in choices.items()}
    state: Any = tune(**arguments, space=space, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
