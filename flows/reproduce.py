"""Bring the results of a study up to date: one Prefect task for each stage of DVC's graph.

By hand, without a server: ``python -m flows.reproduce [TARGET ...] [--study PARAMS]``.

DVC decides which stages have to run, and records the stages that have run. So the run after a
killed one resumes it: finished stages are up to date, and a training resumes from its last epoch.
"""

import argparse
import fnmatch
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Annotated, Any

from prefect import allow_failure, flow, get_client, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectConcurrentFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.engine import checkout, commands, devices, dvc_graph
from flows.engine.dvc_graph import Graph, short_name
from flows.engine.errors import command, fails_with_message, message_of
from ostinato import params
from ostinato.errors import OstinatoError, ParamsError
from ostinato.policies import RetryPolicy
from ostinato.tracking.client import masked

PROMOTE = "promote/promote"  # the deployment that a run of the deployment reproduce starts
Row = dict[str, Any]  # stage, outcome, seconds, message

FAILED = ("failed", "timed out")
# Lines in which DVC advises a person at a terminal.
ADVICE = ("\tgit add", "\tdvc config", "To track the ", "To enable auto ", "Use `dvc push`")


@flow(name="reproduce")
@fails_with_message
def reproduce(
    targets: Sequence[str] = (),
    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 2,
    train_on: str | None = None,
    force: bool = False,
    study: str = "params.yaml",
    ranks: Annotated[int, Field(ge=1, le=1000)] = 1,
    prepare_on: str | None = None,
    prepare_runs: Annotated[int, Field(ge=1, le=1000)] = 1,
) -> Any:
    """Bring all results of a study up to date, in the order of DVC's graph.

    After a stage has failed, the stages that do not need it still run; then the flow fails and
    reports the reason. The flow waits for another flow that works in the same checkout.

    Args:
        targets: Stages or patterns such as `evaluate@*`, with all that they need; all when empty.
        max_concurrency: Number of stages that run at the same time.
        train_on: A deployment for the training, such as `train/gpu`; this machine when empty.
        force: Run stages that are up to date as well; not together with train_on.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
        ranks: Number of flow runs of the deployment train_on that share each training.
        prepare_on: A deployment that helps to prepare drawings, such as `prepare/cpu`; its workers
            share the disk of this checkout.
        prepare_runs: Number of flow runs of the deployment prepare_on that help with each data set.

    Returns:
        A row for each stage: its outcome (ran, restored, up to date, failed, timed out, not
        started, cancelled), seconds and message.
    """
    graph: Graph = {}
    started: dict[str, datetime] = {}
    states: dict[str, Future[State[bool]]] = {}
    note = ""

    def start(stage: str) -> Future[State[bool]]:
        needed = {name: states[name].result() for name in sorted(graph[stage])}
        blocked = {
            str(state.message) if state.is_cancelled() else f"{name} {outcome_of(state)}"
            for name, state in needed.items()
            if not state.is_completed()
        }
        # `check` has run before the stale stages were found: what depends on it is among them.
        ran = any(s.name != "UpToDate" for n, s in needed.items() if short_name(n) != "check")
        changed = stage in stale or ran
        started[stage] = datetime.now(UTC)
        future = run_stage.with_options(retries=0 if blocked else policies[stage].retries).submit(
            stage,
            blocked="; ".join(sorted(blocked)),
            changed=changed,
            policy=policies[stage],
            train_on=train_on if short_name(stage).startswith("train@") else None,
            force=force,
            ranks=ranks,
            prepare_on=prepare_on,
            prepare_runs=prepare_runs,
            wait_for=[allow_failure(s) for s in needed.values() if not s.is_cancelled()],
            return_state=False,
        )
        assert isinstance(future, PrefectConcurrentFuture)
        states[stage] = future.wrapped_future
        return states[stage]

    if force and train_on:
        raise ParamsError(
            "force runs all stages on this machine, train_on runs trainings on another: choose one"
        )
    check_ranks(ranks, train_on)
    if prepare_runs > 1 and not prepare_on:
        raise ParamsError(
            f"prepare_runs: found {prepare_runs} without prepare_on; set prepare_on, such as "
            "prepare/cpu"
        )
    try:
        with checkout.checkout():
            loaded = dvc_graph.check_study(study)
            graph = select_stages(dvc_graph.read_graph(loaded), targets)
            policies = retry_policies(graph, loaded.params)
            files = {dvc_graph.dvc_file(stage) for stage in graph}
            stale = set(graph) if force else dvc_graph.stale_stages(*sorted(files)) & set(graph)
            get_run_logger().info(f"{len(graph)} stages, {len(stale)} of them changed")
            run_in_order(graph, start, max_concurrency)
            if tracking_incomplete({stage: future.result() for stage, future in states.items()}):
                note = complete_tracking(study)
    finally:  # also of a cancelled flow, whose commands have ended
        wait(states.values(), timeout=2)
        rows = [row_of(stage, started.get(stage), states.get(stage)) for stage in graph]
        summary = summarize(rows)
        if rows:
            create_table_artifact(rows, key="reproduce", description=f"{summary}\n\n{note}")
    if any(row["outcome"] in FAILED for row in rows):
        return Failed(message=summary)
    if runtime.deployment.name == "reproduce" and loaded.params.get("gates"):
        start_promotion(study)
    return Completed(message=summary, data=rows)


def check_ranks(ranks: int, train_on: str | None) -> None:
    """Check that several ranks have a deployment.

    Raises:
        ParamsError: they have none.
    """
    if ranks > 1 and not train_on:
        raise ParamsError(
            f"ranks: found {ranks} without train_on; ranks are flow runs of a deployment: set "
            "train_on, such as train/gpu, or start them by hand with TF_CONFIG"
        )


@task(retries=8, retry_delay_seconds=15)
def start_promotion(study: str) -> None:
    """Start a run of the deployment `promote`, once for each run of `reproduce`.

    An automation on the event of a completed run would miss it where the server restarts meanwhile.

    Args:
        study: path of the study's params file.
    """
    logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(PROMOTE)
    except ObjectNotFound:
        logger.warning(f"There is no deployment {PROMOTE}: nothing is promoted")
        return
    if deployment.paused:
        logger.info(f"The deployment {PROMOTE} is paused: nothing is promoted")
        return
    run: Any = run_deployment(
        PROMOTE,
        parameters={"study": study},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"promote-{runtime.flow_run.id}",
    )
    logger.info(f"Started flow run {run.name} of {PROMOTE}")


@task(name="stage", task_run_name="{stage}")
def run_stage(
    stage: str,
    *,
    blocked: str,
    changed: bool,
    policy: RetryPolicy,
    train_on: str | None,
    force: bool,
    ranks: int = 1,
    prepare_on: str | None = None,
    prepare_runs: int = 1,
) -> State[bool]:
    """Bring one stage up to date.

    Args:
        stage: its address.
        blocked: the reason why it cannot start; empty where it can.
        changed: whether the stage or a stage that it needs has changed; if not, DVC is not called.
        policy: its retry policy.
        train_on: a deployment that runs the stage; the result comes from DVC's run cache.
        force: run the stage in any case.
        ranks: number of flow runs of train_on that share the training.
        prepare_on: a deployment that helps with a stage `prepare` in shards.
        prepare_runs: number of its flow runs.

    Returns:
        A state that names the outcome; its data: whether MLflow may lack the result.
    """
    if blocked:
        return Cancelled(name="NotStarted", message=blocked)
    if not changed:
        return Completed(name="UpToDate", message="nothing has changed", data=False)
    logger = get_run_logger()

    def log(line: str) -> None:
        if line.strip() and not line.startswith(ADVICE):
            level = re.match("ERROR|WARNING", line)
            getattr(logger, level[0].lower() if level else "info")(masked(line))

    try:
        if runtime.task_run.run_count > 1:
            commands.wait_or_stop(policy.delay)
        if train_on and dvc_graph.stale_stages(stage):
            from flows.engine.remote_training import run_remotely

            run_remotely(stage, train_on, ranks)
        with ExitStack() as stack:
            if prepare_on and short_name(stage).startswith("prepare@"):
                from flows.engine import shard_workers

                if shard_workers.has_shards(stage):
                    stack.enter_context(shard_workers.with_helpers(stage, prepare_on, prepare_runs))
            env = {} if train_on else stack.enter_context(devices.reserve_for(policy))
            options = ["--single-item", *(["--force"] if force else [])]
            output = dvc_graph.dvc(
                "repro", *options, stage, on_line=log, env=env, timeout=policy.timeout
            )
    except commands.StoppedError:
        return Cancelled(message="stopped with its flow")
    except commands.TimedOutError as error:
        return Failed(name="TimedOut", message=str(error))
    except OstinatoError as error:
        return Failed(message=message_of(error))
    if output.code:
        return Failed(message=masked(failure_reason(output)))
    if f"Stage '{stage}' is cached - skipping run, checking out outputs" in output.lines:
        return Completed(name="Restored", message="from DVC's run cache", data=True)
    if any(line.endswith(f"'{stage}' didn't change, skipping") for line in output.lines):
        return Completed(name="UpToDate", message="as before", data=False)
    # The report stage has logged all results, unless it warned.
    logged = short_name(stage) == "report" and not warned(output)
    return Completed(name="Ran", data=not logged)


def run_in_order(graph: Graph, start: Callable[[str], Future[Any]], max_concurrency: int) -> None:
    """Start each stage when all stages that it needs have ended.

    Args:
        graph: of the stages.
        start: starts a stage.
        max_concurrency: number of stages that run at the same time.
    """
    order = TopologicalSorter(graph)
    order.prepare()
    ready: deque[str] = deque()
    running: dict[Future[Any], str] = {}
    while order.is_active():
        ready.extend(order.get_ready())
        while ready and len(running) < max_concurrency:
            stage = ready.popleft()
            running[start(stage)] = stage
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            order.done(running.pop(ended))


def select_stages(graph: Graph, targets: Sequence[str]) -> Graph:
    """The part of a graph that the targets need.

    Args:
        graph: of the study.
        targets: names, patterns or names of templates, within the study or as DVC's addresses;
            none: all stages.

    Raises:
        ParamsError: no stage matches a target.
    """
    selected: set[str] = set()
    for target in targets or ["*"]:
        found = {
            stage
            for stage in graph
            for name in (stage, short_name(stage))
            if fnmatch.fnmatch(name, target) or fnmatch.fnmatch(name, f"{target}@*")
        }
        if not found:
            hint = params.near(target, map(short_name, graph))
            raise ParamsError(f"no stage {target!r}; {hint}")
        selected |= found
    return dvc_graph.ancestors(graph, selected)


def retry_policies(graph: Graph, values: Mapping[str, Any]) -> dict[str, RetryPolicy]:
    """The retry policy of each stage: of the first pattern in flows.stages that matches.

    A stage that no pattern matches is tried once, without a timeout.
    """
    policies = params.bind(_bind_policies, values.get("flows", {"stages": {}}))()
    once = RetryPolicy(retries=0, delay=0, timeout=None, gpu=False)
    return {
        stage: next(
            (policy for pattern, policy in policies.items() if _matches(stage, pattern)), once
        )
        for stage in graph
    }


def _matches(stage: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(short_name(stage), pattern)


def _bind_policies(*, stages: dict[str, dict[str, Any]]) -> dict[str, RetryPolicy]:
    policies = {}
    for pattern, block in stages.items():
        try:
            policies[pattern] = params.bind(RetryPolicy, block)()
        except ParamsError as error:
            raise ParamsError(f"flows.stages.{pattern}: {error}") from None
    return policies


def warned(output: commands.Output) -> bool:
    """Whether a stage has warned that it could not log to MLflow."""
    return any(line.startswith("Not tracked in") for line in output.lines)


def tracking_incomplete(states: Mapping[str, State[bool]]) -> bool:
    """Whether MLflow may lack a result of these stages: a report stage that ran has logged all."""
    results = {stage: state.result() for stage, state in states.items() if state.is_completed()}
    reports = [stage for stage in results if short_name(stage) == "report"]
    logged = any(states[stage].name == "Ran" and not results[stage] for stage in reports)
    return not logged and any(results.values())


def complete_tracking(study: str) -> str:
    """Log the results of a study that MLflow lacks.

    A failure does not stop the flow.

    Returns:
        A sentence that describes the failure; empty after a success.
    """
    logger = get_run_logger()
    argv = ("-m", "ostinato.tracking", study)
    output = commands.run(sys.executable, *argv, on_line=logger.info)
    if not output.code:
        return ""
    reason = output.lines[-1] if output.lines else f"exit code {output.code}"
    note = f"MLflow is incomplete: {reason}."
    logger.warning(f"{note} Run `python {' '.join(argv)}` to complete it.")
    return note


def failure_reason(output: commands.Output) -> str:
    """The reason of a failed `dvc repro`: the last line of the stage's command, or DVC's error."""
    lines = [line for line in output.lines if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    if not errors:
        return f"dvc ended with code {output.code}"
    error = lines[errors[-1]]
    if code := re.search(r"failed to run: .*, exited with (-?[0-9]+)$", error):
        return f"{lines[errors[-1] - 1]} (exited with {code[1]})"
    return error.removeprefix("ERROR: ")


def row_of(stage: str, started: datetime | None, future: Future[State[Any]] | None) -> Row:
    """The row of a stage in the table of outcomes."""
    state = future.result() if future and future.done() else None
    outcome = outcome_of(state) if state else "cancelled" if future else "not started"
    seconds = round((state.timestamp - started).total_seconds(), 1) if state and started else None
    message = state.message if state else None
    return {"stage": stage, "outcome": outcome, "seconds": seconds, "message": message or ""}


def summarize(rows: Sequence[Row]) -> str:
    """One line: the number of stages with each outcome, and the reasons of the failures."""
    counts = Counter(row["outcome"] for row in rows)
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    failed = [f"{row['stage']}: {row['message']}" for row in rows if row["outcome"] in FAILED]
    return "; ".join([text, *failed])


def outcome_of(state: State[Any]) -> str:
    """The name of a state as words: TimedOut is "timed out"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(state.name)).lower()


@command
def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stage or pattern")
    parser.add_argument("--study", default="params.yaml", metavar="PARAMS", help="params file")
    parser.add_argument(
        "--max-concurrency", type=int, default=2, metavar="N", help="stages at the same time"
    )
    parser.add_argument("--train-on", metavar="DEPLOYMENT", help="deployment for the training")
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="flow runs that share each training"
    )
    parser.add_argument(
        "--prepare-on", metavar="DEPLOYMENT", help="deployment that helps to prepare drawings"
    )
    parser.add_argument(
        "--prepare-runs", type=int, default=1, metavar="N", help="its flow runs for each data set"
    )
    parser.add_argument("--force", action="store_true", help="run up-to-date stages as well")
    state: Any = reproduce(**vars(parser.parse_args()), return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
