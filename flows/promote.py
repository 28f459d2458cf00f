"""Promote the best run of each data set to champion if it beats the current one.

A challenger has to pass its gate (`ostinato.policies.Gate`): its score reaches the bound, and it is
better than the champion on the same test examples, by a margin that the paired bootstrap supports
(`ostinato.evaluation.comparison.compare`, which the report uses too). The champion predicts these
examples again, with the code that it was registered with. Before the alias moves, a fresh process
loads the new version, whose predictions must equal those of its evaluation. Each verdict is
recorded with its numbers: as a run of its own in MLflow (stage ``promote``), with the challenger's
run, and as an artifact in Prefect. `rollback` reverts a promotion.

By hand: ``python -m flows.promote [DATA ...] [--study PARAMS] [--version N | --rollback]``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from jaxtyping import Shaped
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_run_logger
from pydantic import Field

from flows.engine import checkout, commands, dvc_graph
from ostinato import params, store
from ostinato.errors import DataError, EvaluationError, OstinatoError, ParamsError
from ostinato.evaluation.comparison import compare
from ostinato.policies import Gate
from ostinato.study import Study
from ostinato.task import Json, Manifest, Metric, PerExample, Verdict
from ostinato.tracking import dvc_lock, registry, runs
from ostinato.tracking.client import experiment
from ostinato.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, ROLLED_BACK, Examples

NUM_EXAMPLES = 16  # that a fresh process predicts before an alias moves
TOLERANCE = 0.005  # of the largest value: some arrays have half precision, and machines round
MAX_DIFFERENT_TEXTS = 0.1  # fraction: between equally likely texts, machines choose differently
LEASE_S = 60  # after which the lock of a killed flow is released

Arrays = Mapping[str, Shaped[np.ndarray, "example ..."]]


class PromoteError(RuntimeError):
    """A version cannot be promoted; the aliases are unchanged."""


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
class Candidate:
    """An evaluated run or ensemble.

    Args:
        run: its name.
        model: DVC's md5 of its model.
        arrays: of its evaluation.
        results: the statistics of each example.
        score: the gate's metric.
    """

    run: str
    model: str
    arrays: Arrays
    results: PerExample
    score: float


@dataclass(frozen=True)
class Sample:
    """Test examples as requests.

    Args:
        keys: of the examples.
        inputs: of the requests.
    """

    keys: list[str]
    inputs: list[Json]


@flow(name="promote", validate_parameters=True)
def promote(
    data: list[str] = [],  # noqa: B006 - Prefect's form shows it; nothing changes it
    version: Annotated[int, Field(ge=1)] | None = None,
    study: str = "params.yaml",
) -> dict[str, Verdict]:
    """Promote the best run or ensemble of each data set to champion if it passes the gate.

    Args:
        data: Data sets, such as sketches; all that have a gate in the params file when empty.
        version: Approve this version of the one data set: promote it after the check in a fresh
            process, independent of the gate.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
    """
    loaded = dvc_graph.check_study(study)
    gates = bind_gates(loaded, data)
    targets = {name: Target(loaded, name) for name in gates}
    if version is None:
        with checkout.checkout():
            states = {
                name: challenge(target, gates[name], return_state=True)
                for name, target in targets.items()
            }
            return {name: state.result() for name, state in states.items()}
    if len(targets) != 1:
        raise PromoteError(f"version {version}: name one data set: {', '.join(targets)}")
    with commands.supervised():
        return {name: approve(target, str(version)) for name, target in targets.items()}


@flow(name="rollback", validate_parameters=True)
def rollback(data: str, study: str = "params.yaml") -> Verdict:
    """Swap champion and previous champion of a data set; a second rollback swaps them again.

    A version that was rolled back is not promoted by itself again: a reviewer has to approve it.

    Args:
        data: Data set of the model, such as sketches.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
    """
    warn_if_broken(study)
    # Without the content of the params file, which may be broken when a rollback is urgent.
    target = Target(Study(Path(study), {}), data)
    model = target.model
    with promotion_lock(target):
        with registry.connected() as client:
            registry.finish_alias_move(client, model)
            aliases = registry.aliases(client, model)
        now, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if now is None or previous in (None, now):
            found = f"version {now} alone" if now else "no champion"
            raise PromoteError(f"{model}: no previous champion to roll back to; found {found}")
        verdict = Verdict(
            promoted=False,
            reason=f"rolled back from version {now}",
            version=int(previous),
            champion=int(now),
        )
        with registry.connected() as client:
            reason = f"to version {previous}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            client.set_model_version_tag(model, now, ROLLED_BACK, reason)
        verdict = promote_version(target, previous, verdict)
        with registry.connected() as client:
            run = client.get_model_version(model, previous).run_id
        record(target, verdict, None, run)
        return publish(target, verdict)


def warn_if_broken(study: str) -> None:
    """Warn where a params file is wrong; a rollback needs none of its values."""
    try:
        dvc_graph.check_study(study)
    except (ParamsError, RuntimeError) as error:
        get_run_logger().warning(f"{error}\nThe rollback continues: it uses no value of {study}")


def bind_gates(study: Study, data: Sequence[str]) -> dict[str, Gate]:
    """The gates of data sets, or of all that have one; each is checked against its metrics.

    Raises:
        ParamsError: a data set has no gate, or the gate is wrong.
    """
    blocks = params.entry(study.params, "gates")
    gates = {}
    for name in data or blocks:
        gate = gates[name] = params.bind(Gate, params.entry(blocks, name))()
        try:
            gate.check(params.entry(study.params, "data", name, "domain"))
        except ParamsError as error:
            raise ParamsError(f"gates.{name}: {error}") from None
    return gates


@contextmanager
def promotion_lock(target: Target) -> Iterator[None]:
    """Exclude other promotions of the model, on all machines that share Prefect's server."""
    limit = f"promote-{target.model}"
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(limit, 1)
    with concurrency(limit, occupy=1, strict=True, lease_duration=LEASE_S):
        yield


@task(task_run_name="challenge {target.model}", cache_policy=NO_CACHE)
def challenge(target: Target, gate: Gate) -> Verdict:
    """Judge the best run of a data set, and promote it if it passes the gate."""
    metric = gate.check(target.domain)
    with promotion_lock(target):
        best, left_out = find_best(target, metric)
        for reason in left_out:
            get_run_logger().info(f"Left out: {reason}")
        if best is None:
            reason = f"no results of {target.data} to judge; run the flow reproduce"
            return publish(target, Verdict(promoted=False, reason=reason, left_out=left_out))
        with registry.connected() as client:
            registry.finish_alias_move(client, target.model)
            champion = registry.find(client, target.model, CHAMPION)
            same = registry.versions(client, target.model, {"model": best.model})
        verdict = Verdict(
            promoted=False,
            reason="",
            run=best.run,
            champion=int(champion.version) if champion else None,
            metric=metric.name,
            score=best.score,
            examples=len(best.results.keys),
            left_out=left_out,
        )
        if champion and champion.tags.get("model") == best.model:
            reason = f"nothing to do: {best.run} is the champion, version {champion.version}"
            return publish(target, replace(verdict, reason=reason))
        if rolled_back := [version for version in same if ROLLED_BACK in version.tags]:
            reason = (
                f"{best.run} is version {rolled_back[0].version}, which was rolled back; approve "
                "the version to promote it again"
            )
            return publish(target, replace(verdict, reason=reason))
        training = find_training(target.study, best.run)
        return judge(target, gate, metric, best, champion, training, verdict)


def judge(
    target: Target,
    gate: Gate,
    metric: Metric,
    best: Candidate,
    champion: Any | None,
    training: Any,
    verdict: Verdict,
) -> Verdict:
    """Let the best run pass the gate: bound, comparison, registration, check, promotion.

    Args:
        target: the data set.
        gate: its gate.
        metric: of the gate.
        best: the challenger.
        champion: its version in the registry; None where there is none.
        training: MLflow's run of the challenger.
        verdict: what is known so far.

    Raises:
        PromoteError: the comparison or the check failed; the verdict has been recorded.
    """
    passed, reason = gate.passes(best.score)
    verdict = replace(verdict, reason=reason)
    failure = None
    try:
        if passed:
            count = gate.max_examples if champion else NUM_EXAMPLES
            sample = sample_requests(target.study, best.run, count)
        if passed and champion:
            verdict = compare_with_champion(target, gate, metric, best, champion, sample, verdict)
            passed = beats_champion(gate, verdict)
            verdict = replace(verdict, reason=comparison_reason(gate, verdict, passed))
        if passed:
            examples = expected_examples(target, best, sample)
            version = registry.register(target.study, best.run, training, examples)
            verdict = replace(verdict, version=int(version.version))
            verify(target, version)
            if gate.approval:
                verdict = request_approval(target, verdict)
            else:
                verdict = promote_version(target, str(version.version), verdict)
    except PromoteError as error:
        failure = error
        verdict = replace(verdict, reason=str(error))
    record(target, verdict, gate, training.info.run_id)
    publish(target, verdict)
    if failure:
        raise failure
    return verdict


@task(task_run_name="approve {target.model} {number}", cache_policy=NO_CACHE)
def approve(target: Target, number: str) -> Verdict:
    """Promote a version that a reviewer has approved, after the check in a fresh process.

    Args:
        target: the data set.
        number: of the version.

    Raises:
        PromoteError: there is no such version, or the check failed.
    """
    model = target.model
    with promotion_lock(target):
        with registry.connected() as client:
            registry.finish_alias_move(client, model)
            versions = {str(v.version): v for v in registry.versions(client, model)}
            champion = registry.aliases(client, model).get(CHAMPION)
        if number not in versions:
            raise PromoteError(f"{model}: no version {number}; {params.near(number, versions)}")
        verdict = Verdict(
            promoted=False,
            reason=f"nothing to do: version {number} is the champion",
            run=versions[number].tags.get("run"),
            version=int(number),
            champion=int(champion) if champion else None,
        )
        if number != champion:
            verify(target, versions[number])
            verdict = replace(verdict, reason=f"version {number} was approved")
            verdict = promote_version(target, number, verdict)
            record(target, verdict, None, versions[number].run_id)
        return publish(target, verdict)


# The challenger


def find_best(target: Target, metric: Metric) -> tuple[Candidate | None, list[str]]:
    """The best run or ensemble of a data set by a metric, and why others were left out."""
    study, evaluation = target.study, params.module(target.domain, "evaluation")
    names = [
        name
        for name in [*study.params["runs"], *study.params["ensembles"]]
        if study.result(name)["data"] == target.data
    ]
    problems = find_stale_results(study, target.data, names)
    records = dvc_lock.read(study)
    candidates, left_out = [], []
    for name in names:
        if name in problems:
            left_out.append(f"{name}: {problems[name]}")
            continue
        folder = study.result_folder(name)
        arrays = store.read_arrays(folder / "predictions.npz")
        results = evaluation.per_example(arrays)
        score = results.value(metric)
        if np.isnan(score):
            left_out.append(f"{name}: its {metric.name} is not a number")
            continue
        trained, _ = runs.stages_of(study, name)
        model = records[trained].outs[(folder / "model").as_posix()]
        candidates.append(Candidate(name, model, arrays, results, score))
    sign = 1 if metric.higher_is_better else -1
    return max(candidates, key=lambda c: sign * c.score, default=None), left_out


def find_stale_results(study: Study, data: str, names: Sequence[str]) -> dict[str, str]:
    """The results on disk that cannot be judged, each with the reason.

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


def find_training(study: Study, name: str) -> Any:
    """MLflow's complete run of a result; it is logged where MLflow lacks it.

    Raises:
        PromoteError: it cannot be logged.
    """
    command = ("-m", "ostinato.tracking", study.path.as_posix())
    for attempt in range(2):
        with registry.connected() as client:
            if run := runs.find(client, study, name):
                return run
        if attempt == 0:
            run_command(sys.executable, *command)
    raise PromoteError(
        f"MLflow has no run of {name}; see the output of `python {' '.join(command)}`"
    )


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


def expected_examples(target: Target, best: Candidate, sample: Sample) -> Examples:
    """A few raw examples and the challenger's predictions, which its version must reproduce."""
    rows = rows_of(best, sample.keys[:NUM_EXAMPLES])
    truth, classes = targets_of(target, best, rows)
    return Examples(
        inputs=sample.inputs[:NUM_EXAMPLES],
        truth=truth,
        classes=classes,
        arrays={
            key: to_json(array[rows])
            for key, array in best.arrays.items()
            if key not in ("keys", "truth") and array.dtype.kind in "fU"
        },
    )


def targets_of(
    target: Target, best: Candidate, rows: Sequence[int]
) -> tuple[list[Json], list[str]]:
    """The targets of some examples (names where they are classes), and all classes."""
    manifest = Manifest.read(target.study.data_folder(target.data) / "manifest.json")
    truth = to_json(best.arrays["truth"][list(rows)])
    names = manifest.classes
    return ([names[i] for i in truth] if names else truth), names


def rows_of(candidate: Candidate, keys: Sequence[str]) -> list[int]:
    """The rows of examples in the arrays of a candidate."""
    rows = {key: row for row, key in enumerate(candidate.arrays["keys"].tolist())}
    return [rows[key] for key in keys]


def to_json(array: Shaped[np.ndarray, "..."]) -> list[Json]:
    """An array as nested lists, with null for NaN."""
    cells = array.astype(object)
    if array.dtype.kind == "f":
        cells[np.isnan(array)] = None
    values: list[Json] = cells.tolist()
    return values


# The comparison


def compare_with_champion(
    target: Target,
    gate: Gate,
    metric: Metric,
    best: Candidate,
    champion: Any,
    sample: Sample,
    verdict: Verdict,
) -> Verdict:
    """Compare the challenger with the champion on the same examples.

    Args:
        target: the data set.
        gate: its gate.
        metric: of the gate.
        best: the challenger.
        champion: its version in the registry.
        sample: the test examples as requests.
        verdict: what is known so far.

    Returns:
        The verdict with the comparison.

    Raises:
        PromoteError: the two cannot be compared.
    """
    rows = rows_of(best, sample.keys)
    with TemporaryDirectory() as temporary:
        with registry.connected() as client:
            folder = registry.download(client, champion, Path(temporary))
        responses = predict(folder, sample.inputs, f"champion, version {champion.version},")
    serving, evaluation = (params.module(target.domain, m) for m in ("serving", "evaluation"))
    truth, classes = targets_of(target, best, rows)
    ours = {key: array[rows] for key, array in best.arrays.items()}
    try:  # models with other classes are comparable; forecasts of another horizon are not
        arrays = serving.from_responses(responses, truth, classes)
        theirs = evaluation.per_example({**ours, **arrays})
        comparison = compare(
            select_rows(best.results, rows),
            theirs,
            metric,
            resamples=gate.resamples,
            seed=target.study.params["seed"],
            confidence=gate.confidence,
        )
    except (ValueError, EvaluationError, DataError) as error:
        raise PromoteError(
            f"{best.run} cannot be compared with the champion, version {champion.version}: {error}"
        ) from None
    return replace(
        verdict,
        champion_score=theirs.value(metric),
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        confidence=comparison.confidence,
        compared=comparison.examples,
        clusters=comparison.clusters,
    )


def select_rows(results: PerExample, rows: Sequence[int]) -> PerExample:
    """The statistics of some examples."""
    index = np.asarray(rows)
    statistics = {name: values[index] for name, values in results.statistics.items()}
    return PerExample(results.keys[index], results.clusters[index], statistics)


def beats_champion(gate: Gate, verdict: Verdict) -> bool:
    """Whether the lower end of the interval reaches the margin and is above zero."""
    return verdict.low is not None and verdict.low >= gate.margin and verdict.low > 0


def comparison_reason(gate: Gate, verdict: Verdict, passed: bool) -> str:
    """The result of the comparison as a sentence."""
    return (
        f"{'' if passed else 'not shown to be '}better than version {verdict.champion}: "
        f"improvement of {gate.metric} {verdict.difference:+.4f}, {gate.confidence:.0%} interval "
        f"{verdict.low:+.4f} to {verdict.high:+.4f} on {verdict.compared:,} examples; its lower "
        f"end {'reaches' if passed else 'misses'} the margin {gate.margin:g}"
    )


def predict(folder: Path, inputs: Sequence[Json], model: str) -> list[dict[str, Json]]:
    """The responses of a registered model, in a process that has the model's code alone.

    Args:
        folder: of the downloaded version.
        inputs: of the requests.
        model: as the error names it.

    Raises:
        PromoteError: the process failed.
    """
    with store.temporary_folder() as temporary:
        requests, responses = temporary / "requests.json", temporary / "responses.json"
        store.write_text(requests, json.dumps({"inputs": inputs}))
        run_command(
            *(sys.executable, "-I", "-m", "mlflow", "models", "predict", "-m", str(folder)),
            *("-i", str(requests), "-o", str(responses), "-t", "json", "--env-manager", "local"),
            failure=f"the {model} does not respond",
            env={
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "CUDA_VISIBLE_DEVICES": "-1",  # a training may occupy the memory of the GPU
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        )
        return list(store.read_json(responses)["predictions"])


def run_command(
    *argv: str, failure: str | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command.

    Raises:
        PromoteError: it failed; the message begins with ``failure``.
    """
    output = commands.run(*argv, on_line=get_run_logger().debug, env=env)
    if output.code:
        last = "\n".join(output.lines[-5:])
        raise PromoteError(f"{failure or ' '.join(argv[1:4])} (exit code {output.code}): {last}")


# The check of a version


def verify(target: Target, version: Any) -> None:
    """Check in a fresh process that a version reproduces the predictions of its evaluation.

    Raises:
        PromoteError: it does not; the version has the reason as its tag ``check``.
    """
    name, failure = f"version {version.version}", None
    try:
        with TemporaryDirectory() as temporary:
            with registry.connected() as client:
                folder = registry.download(client, version, Path(temporary))
            artifacts = folder / "artifacts"
            if store.digest(artifacts / "model") != version.tags.get("content"):
                raise PromoteError(f"{name}: the model is not the one that was registered")
            examples = Examples(**store.read_json(artifacts / "examples.json"))
            responses = predict(folder, examples.inputs, name)
        serving = params.module(target.domain, "serving")
        arrays = serving.from_responses(responses, examples.truth, examples.classes)
        deviation = check_deviation(name, arrays, examples)
        check = f"passed: {len(responses)} examples as in evaluation{deviation}"
    except PromoteError as error:
        failure, check = error, f"failed: {error}"
    with registry.connected() as client:
        client.set_model_version_tag(target.model, version.version, "check", check)
    if failure:
        raise failure


def check_deviation(name: str, arrays: Arrays, examples: Examples) -> str:
    """Compare predictions with those of the evaluation: numbers and texts of the same name.

    Args:
        name: of the version.
        arrays: its predictions.
        examples: with the predictions of the evaluation.

    Returns:
        The largest deviation of a number, in words.

    Raises:
        PromoteError: the predictions differ, or no array can be compared.
    """
    expected = {key: values for key, values in examples.arrays.items() if key in arrays}
    numbers, texts = [], []
    for key, values in expected.items():
        if arrays[key].dtype.kind == "f":
            then = np.array(values, np.float64)
            size = np.nanmax(np.abs(then), initial=0.0) or 1.0
            numbers.append(float(np.max(np.abs(arrays[key] - then)) / size))
        else:
            texts.append(float(np.mean(arrays[key] != np.array(values))))
    if not expected:
        raise PromoteError(f"{name}: its responses have no array of its evaluation")
    if numbers and not max(numbers) <= TOLERANCE:
        raise PromoteError(
            f"{name}: its predictions differ from its evaluation, by up to {max(numbers):.3g} of "
            "the largest value"
        )
    if texts and max(texts) > MAX_DIFFERENT_TEXTS:
        raise PromoteError(
            f"{name}: {max(texts):.0%} of its predictions differ from its evaluation"
        )
    return f", to {max(numbers):.2g}" if numbers else ""


# The promotion


def request_approval(target: Target, verdict: Verdict) -> Verdict:
    """Let a version wait for a reviewer, by the alias ``challenger``."""
    with registry.connected() as client:
        number = str(verdict.version)
        client.set_registered_model_alias(target.model, CHALLENGER, number)
    return replace(verdict, reason=f"{verdict.reason}; version {number} waits for approval")


def promote_version(target: Target, number: str, verdict: Verdict) -> Verdict:
    """Make a version champion and the champion previous, and emit an event.

    Args:
        target: the data set.
        number: of the version.
        verdict: whose reason is recorded with the version.
    """
    model = target.model
    with registry.connected() as client:
        former = registry.aliases(client, model).get(CHAMPION)
        if ROLLED_BACK in client.get_model_version(model, number).tags:
            client.delete_model_version_tag(model, number, ROLLED_BACK)
        client.set_model_version_tag(model, number, "verdict", verdict.reason)
        to = {**({PREVIOUS: former} if former else {}), CHAMPION: number}
        registry.move_aliases(client, model, target.experiment, **to)
    emit_event(
        event="ostinato.champion.changed",
        resource={
            "prefect.resource.id": f"ostinato.model.{model}",
            "prefect.resource.name": model,
        },
        payload={"from": former, "to": number, "reason": verdict.reason},
    )
    return replace(verdict, promoted=True)


# The record


def record(target: Target, verdict: Verdict, gate: Gate | None, challenger: str) -> None:
    """Record a verdict in MLflow: as a run of its own, and with the challenger's run.

    Args:
        target: the data set.
        verdict: to record.
        gate: that decided; None where a reviewer did.
        challenger: id of the challenger's run.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    bounds = {"at_least": gate.at_least, "at_most": gate.at_most} if gate else {}
    numbers = {
        key: float(value)
        for key, value in {**asdict(verdict), **bounds}.items()
        if isinstance(value, int | float) and key not in ("promoted", "version", "champion")
    }
    named = {"run": verdict.run, "version": verdict.version, "champion": verdict.champion}
    tags = {
        "stage": "promote",
        "promoted": str(verdict.promoted).lower(),
        "reason": verdict.reason,
        **{key: str(value) for key, value in named.items() if value},
        "mlflow.note.content": to_markdown(target, verdict),
    }
    with registry.connected() as client:
        run = client.create_run(
            experiment(client, target.experiment), run_name=f"promote {target.data}", tags=tags
        )
        now = run.info.start_time
        settings = [Param(key, str(value)) for key, value in (asdict(gate) if gate else {}).items()]
        metrics = [Metric(f"gate/{key}", value, now, 0) for key, value in numbers.items()]
        client.log_batch(run.info.run_id, metrics, settings)
        client.set_terminated(run.info.run_id)
        outcome = "passed" if verdict.promoted else "not promoted"
        with suppress(MlflowException):  # the run of an old version may have been deleted
            gated = [RunTag("gate", f"{outcome}: {verdict.reason}")]
            client.log_batch(challenger, metrics, tags=gated)


def publish(target: Target, verdict: Verdict) -> Verdict:
    """Log a verdict and show it as an artifact in Prefect."""
    get_run_logger().info(f"{target.model}: {verdict.reason}")
    create_markdown_artifact(
        key=artifact_key("promote", target.model),
        markdown=to_markdown(target, verdict),
        description=f"{target.model}: the champion, and the reason",
    )
    return verdict


def artifact_key(flow: str, model: str) -> str:
    """The key of an artifact on a model: lower-case letters, digits and hyphens."""
    slug = "".join(c if c.isalnum() else "-" for c in model.lower())
    return f"{flow}-{slug}"


def to_markdown(target: Target, verdict: Verdict) -> str:
    """A verdict as Markdown."""
    head = "a new champion" if verdict.promoted else "the champion stays"
    lines = [f"## {target.model}: {head}", "", verdict.reason, "", "| | |", "|---|---|"]
    for key, value in asdict(verdict).items():
        if key not in ("promoted", "reason", "left_out") and value is not None:
            text = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"| {key.replace('_', ' ')} | {text} |")
    lines += ["", *(f"- left out: {reason}" for reason in verdict.left_out)]
    return "\n".join(lines)


def main() -> None:
    """Run the flows from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description=__doc__)
    parser.add_argument("data", nargs="*", help="data sets; none: all that have a gate")
    parser.add_argument("--study", default="params.yaml", metavar="PARAMS", help="params file")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--version", type=int, help="approve this version of the one data set")
    action.add_argument("--rollback", action="store_true", help="swap champion and previous")
    arguments = parser.parse_args()
    try:
        if not arguments.rollback:
            promote(arguments.data, arguments.version, arguments.study)
        elif not arguments.data:
            parser.error("--rollback: name the data sets")
        else:
            for name in arguments.data:
                rollback(name, arguments.study)
    except (OstinatoError, PromoteError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
