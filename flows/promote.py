"""Promote the best run of each data set to champion if it beats the current one.

The challenger of a data set is its best run or ensemble on the validation split. It has to pass the
gate (`ostinato.promotion.Gate`): its score on the test split reaches the bound, and it is better
than the champion on the same test examples, by a margin that the paired bootstrap supports
(`ostinato.evaluation.comparison.compare`, which the report uses too). A champion that is no result
of the checkout predicts these examples again, with the code that it was registered with. Before the
alias moves, a fresh process loads the new version, whose predictions must equal those of its
evaluation. Each verdict is recorded with its numbers: as a run of its own in MLflow (stage
``promote``), with the challenger's run, and as an artifact in Prefect. `rollback` reverts a
promotion.

By hand: ``python -m flows.promote [DATA ...] [--study PARAMS] [--version N | --rollback]``.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_run_logger
from pydantic import Field

from flows.engine import candidates as results
from flows.engine import checkout, commands, dvc_graph, verification
from flows.engine.candidates import NUM_EXAMPLES, Result, Sample, Target
from flows.engine.errors import fails_with_message
from flows.engine.verification import PromoteError
from ostinato import params
from ostinato.errors import (
    DataError,
    EvaluationError,
    MissingFilesError,
    OstinatoError,
    ParamsError,
    RequestError,
)
from ostinato.promotion import Candidate, Gate, Verdict, choose
from ostinato.study import Study
from ostinato.task import Metric, PerExample
from ostinato.tracking import registry
from ostinato.tracking.champions import log_champion
from ostinato.tracking.client import experiment
from ostinato.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, ROLLED_BACK

LEASE_S = 60  # after which the lock of a killed flow is released


@flow(name="promote", validate_parameters=True)
@fails_with_message
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
        states = {
            name: approve(target, str(version), return_state=True)
            for name, target in targets.items()
        }
        return {name: state.result() for name, state in states.items()}


@flow(name="rollback", validate_parameters=True)
@fails_with_message
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
            model,
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
        return publish(verdict)


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
@fails_with_message
def challenge(target: Target, gate: Gate) -> Verdict:
    """Choose the challenger of a data set, and promote it if it passes the gate."""
    metric = gate.check(target.domain)
    with promotion_lock(target):
        candidates = results.find_candidates(target, metric)
        for candidate in candidates:
            if candidate.left_out:
                get_run_logger().info(f"Left out: {candidate.run}: {candidate.left_out}")
        verdict = Verdict(target.model, False, "", metric, candidates, choose(candidates, metric))
        if verdict.run is None:
            reason = f"no results of {target.data} to judge; run the flow reproduce"
            return publish(replace(verdict, reason=reason))
        model = results.model_md5(target.study, verdict.run)
        with registry.connected() as client:
            registry.finish_alias_move(client, target.model)
            champion = registry.find(client, target.model, CHAMPION)
            same = registry.versions(client, target.model, {"model": model})
        if champion:
            verdict = replace(verdict, champion=int(champion.version))
        if champion and champion.tags.get("model") == model:
            reason = f"nothing to do: {verdict.run} is the champion, version {champion.version}"
            return publish(replace(verdict, reason=reason))
        if rolled_back := [version for version in same if ROLLED_BACK in version.tags]:
            reason = (
                f"{verdict.run} is version {rolled_back[0].version}, which was rolled back; "
                "approve the version to promote it again"
            )
            return publish(replace(verdict, reason=reason))
        return judge(target, gate, metric, champion, verdict)


def judge(
    target: Target, gate: Gate, metric: Metric, champion: Any | None, verdict: Verdict
) -> Verdict:
    """Let the challenger pass the gate: bound, comparison, registration, check, promotion.

    Args:
        target: the data set.
        gate: its gate.
        metric: of the gate.
        champion: its version in the registry; None where there is none.
        verdict: with the challenger.

    Raises:
        PromoteError: the comparison or the check failed; the verdict has been recorded.
    """
    assert verdict.run
    training = results.find_training(target.study, verdict.run)
    challenger = results.read_result(target, verdict.run)
    score = challenger.per_example.value(metric)
    passed, reason = gate.passes(score)
    verdict = replace(
        verdict,
        reason=reason,
        score=None if math.isnan(score) else score,
        examples=len(challenger.per_example.keys),
    )
    failure = None
    try:
        if passed and champion:
            verdict = compare_with_champion(target, gate, metric, challenger, champion, verdict)
            passed = verdict.comparison is not None and verdict.comparison.improves(gate.margin)
            verdict = replace(verdict, reason=comparison_reason(gate, verdict, passed))
        if passed:
            sample = results.sample_requests(target.study, challenger.run, NUM_EXAMPLES)
            examples = results.expected_examples(target, challenger, sample)
            version = registry.register(target.study, challenger.run, training, examples)
            verdict = replace(verdict, version=int(version.version))
            verification.verify(target.domain, version)
            if gate.approval:
                verdict = request_approval(verdict)
            else:
                verdict = promote_version(target, str(version.version), verdict)
    except PromoteError as error:
        failure = error
        verdict = replace(verdict, reason=str(error))
    record(target, verdict, gate, training.info.run_id)
    publish(verdict)
    if failure:
        raise failure
    return verdict


@task(task_run_name="approve {target.model} {number}", cache_policy=NO_CACHE)
@fails_with_message
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
            model,
            promoted=False,
            reason=f"nothing to do: version {number} is the champion",
            run=versions[number].tags.get("run"),
            version=int(number),
            champion=int(champion) if champion else None,
        )
        if number != champion:
            verification.verify(target.domain, versions[number])
            verdict = replace(verdict, reason=f"version {number} was approved")
            verdict = promote_version(target, number, verdict)
            record(target, verdict, None, versions[number].run_id)
        return publish(verdict)


# The comparison


def compare_with_champion(
    target: Target,
    gate: Gate,
    metric: Metric,
    challenger: Result,
    champion: Any,
    verdict: Verdict,
) -> Verdict:
    """Compare the challenger with the champion on the same examples.

    Args:
        target: the data set.
        gate: its gate.
        metric: of the gate.
        challenger: its result.
        champion: its version in the registry.
        verdict: with the candidates.

    Returns:
        The verdict with the comparison.

    Raises:
        PromoteError: the two cannot be compared.
    """
    try:
        ours, theirs = results_of_both(target, gate, challenger, champion, verdict.candidates)
        comparison = gate.compare(ours, theirs, metric, target.study.params["seed"])
    except (EvaluationError, DataError, MissingFilesError, RequestError) as error:
        raise PromoteError(
            f"{challenger.run} cannot be compared with the champion, version {champion.version}: "
            f"{error}"
        ) from None
    return replace(verdict, champion_score=theirs.value(metric), comparison=comparison)


def results_of_both(
    target: Target,
    gate: Gate,
    challenger: Result,
    champion: Any,
    candidates: Sequence[Candidate],
) -> tuple[PerExample, PerExample]:
    """The statistics of challenger and champion on the same test examples.

    The champion's are those of its evaluation where it is a result of the checkout, as in the
    report. Otherwise it predicts some examples again, with the code that it was registered with.
    """
    for candidate in candidates:
        if candidate.left_out or candidate.run == challenger.run:
            continue
        if results.model_md5(target.study, candidate.run) == champion.tags.get("model"):
            found = results.read_result(target, candidate.run)
            return challenger.per_example, found.per_example
    sample = results.sample_requests(target.study, challenger.run, gate.max_examples)
    return predicted_again(target, challenger, champion, sample)


def predicted_again(
    target: Target, challenger: Result, champion: Any, sample: Sample
) -> tuple[PerExample, PerExample]:
    """The statistics of challenger and champion on examples that the champion predicts now.

    Raises:
        EvaluationError: the champion's responses do not fit the examples: forecasts of another
            horizon; labels of other classes are wrong, but comparable.
    """
    rows = challenger.rows(sample.keys)
    with TemporaryDirectory() as temporary:
        with registry.connected() as client:
            folder = registry.download(client, champion, Path(temporary))
        name = f"champion, version {champion.version},"
        responses = verification.predict(folder, sample.inputs, name)
    serving, evaluation = (params.module(target.domain, m) for m in ("serving", "evaluation"))
    truth, classes = results.targets_of(target, challenger, rows)
    ours = {key: array[rows] for key, array in challenger.arrays.items()}
    theirs = serving.from_responses(responses, truth, classes)
    return challenger.per_example.select(rows), evaluation.per_example({**ours, **theirs})


def comparison_reason(gate: Gate, verdict: Verdict, passed: bool) -> str:
    """The result of the comparison as a sentence."""
    found = verdict.comparison
    assert found
    return (
        f"{'' if passed else 'not shown to be '}better than version {verdict.champion}: "
        f"improvement of {gate.metric} {found.difference:+.4f}, {gate.confidence:.0%} interval "
        f"{found.low:+.4f} to {found.high:+.4f} on {found.examples:,} examples; its lower "
        f"end {'reaches' if passed else 'misses'} the margin {gate.margin:g}"
    )


# The promotion


def request_approval(verdict: Verdict) -> Verdict:
    """Let a version wait for a reviewer, by the alias ``challenger``."""
    with registry.connected() as client:
        number = str(verdict.version)
        client.set_registered_model_alias(verdict.model, CHALLENGER, number)
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
    numbers = verdict.to_metrics() | {key: x for key, x in bounds.items() if x is not None}
    named = {"run": verdict.run, "version": verdict.version, "champion": verdict.champion}
    tags = {
        "stage": "promote",
        "promoted": str(verdict.promoted).lower(),
        "reason": verdict.reason,
        **{key: str(value) for key, value in named.items() if value},
        "mlflow.note.content": verdict.to_markdown(),
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
        if verdict.promoted:
            version = client.get_model_version(verdict.model, str(verdict.version))
            log_champion(client, run.info.experiment_id, version)


def publish(verdict: Verdict) -> Verdict:
    """Log a verdict and show it as an artifact in Prefect."""
    get_run_logger().info(f"{verdict.model}: {verdict.reason}")
    create_markdown_artifact(
        key=artifact_key("promote", verdict.model),
        markdown=verdict.to_markdown(),
        description=f"{verdict.model}: the champion, and the reason",
    )
    return verdict


def artifact_key(flow: str, model: str) -> str:
    """The key of an artifact on a model: lower-case letters, digits and hyphens."""
    slug = "".join(c if c.isalnum() else "-" for c in model.lower())
    return f"{flow}-{slug}"


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
    except OstinatoError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
