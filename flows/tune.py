"""Search over the parameters of a run: grid, random or Bayesian, with pruning of bad trials.

Optuna draws the values, and its storage has the state of the search: flows that name the same
search work on it together, also on several machines, and the run after a killed one resumes it. A
trial is a training by `python -m stages.trial`, a process that trains several trials, one after
another; its value comes from the validation split alone, and it equals the result of `dvc repro`
for the same entry of params.yaml, bit for bit. Nothing is written outside scratch/ and MLflow: the
best entry becomes a result when it is pasted into params.yaml.

Optuna's own grid sampler and heartbeats do not support trials that are asked for one by one, so
`flows.engine.search_trials` has its own.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.engine import commands, dvc_graph
from flows.engine import search as search_settings
from flows.engine.errors import command, fails_with_message
from flows.engine.search import (
    Range,
    Search,
    Values,
    check_unchanged,
    decode_params,
    open_search,
    state_of,
    trial_of,
)
from flows.engine.search_report import conclude
from flows.engine.search_storage import (
    FAILURES,
    ignore_experimental_warnings,
    reports_failures,
    storage_lock,
)
from flows.engine.search_tracking import log_trial, set_status
from flows.engine.search_trials import (
    Heartbeats,
    ask,
    copy_result,
    enqueue_again,
    find_twin,
    take_over,
)
from flows.engine.search_workers import Workers
from ostinato import store
from ostinato.errors import FlowError, ParamsError
from ostinato.units import Name


@flow(name="tune", flow_run_name="tune {run}")
@fails_with_message
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
        storage: Address of Optuna's storage, for flows on several machines:
            postgresql://HOST/NAME, or grpc://HOST:PORT of its proxy. By default the variable
            OPTUNA_STORAGE (for an address with a password: parameters are shown), or a file of
            SQLite in scratch/tune.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
    """
    with commands.supervised():
        loaded = dvc_graph.check_study(study)
        search = open_search(loaded, run, space, sampler, pruner, objective, name, storage)
        set_status(search, "RUNNING")
        try:
            with (
                reports_failures(search.storage),
                closing(Workers(search.policy)) as workers,
            ):
                run_trials(search, trials, max_concurrency, workers)
                result = conclude(search)
        except BaseException as error:
            set_status(search, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        set_status(search, "FINISHED")
        return result


def run_trials(search: Search, total: int, max_concurrency: int, workers: Workers) -> None:
    """Run trials until the search has ``total`` of them, and none runs in any flow.

    Args:
        search: to work on.
        total: number of trials over all flows.
        max_concurrency: number of trials that this flow runs at the same time.
        workers: that train them.
    """
    pending: list[Trial] = []
    running: dict[int, tuple[Trial, Any]] = {}
    heartbeats = Heartbeats()
    while True:
        own = [*pending, *(trial for trial, _ in running.values())]
        with storage_lock(search.storage), ignore_experimental_warnings():
            check_unchanged(search)
            # First: on a busy machine this flow's own trials would look dead to others.
            heartbeats.record(own)
            take_over(search, heartbeats, (trial.number for trial in own))
            new = ask(search, total) if len(running) < max_concurrency else None
            heartbeats.record([new] if new else [])
        pending += [new] if new else []
        for trial in list(pending):
            twin = find_twin(search, trial)
            if twin and not twin.state.is_finished():
                continue
            pending.remove(trial)
            if twin:
                copy_result(search.optuna_study, trial, twin)
            else:
                name = f"trial {trial.number}: {format_params(trial.params)}"
                future = run_trial.with_options(task_run_name=name).submit(search, trial, workers)
                running[trial.number] = (trial, future)
        if new:
            continue
        if len(running) < max_concurrency:
            workers.keep(len(running))  # the memory and devices of the rest are free for others
        if not running and not search.optuna_study.get_trials(
            deepcopy=False, states=[TrialState.RUNNING]
        ):
            return
        wait_for_any([future for _, future in running.values()])
        for number, (_, future) in list(running.items()):
            if future.wrapped_future.done():
                del running[number]
                if state_of(trial_of(search.optuna_study, number)) == "killed":
                    future.result()  # raises: the flow has failed, not the trial


def wait_for_any(futures: Sequence[Any]) -> None:
    """Wait until a trial of this flow has ended, at most for the interval of the heartbeats."""
    if futures:
        threads = [future.wrapped_future for future in futures]
        wait(threads, timeout=search_settings.HEARTBEAT_INTERVAL_S, return_when=FIRST_COMPLETED)
    else:
        commands.wait_or_stop(search_settings.HEARTBEAT_INTERVAL_S)


class TrialError(FlowError):
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
def run_trial(search: Search, trial: Trial, workers: Workers) -> State[Any]:
    """Train the entry of a trial, and report the result to Optuna; the state names it, too."""
    study, entry = search.optuna_study, search.entry(trial.params)
    checkpoints = search.folder / "trials" / store.digest(entry)
    history = History(search, trial)
    value = error = None
    try:
        value = train_trial(search, entry, checkpoints, history, workers)
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
        with suppress(*FAILURES, UpdateFinishedTrialError):
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
    search: Search,
    entry: Mapping[str, Any],
    checkpoints: Path,
    history: History,
    workers: Workers,
) -> float:
    """Train by a process of `stages.trial`; returns the objective at the best epoch.

    Raises:
        TrialError: the training failed.
        TrialPruned: the pruner has stopped it.
    """
    with workers.take() as worker:
        output = worker.train({**search.plan, "run": entry}, checkpoints, history.add)
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


def format_params(drawn: Mapping[str, Any]) -> str:
    """The parameters of a trial in one line."""
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in decode_params(drawn).items()
    )


def parse_choice(text: str) -> tuple[str, dict[str, Any]]:
    """A parameter and its values or its range, from the command line.

    Args:
        text: ``build.units=[32, 64]`` or ``fit.learning_rate={low: 0.001, high: 0.01}``.

    Raises:
        ParamsError: it has another form.
    """
    name, equals, choice = text.partition("=")
    try:
        found = YAML(typ="safe").load(choice)
    except (YAMLError, ValueError) as error:
        raise ParamsError(f"{name}: not valid YAML: {error}") from None
    if isinstance(found, list):
        found = {"values": found}
    if not equals or not isinstance(found, dict):
        raise ParamsError(
            f"{text}: expected PARAMETER=[VALUE, ...] or PARAMETER={{low: NUMBER, high: NUMBER}}"
        )
    return name, found


@command
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
    space = dict(parse_choice(text) for text in arguments.pop("space"))
    state: Any = tune(**arguments, space=space, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
