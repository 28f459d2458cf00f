"""The results of a data set as candidates for promotion, and their test examples as requests."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from flows.engine import dvc_graph
from flows.engine.verification import PromoteError, run_command
from ostinato import params, store
from ostinato.evaluation import undefined
from ostinato.promotion import Candidate
from ostinato.study import Study
from ostinato.task import Json, Manifest, Metric, PerExample
from ostinato.tracking import dvc_lock, registry, runs
from ostinato.tracking.registry import Examples

NUM_EXAMPLES = 16  # that a fresh process predicts before an alias moves

Arrays = Mapping[str, Shaped[np.ndarray, "example ..."]]


@dataclass(frozen=True)
class Target:
    """A data set of a study, whose best run may become champion."""

    study: Study
    data: str

    @property
    def domain(self) -> str:
        """The domain of the data set."""
        return str(params.entry(self.study.params, "data", self.data, "domain"))

    @property
    def model(self) -> str:
        """The registered model."""
        return registry.model_name(self.study.name, self.data)

    @property
    def experiment(self) -> str:
        """The experiment in MLflow."""
        return runs.experiment_name(self.study, self.data)


@dataclass(frozen=True)
class Result:
    """The result of a run or ensemble on the test split.

    Args:
        run: its name.
        model: DVC's md5 of its model.
        arrays: of its evaluation.
        per_example: the statistics of each example.
    """

    run: str
    model: str
    arrays: Arrays
    per_example: PerExample

    def rows(self, keys: Sequence[str]) -> Integer[np.ndarray, " example"]:
        """The rows of examples."""
        rows = {key: row for row, key in enumerate(self.arrays["keys"].tolist())}
        return np.array([rows[key] for key in keys], int)


@dataclass(frozen=True)
class Sample:
    """Test examples as requests.

    Args:
        keys: of the examples.
        inputs: of the requests.
    """

    keys: list[str]
    inputs: list[Json]


def find_candidates(target: Target, metric: Metric) -> list[Candidate]:
    """The runs and ensembles of a data set, with their values on the validation split."""
    study = target.study
    names = [
        name
        for name in [*study.params["runs"], *study.params["ensembles"]]
        if study.result(name)["data"] == target.data
    ]
    problems = find_stale_results(study, target.data, names)
    candidates = []
    for name in names:
        if name in problems:
            candidates.append(Candidate(name, left_out=problems[name]))
            continue
        folder, key = study.result_folder(name), f"validation_{metric.name}"
        value = store.read_json(folder / "metrics.json").get(key)
        reason = ""
        if value is None:
            why = undefined.read(folder).get(key, "metrics.json has no value; run reproduce")
            reason = f"{key} is not defined: {why}"
        candidates.append(Candidate(name, value, reason))
    return candidates


def find_stale_results(study: Study, data: str, names: Sequence[str]) -> dict[str, str]:
    """The results on disk that cannot be judged, each with the reason.

    DVC compares files with dvc.lock by its own record of their sizes and times, so it reads
    no file of the data again that has not changed.

    Args:
        study: of the results.
        data: the data set.
        names: of its runs and ensembles.
    """
    records = dvc_lock.read(study)
    prepare, fetch = f"prepare@{data}", f"fetch@{data}"
    needed = {name: [fetch, prepare, *runs.stages_of(study, name)] for name in names}
    stages = sorted({stage for group in needed.values() for stage in group} & records.keys())
    changed = dvc_graph.changed_outputs(*map(study.stage, stages)) if stages else {}
    problems = {}
    for name, group in needed.items():
        missing = [s for s in group if s not in records or changed[study.stage(s)]]
        if missing:
            problems[name] = f"the output of {missing[0]} is not that of dvc.lock; run reproduce"
            continue
        folder = study.result_folder(name)
        model, prepared = (folder / "model").as_posix(), study.data_folder(data).as_posix()
        raw = study.raw_folder(data).as_posix()
        trained, evaluated = (records[stage] for stage in group[2:])
        if {**evaluated.deps, **evaluated.outs}[model] != trained.outs[model]:
            problems[name] = "its evaluation is of an earlier model; run reproduce"
        elif evaluated.deps[prepared] != records[prepare].outs[prepared]:
            problems[name] = f"its evaluation is on other data than {prepared}; run reproduce"
        elif records[prepare].deps[raw] != records[fetch].outs[raw]:
            problems[name] = f"{prepared} was prepared from other data than {raw}; run reproduce"
    return problems


def model_md5(study: Study, name: str) -> str:
    """DVC's md5 of the model of a run or ensemble."""
    trained, _ = runs.stages_of(study, name)
    path = (study.result_folder(name) / "model").as_posix()
    return dvc_lock.read(study)[trained].outs[path]


def read_result(target: Target, name: str) -> Result:
    """Read the result of a run or ensemble on the test split."""
    arrays = store.read_arrays(target.study.result_folder(name) / "predictions.npz")
    evaluation = params.module(target.domain, "evaluation")
    model = model_md5(target.study, name)
    return Result(name, model, arrays, evaluation.per_example(arrays))


def find_training(study: Study, name: str) -> Any:
    """MLflow's complete run of a result; it is logged where MLflow lacks it.

    Raises:
        PromoteError: it cannot be logged.
    """
    with registry.connected() as client:
        if run := runs.find(client, study, name):
            return run
    command = ("-m", "ostinato.tracking", study.path.as_posix())
    reason = f"see the output of `python {' '.join(command)}`"
    try:
        run_command(sys.executable, *command)
    except PromoteError as error:  # perhaps only of another result
        reason = str(error)
    with registry.connected() as client:
        if run := runs.find(client, study, name):
            return run
    raise PromoteError(f"MLflow has no run of {name}: {reason}")


def sample_requests(study: Study, name: str, count: int) -> Sample:
    """Sample test examples of a result as requests.

    Raises:
        PromoteError: none of the examples is in the raw data.
    """
    with store.temporary_folder() as temporary:
        file = temporary / "requests.json"
        command = ("-m", "stages.sample_requests", study.path.as_posix(), name)
        run_command(sys.executable, *command, str(count), str(file))
        sample = Sample(**store.read_json(file))
    if not sample.keys:
        raise PromoteError(f"none of the examples that {name} was tested on is in its raw data")
    return sample


def expected_examples(target: Target, result: Result, sample: Sample) -> Examples:
    """A few raw examples and the predictions that a version of the model must reproduce."""
    rows = result.rows(sample.keys[:NUM_EXAMPLES])
    truth, classes = targets_of(target, result, rows)
    return Examples(
        inputs=sample.inputs[:NUM_EXAMPLES],
        truth=truth,
        classes=classes,
        arrays={
            key: to_json(array[rows])
            for key, array in result.arrays.items()
            if key not in ("keys", "truth") and (array.dtype.kind in "fU" or key.endswith("_label"))
        },
    )


def targets_of(
    target: Target, result: Result, rows: Integer[np.ndarray, " example"]
) -> tuple[list[Json], list[str]]:
    """The targets of some examples (names where they are classes), and all classes."""
    manifest = Manifest.read(target.study.data_folder(target.data) / "manifest.json")
    truth = to_json(result.arrays["truth"][rows])
    names = manifest.classes
    return ([names[i] for i in truth] if names else truth), names


def to_json(array: Shaped[np.ndarray, "..."]) -> list[Json]:
    """An array as nested lists, with null for NaN."""
    cells = array.astype(object)
    if array.dtype.kind == "f":
        cells[np.isnan(array)] = None
    values: list[Json] = cells.tolist()
    return values
