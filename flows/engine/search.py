"""A search over the parameters of a run: its definition, and its study in Optuna's storage."""

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.engine import commands
from flows.engine.search_storage import (
    ignore_experimental_warnings,
    open_storage,
    reports_failures,
    storage_lock,
)
from flows.reproduce import retry_policies
from ostinato import params, store
from ostinato.errors import FlowError, ParamsError
from ostinato.policies import RetryPolicy
from ostinato.study import Study
from ostinato.tracking.client import masked

HEARTBEAT_INTERVAL_S = 5.0  # of a trial
HEARTBEAT_TIMEOUT_S = (
    20.0  # after which the flow of a trial is dead, and the trial is enqueued again
)


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
        storage: address of the study's storage.
        study: with the params file.
        run: the name of the run.
        plan: arguments of `stages.trial`: study, seed, runtime and run.
        space: distributions by parameter.
        sampler: bayesian, random or grid.
        objective: column of the history.
        files: digests of the code and data that determine a result.
        folder: of the search, in scratch/.
        policy: of the run's stage: whether a trial gets a GPU.
    """

    optuna_study: optuna.Study
    storage: str
    study: Study
    run: str
    plan: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]
    sampler: str
    objective: str
    files: Mapping[str, str]
    folder: Path
    policy: RetryPolicy

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
    url = url or f"sqlite:///{folder.resolve() / 'studies.db'}"
    max_epochs = max([*bounds.get("fit.epochs", []), entry["fit"].get("epochs", 1)])
    pruners = {
        "median": optuna.pruners.MedianPruner(),
        "hyperband": optuna.pruners.HyperbandPruner(max_resource=max_epochs),
        "none": optuna.pruners.NopPruner(),
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with storage_lock(url), reports_failures(url), ignore_experimental_warnings():
        optuna_study = optuna.create_study(
            storage=open_storage(url),
            pruner=pruners[pruner],
            study_name=name,
            direction=checked["direction"],
            load_if_exists=True,
        )
        if "search" not in optuna_study.user_attrs:
            optuna_study.set_user_attr("search", identity)
        stored = optuna_study.user_attrs["search"]
    if differences := list(_differences(stored, identity)):
        message = f"the search {name!r} has other parameters; choose another name:"
        raise ParamsError("\n  ".join([message, *differences]))
    get_run_logger().info("search %s in %s", name, masked(url))
    return Search(
        optuna_study=optuna_study,
        storage=url,
        study=study,
        run=run,
        plan=plan,
        space=distributions,
        sampler=sampler,
        objective=objective,
        files=checked["files"],
        folder=folder / name,
        policy=retry_policies({study.stage("train", run): ()}, study.params)[
            study.stage("train", run)
        ],
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


def state_of(trial: FrozenTrial) -> str:
    """waiting, running, complete, pruned, failed, killed (enqueued again), or superfluous."""
    if trial.state == TrialState.FAIL and "superfluous" in trial.user_attrs:
        return "superfluous"
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "killed"
    return str(trial.state.name).lower()


def decode_params(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial as in params.yaml."""
    return {name: json.loads(v) if isinstance(v, str) else v for name, v in drawn.items()}


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """The trial of a number."""
    return study.get_trials(deepcopy=False)[number]


def check_unchanged(search: Search) -> None:
    """Check that neither code nor data have changed since the search was opened.

    Raises:
        FlowError: one of them has.
    """
    changed = [
        name
        for name, digest in search.files.items()
        if not (path := Path(name)).exists() or store.digest(path) != digest
    ]
    if changed:
        raise FlowError(
            f"{', '.join(changed)}: changed since the search began, so new trials are not "
            "comparable with earlier ones; start another search"
        )
