"""Search over the parameters of a run: grid, random or Bayesian, stopping what is hopeless.

Optuna chooses the values, and its storage is the truth: flows that name the same study work on it
together, and one that was killed goes on. A trial is `python -m stages.trial` in a process of
its own; its value comes from the validation split alone, and its result is the one that
`dvc repro` gives for the same entry of params.yaml, bit for bit. Nothing is written outside
scratch/ and MLflow: the best entry becomes a result when it is pasted into params.yaml.

Optuna's own grid sampler does not fit trials that are asked for one by one: a grid's points are
put in the study's queue instead. Its heartbeat does not either, so the flow's loop beats. Its
documentation prefers a journal file to SQLite where many processes write at once; but only
databases know heartbeats, and a few flows that wait for each other's writes are not many.
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
from ostinato import errors as ostinato_errors
from ostinato import params, store
from ostinato.tracking import mirror
from ostinato.units import Name

BEAT = 5  # seconds between the signs of life of a trial
GRACE = 20  # seconds without one after which its flow is dead, and it is run again
FOLDER = Path("scratch", "tune")
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "killed": "KILLED", "failed": "FAILED"}


class Values(BaseModel):
    """Some values of a parameter; each may be a list."""

    model_config = ConfigDict(extra="forbid")

    values: list[Any] = Field(min_length=1, description="The values to choose from")

    def ends(self) -> list[Any]:
        """The values that must fit the parameter."""
        return self.values

    def listed(self) -> list[Any]:
        """The values of a grid."""
        return self.values


class Range(BaseModel):
    """All values of a number between two."""

    model_config = ConfigDict(extra="forbid")

    low: int | float = Field(description="The lowest value")
    high: int | float = Field(description="The highest value")
    log: bool = Field(default=False, description="Whether factors count, and not differences")
    step: int | float | None = Field(default=None, gt=0, description="Between two values")

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and (self.step or self.low <= 0):
            raise ValueError("a logarithmic range lies above 0 and has no step")
        return self

    def ends(self) -> list[Any]:
        """The values that must fit the parameter."""
        return [self.low, self.high]

    def listed(self) -> list[Any]:
        """The values of a grid."""
        step = self.step or (1 if isinstance(self.low, int) else None)
        if self.log or not step:
            raise ostinato_errors.ParamsError("space: a grid needs values, or ranges with a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [round(self.low + i * step, 12) for i in range(count)]


@dataclass(frozen=True)
class Search:
    """A study and what is needed to work on it."""

    study: optuna.Study
    storage: optuna.storages.RDBStorage
    run: str
    plan: Mapping[str, Any]  # seed, machine and run: the blocks of params.yaml
    space: Mapping[str, BaseDistribution]
    sampler: str
    objective: str
    files: Mapping[str, str]  # the code and data that decide a result, with their md5s
    folder: Path

    def entry(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The run's entry in params.yaml with a trial's values."""
        entry: dict[str, Any] = deepcopy(self.plan["run"])
        for name, value in values_of(chosen).items():
            part, _, key = name.partition(".")
            entry[part][key] = value
        return entry


@flow(name="tune", flow_run_name="tune {run}")
def tune(
    run: str,
    space: dict[str, Values | Range],
    trials: Annotated[int, Field(ge=1)] = 20,
    sampler: Literal["bayesian", "random", "grid"] = "bayesian",
    pruner: Literal["median", "hyperband", "none"] = "median",
    at_once: Annotated[int, Field(ge=1)] = 1,
    objective: str | None = None,
    study: Name | None = None,
    storage: str | None = None,
) -> dict[str, Any]:
    """Search over the parameters of a run; the best is written as an entry for params.yaml.

    The same search run again goes on where it stopped, until there are as many trials as asked
    for. A trial that cannot be trained is kept with its reason.

    Args:
        run: An entry of `runs` in params.yaml; its data must be prepared.
        space: What to try of which parameter, such as build.units or fit.rate: some values, or a
            range. All else stays as it is in params.yaml.
        trials: How many in all, over all flows that work on the study and all times that it is
            run. A grid ends earlier when all of it was tried.
        sampler: bayesian learns from the trials before (tree-structured Parzen estimators);
            random does not; grid tries every combination.
        pruner: Stops a trial that is worse at an epoch than the median of those before, or that
            is not among the best of its rung (hyperband).
        at_once: Trials that run side by side in this flow; GPUs are shared out one a trial.
        objective: The column of the history that counts, at the epoch that the training keeps;
            must be of the validation split. By default what the run itself monitors.
        study: Its name. By default made from all that decides a value, so that another search is
            another study.
        storage: Address of Optuna's database, for flows on several machines:
            postgresql://HOST/NAME. By default the environment's OPTUNA_STORAGE (the place for a
            password: parameters are shown), or a file of SQLite in scratch/tune.
    """
    with commands.supervised():
        search = _open(run, space, sampler, pruner, objective, study, storage)
        _mark(search, "RUNNING")
        try:
            _work(search, trials, at_once)
            result = _conclude(search)
        except BaseException as error:
            _mark(search, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        _mark(search, "FINISHED")
        return result


# Before the first trial


def _open(
    run: str,
    space: Mapping[str, Values | Range],
    sampler: str,
    pruner: str,
    objective: str | None,
    study: str | None,
    storage: str | None,
) -> Search:
    """Check all that was asked for, and open the study.

    Raises:
        ParamsError: something does not fit, or the study of that name is of another search.
    """
    values = dvc_graph.check_study()
    entry = params.entry(values, "runs", run)
    plan = {"seed": values["seed"], "runtime": values["runtime"], "run": entry}
    objective = objective or str(entry["fit"].get("monitor", "validation_loss"))
    if not objective.startswith("validation_"):
        raise ostinato_errors.ParamsError(
            f"objective: {objective!r} is not of the validation split"
        )
    known = [f"{part}.{key}" for part in ("build", "fit") for key in entry[part]]
    if not space:
        raise ostinato_errors.ParamsError(f"space: nothing to search; there is {', '.join(known)}")
    for name in space:
        if name not in known:
            near = params.near(name, known)
            raise ostinato_errors.ParamsError(f"space: runs.{run} has no {name!r}; {near}")
    if not Path("data", entry["data"], "manifest.json").exists():
        raise ostinato_errors.ParamsError(
            f"data/{entry['data']}: not prepared; run `dvc repro prepare@{entry['data']}` first"
        )
    if sampler == "grid":
        space = {name: Values(values=choice.listed()) for name, choice in space.items()}
    ends = {name: choice.ends() for name, choice in space.items()}
    checked = _checked({**plan, "space": ends, "objective": objective})
    drawn = {name: _drawn(name, choice, checked["types"][name]) for name, choice in space.items()}
    rest = deepcopy(entry)
    for name in space:
        part, _, key = name.partition(".")
        del rest[part][key]
    identity = {
        "objective": objective,
        "sampler": sampler,
        "space": {name: choice.model_dump() for name, choice in space.items()},
        **plan,
        "run": rest,
        "files": checked["files"],
    }
    name = study or f"{re.sub('[^a-z0-9]+', '-', run.lower())[:55]}-{store.digest(identity)[:8]}"
    url = storage or os.environ.get("OPTUNA_STORAGE")
    url = url or f"sqlite:///{FOLDER.resolve() / 'studies.db'}?timeout=60"
    longest = max([*ends.get("fit.epochs", []), entry["fit"].get("epochs", 1)])
    pruners = {
        "median": optuna.pruners.MedianPruner(),
        "hyperband": optuna.pruners.HyperbandPruner(max_resource=longest),
        "none": optuna.pruners.NopPruner(),
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _alone(), _quiet():
        database = optuna.storages.RDBStorage(
            url,
            heartbeat_interval=BEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=_again,
        )
        opened = optuna.create_study(
            storage=database,
            pruner=pruners[pruner],
            study_name=name,
            direction=checked["direction"],
            load_if_exists=True,
        )
        there = opened.user_attrs.get("search")
        if there is None:
            opened.set_user_attr("search", identity)
    if there and (other := list(_differences(there, identity))):
        raise ostinato_errors.ParamsError(
            "\n  ".join([f"study {name!r} is of another search; give it another name:", *other])
        )
    get_run_logger().info("study %s in %s", name, mirror.masked(url))
    return Search(
        opened, database, run, plan, drawn, sampler, objective, checked["files"], FOLDER / name
    )


def _checked(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What `stages.trial check` finds: models are not imported into a flow."""
    output = commands.run(sys.executable, "-m", "stages.trial", "check", json.dumps(plan))
    if output.code:
        raise ostinato_errors.ParamsError("\n".join(output.lines[-10:]))
    checked: dict[str, Any] = json.loads(output.lines[-1])
    if problems := checked["problems"]:
        raise ostinato_errors.ParamsError("\n".join(["space: these do not fit:", *problems]))
    return checked


def _drawn(name: str, choice: Values | Range, kind: str) -> BaseDistribution:
    """How Optuna draws a parameter; what is chosen from a list stands in the study as JSON."""
    if isinstance(choice, Values):
        return CategoricalDistribution(list(dict.fromkeys(map(json.dumps, choice.values))))
    whole = isinstance(choice.step, int | None)
    if kind == "int" and whole:
        return IntDistribution(int(choice.low), int(choice.high), choice.log, choice.step or 1)
    if kind == "float":
        return FloatDistribution(choice.low, choice.high, choice.log, choice.step)
    raise ostinato_errors.ParamsError(
        f"space.{name}: {'the step must be a whole number' if kind == 'int' else 'give values'}"
    )


def _differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f"{where}.{key}".lstrip("."))
    elif there != here:
        yield f"{where}: {there!r} there, {here!r} here"


# The trials


def _work(search: Search, total: int, at_once: int) -> None:
    """Run trials until the study has so many, and none of them runs anywhere."""
    asked: list[Trial] = []
    futures: dict[int, Any] = {}
    while True:
        with _alone(), _quiet():
            _unchanged(search.files)
            for number in (*futures, *(trial.number for trial in asked)):
                _beat(search, number)  # first: on a busy machine its own trials would look dead
            optuna.storages.fail_stale_trials(search.study)
            new = _ask(search, total) if len(futures) < at_once else None
            for trial in search.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if "beats" not in trial.user_attrs:  # of whoever asked for it, and may be dead
                    _beat(search, trial.number)
                    trial_id = _id(search, trial.number)
                    search.storage.set_trial_user_attr(trial_id, "beats", True)
        asked += [new] if new else []
        for trial in list(asked):
            twin = _twin(search.study, trial)
            if twin and not twin.state.is_finished():
                continue
            asked.remove(trial)
            if twin:
                _repeat(search.study, trial, twin)
            else:
                name = f"trial {trial.number}: {_told(trial.params)}"
                submit = attempt.with_options(task_run_name=name).submit
                futures[trial.number] = submit(search, trial)
        if new:
            continue
        running = search.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        if not futures and not running:
            return
        if futures:
            threads = [future.wrapped_future for future in futures.values()]
            wait(threads, timeout=BEAT, return_when=FIRST_COMPLETED)
        else:
            commands.wait_or_stop(BEAT)
        for number, future in list(futures.items()):
            if future.wrapped_future.done():
                del futures[number]
                if state_of(_of(search.study, number)) == "killed":
                    future.result()  # raises: it is not the trial that failed, but the flow


def _ask(search: Search, total: int) -> Trial | None:
    """The next trial, or None where there is none to begin.

    A suggestion is a function of the seed, of its number and of the results so far: a search with
    one trial at once repeats, however often it was stopped.
    """
    known = search.study.get_trials(deepcopy=False)
    begun = [trial for trial in known if state_of(trial) not in ("waiting", "killed")]
    if len(begun) >= total:
        return None
    if not any(state_of(trial) == "waiting" for trial in known):
        if search.sampler == "grid":
            choices = (drawn.choices for drawn in search.space.values())
            products = itertools.product(*choices)
            points = (dict(zip(search.space, point, strict=True)) for point in products)
            tried = [trial.params for trial in known]
            point = next((point for point in points if point not in tried), None)
            if point is None:
                return None
            search.study.enqueue_trial(point)
        # Hashed: the first numbers of neighbouring seeds are alike.
        seed = int(store.digest(search.plan["seed"], len(known))[:8], 16)
        search.study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            if search.sampler == "bayesian"
            else optuna.samplers.RandomSampler(seed)
        )
    return search.study.ask(dict(search.space))


@task(name="trial", cache_policy=NO_CACHE)
def attempt(search: Search, trial: Trial) -> State[Any]:
    """Train a trial's entry and tell the study how it ended; the state says the same."""
    logger, study = get_run_logger(), search.study
    entry = search.entry(trial.params)
    checkpoints = search.folder / "trials" / store.digest(entry)
    history: list[dict[str, Any]] = []
    tracked = _track(search, trial, "running", history)

    def on_line(line: str) -> None:
        nonlocal tracked
        if not line.startswith("{"):
            logger.info(line)
            return
        record = json.loads(line)
        if search.objective not in record:
            raise _Bad(f"no {search.objective!r} in the history: {', '.join(record)}")
        history.append(record)
        tracked = tracked and _track(search, trial, "running", history)
        trial.report(record[search.objective], record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    command = json.dumps({**search.plan, "run": entry}), str(checkpoints)
    value = error = None
    try:
        with devices.reserve_devices(search.plan["runtime"]["devices"]) as env:
            output = commands.run(
                sys.executable, "-m", "stages.trial", "train", *command, on_line=on_line, env=env
            )
        if output.code or not history:
            raise _Bad(_reason(output))
        value = history[history[-1]["best"] - 1][search.objective]
        if not math.isfinite(value):
            raise _Bad(f"{search.objective} is {value}")
        ended = TrialState.COMPLETE
        how: State[Any] = Completed(message=f"{search.objective} {value:.6g}")
    except optuna.TrialPruned:
        ended = TrialState.PRUNED
        how = Completed(name="Pruned", message=f"after epoch {history[-1]['epoch']}")
    except _Bad as bad:
        value, error, ended, how = None, str(bad), TrialState.FAIL, Failed(message=str(bad))
    except UpdateFinishedTrialError:
        return Completed(name="Lost", message="taken for dead, and begun again by another flow")
    except BaseException:  # the flow ends: the trial is the next one's, without delay
        study.tell(trial, state=TrialState.FAIL)
        _again(study, _of(study, trial.number))
        _track(search, trial, "killed", history)
        raise
    try:
        trial.set_user_attr("history", history)
        if error:
            trial.set_user_attr("error", error)
        study.tell(trial, value, ended)
    except UpdateFinishedTrialError:
        return Completed(name="Lost", message="taken for dead, and begun again by another flow")
    store.remove(checkpoints)
    logger.info("%s: %s", how.name, how.message)
    _track(search, trial, state_of(_of(study, trial.number)), history)
    return how


class _Bad(Exception):
    """Why a trial cannot be trained."""


def _reason(output: commands.Output) -> str:
    if output.code >= 128:
        return f"ended by signal {output.code - 128}; was there too little memory?"
    said = [line.strip() for line in output.lines if line.strip() and not line.startswith("{")]
    errors = [line for line in said if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or said or [f"ended with code {output.code} and said nothing"])[-1]


def _twin(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """The first of the earlier trials with the same values that ended or runs."""
    for other in study.get_trials(deepcopy=False)[: trial.number]:
        if other.params == trial.params and state_of(other) not in ("waiting", "killed"):
            return other
    return None


def _repeat(study: optuna.Study, trial: Trial, twin: FrozenTrial) -> None:
    """Give a trial the result of its twin: the same training again would give the same."""
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    for name in ("history", "error"):
        if name in twin.user_attrs:
            trial.set_user_attr(name, twin.user_attrs[name])
    trial.set_user_attr("same_as", twin.number)
    study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, twin.state)
    get_run_logger().info("trial %d is trial %d again: not trained", trial.number, twin.number)


def _again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a trial whose flow died back into the queue: Optuna calls this for stale ones."""
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _beat(search: Search, number: int) -> None:
    search.storage.record_heartbeat(_id(search, number))


def _id(search: Search, number: int) -> int:
    study_id = search.storage.get_study_id_from_name(search.study.study_name)
    return int(search.storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _of(study: optuna.Study, number: int) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[number]


def state_of(trial: FrozenTrial) -> str:
    """waiting, running, complete, pruned, failed, or killed (which is run again as another)."""
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "killed"
    return str(trial.state.name).lower()


def values_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters as params.yaml has them."""
    return {name: json.loads(v) if isinstance(v, str) else v for name, v in chosen.items()}


def _told(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values_of(chosen).items()
    )


def _unchanged(files: Mapping[str, str]) -> None:
    changed = [file for file, md5 in files.items() if mirror.md5_of(Path(file)) != md5]
    if changed:
        raise RuntimeError(
            f"{', '.join(changed)}: changed since the search began, so that new trials cannot be "
            "compared with those before; begin another"
        )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One flow of this checkout at a time: making the tables, and counting before asking."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock", timeout=60):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats and the constant liar may change one day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield


# What is shown


def _conclude(search: Search) -> dict[str, Any]:
    """Write the best entry, the table and the figures; complete what MLflow has of the study.

    Raises:
        RuntimeError: no trial was trained to its end.
    """
    study, folder = search.study, search.folder / "report"
    known = study.get_trials(deepcopy=False)
    finished = [trial for trial in known if trial.state.is_finished()]
    for trial in finished:
        if not _track(search, trial, state_of(trial), trial.user_attrs.get("history", [])):
            break
    ended = [trial for trial in finished if state_of(trial) != "killed"]
    rows = [_row(trial) for trial in ended]
    name = study.study_name
    artifact = re.sub("[^a-z0-9]+", "-", f"tune-{name.lower()}")  # as Prefect allows it
    create_table_artifact(
        [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows],
        key=artifact,
        description=f"Trials of `{name}`",
    )
    counts = Counter(row["state"] for row in rows)
    if not counts["complete"]:
        reasons = Counter(row["note"] for row in rows if row["state"] == "failed")
        told = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(1))
        raise RuntimeError(f"study {name}: of {len(rows)} trials none was trained; {told}")
    best = study.best_trial
    text = _paste(search, best, ", ".join(f"{n} {state}" for state, n in counts.most_common()))
    with _alone(), store.atomic_folder(folder) as made:
        store.write_text(made / "best.yaml", text)
        store.write_table(made / "trials.csv", pd.DataFrame(rows))
        _draw(search, ended, made)
    with _survived(), mirror.connected() as client:
        key = _run(client, search).info.run_id
        client.log_artifacts(key, str(folder))
        client.log_metric(key, search.objective, best.value)
    path = folder / "best.yaml"
    create_markdown_artifact(
        f"# Best of `{name}`\n\nTrial {best.number}: {search.objective} {best.value:.6g}. "
        f"Paste it under `runs:` in params.yaml (it is in {path} too).\n\n```yaml\n{text}```\n",
        key=f"{artifact}-best",
        description=f"Best of `{name}`",
    )
    get_run_logger().info("the best of %d trials is trial %d: %s", len(rows), best.number, path)
    return {
        "study": name,
        "trials": len(rows),
        "best": best.number,
        search.objective: best.value,
        "entry": str(path),
    }


def _row(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's line in the table."""
    history, attrs = trial.user_attrs.get("history", []), trial.user_attrs
    twin = f"as trial {attrs['same_as']}, not trained again" if "same_as" in attrs else ""
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "value": trial.value,
        "epochs": len(history),
        "best epoch": history[-1]["best"] if history else None,
        **values_of(trial.params),
        "seconds": round(sum(record.get("seconds", 0) for record in history)),
        "note": attrs.get("error", twin),
    }


def _paste(search: Search, best: FrozenTrial, counts: str) -> str:
    """The best trial's entry for params.yaml, indented as it stands under `runs:`."""
    name = f"{search.run}-tuned"
    epoch = best.user_attrs["history"][-1]["best"]
    about = (
        f"Found by `tune`: trial {best.number} of study {search.study.study_name} ({counts}), "
        f"{search.sampler} over {', '.join(search.space)}. {search.objective} {best.value:.4f} in "
        f"epoch {epoch}, and so it will be with `dvc repro train@{name}`."
    )

    def flowing(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: flowing(inner) for key, inner in value.items()}
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        return value

    stream = StringIO()
    YAML().dump({name: flowing(search.entry(best.params))}, stream)
    comment = textwrap.fill(about, 96, initial_indent="# ", subsequent_indent="# ")
    return textwrap.indent(f"{comment}\n{stream.getvalue()}", "  ")


def _draw(search: Search, ended: list[FrozenTrial], folder: Path) -> None:
    from flows.engine import tuning_figures

    values = [np.nan if trial.value is None else trial.value for trial in ended]
    table = pd.DataFrame([_row(trial) for trial in ended]).assign(value=values)
    curves = [
        {"trial": t.number, "state": state_of(t), "epoch": epoch, "value": value}
        for t in ended
        for epoch, value in sorted(t.intermediate_values.items())
    ]
    logs = {name: bool(getattr(drawn, "log", False)) for name, drawn in search.space.items()}
    objective = search.objective
    lower = search.study.direction == optuna.study.StudyDirection.MINIMIZE
    best = search.study.best_trial.number
    drawn = {
        "trials": tuning_figures.search(table, objective, lower),
        "curves": tuning_figures.search_curves(pd.DataFrame(curves), best, objective),
        "parameters": tuning_figures.search_slices(table, logs, objective),
    }
    for title, figure in drawn.items():
        store.write_figure(folder / f"{title}.png", figure)


def _track(search: Search, trial: Trial | FrozenTrial, state: str, records: list[Any]) -> bool:
    """Bring a trial's MLflow run up to date with what is known of it; whether that worked."""
    done = False
    with _survived(), mirror.connected() as client:
        from mlflow.entities import Metric, RunTag

        run = _run(client, search, trial)
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
            for start in range(0, len(metrics), 1000):  # as many as MLflow takes
                client.log_batch(run.info.run_id, metrics[start : start + 1000])
            client.log_batch(run.info.run_id, tags=tags)
            if state in STATUS:
                client.set_terminated(run.info.run_id, STATUS[state])
        done = True
    return done


def _run(client: Any, search: Search, trial: Trial | FrozenTrial | None = None) -> Any:
    """The MLflow run of a trial, or the one above all; made where there is none yet."""
    from mlflow.entities import Param

    experiment = mirror.experiment(client, search.plan["run"]["domain"])
    study = search.study
    number = str(trial.number) if trial else "all"
    tags = {"stage": "tune", "study": study.study_name, "trial": number}
    wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    if found := client.search_runs([experiment], wanted):
        return found[0]
    tags |= {"run": search.run, "mlflow.source.name": "flows/tune.py"}
    if trial:
        parent = _run(client, search)
        tags |= {"mlflow.parentRunId": parent.info.run_id, "state": "running", "epochs": "0"}
        entry = search.entry(trial.params)
        values = {f"{part}.{key}": v for part in ("build", "fit") for key, v in entry[part].items()}
        name = f"trial {number}"
    else:
        search_for = study.user_attrs["search"]
        kept = {key: search_for[key] for key in ("objective", "sampler", "seed")}
        values = {**kept, **search_for["space"], **search_for["files"]}
        name = f"tune {study.study_name}"
    run = client.create_run(experiment, run_name=name, tags=tags)
    client.log_batch(
        run.info.run_id, params=[Param(key, str(value)[:6000]) for key, value in values.items()]
    )
    return run


def _mark(search: Search, status: str) -> None:
    """Say in MLflow how the search stands."""
    with _survived(), mirror.connected() as client:
        key = _run(client, search).info.run_id
        if status == "RUNNING":
            client.update_run(key, status)
        else:
            client.set_terminated(key, status)


@contextlib.contextmanager
def _survived() -> Iterator[None]:
    """The study, not MLflow, is the truth: a search goes on without, and its end catches up."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(
            "not tracked in %s: %s; run the same search again later to complete it",
            mirror.masked(mirror.uri()),
            mirror.masked(str(error))[:300],
        )


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.tune")
    parser.add_argument("run", metavar="RUN", help="an entry of runs in params.yaml")
    parser.add_argument(
        "space",
        metavar="PARAMETER=CHOICE",
        nargs="+",
        help="'build.units=[32, 64]' or 'fit.rate={low: 0.001, high: 0.01, log: true}'",
    )
    parser.add_argument("--trials", type=int)
    parser.add_argument("--sampler", choices=["bayesian", "random", "grid"])
    parser.add_argument("--pruner", choices=["median", "hyperband", "none"])
    parser.add_argument("--at-once", type=int)
    for name in ("objective", "study", "storage"):
        parser.add_argument(f"--{name}")
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    pairs = (item.partition("=") for item in given.pop("space"))
    chosen = {name: YAML(typ="safe").load(choice) for name, _, choice in pairs}
    space = {name: {"values": c} if isinstance(c, list) else c for name, c in chosen.items()}
    state: Any = tune(**given, space=space, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
