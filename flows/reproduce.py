"""Bring every result up to date: one Prefect task for each stage of DVC's graph.

``python -m flows.reproduce [TARGET...]`` runs it from a shell; no server is needed.

DVC decides what has to run, and keeps what has run. So the next run takes up what a killed one
left: finished stages are up to date, and a training goes on after its last epoch.
"""

import argparse
import fnmatch
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Annotated, Any

from prefect import allow_failure, flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas import State
from prefect.futures import PrefectConcurrentFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows.engine import checkout, commands, devices, dvc_graph
from ostinato import errors as ostinato_errors
from ostinato import params
from ostinato.policies import RetryPolicy
from ostinato.tracking import mirror

Graph = Mapping[str, Collection[str]]  # each stage, and those that it needs
Row = dict[str, Any]  # stage, outcome, seconds, message

FAILED = ("failed", "timed out")
# What DVC advises a person at a terminal.
ADVICE = ("\tgit add", "\tdvc config", "To track the ", "To enable auto ", "Use `dvc push`")


@flow(name="reproduce")
def reproduce(
    targets: Sequence[str] = (),
    at_once: Annotated[int, Field(ge=1, le=100)] = 2,
    train_on: str | None = None,
    force: bool = False,
) -> Any:
    """Bring every result up to date, in the order of DVC's graph.

    After a stage has failed, what does not need it still runs; then the flow fails and says why.
    Another flow that works in the same checkout is waited for.

    Args:
        targets: Stages or patterns such as `evaluate@*`, with all that they need; all when empty.
        at_once: Stages that run side by side, where none needs another.
        train_on: A deployment for the training, such as `train/gpu`; this machine when empty.
        force: Run what is up to date as well; not together with train_on.

    Returns:
        A row for each stage: its outcome (ran, restored, up to date, failed, timed out, not
        started, cancelled), seconds and message.
    """
    graph: Graph = {}
    begun: dict[str, datetime] = {}
    states: dict[str, Future[State[bool]]] = {}
    note = ""

    def start(stage: str) -> Future[State[bool]]:
        needed = {name: states[name].result() for name in sorted(graph[stage])}
        blocked = {
            str(state.message) if state.is_cancelled() else f"{name} {_words(state)}"
            for name, state in needed.items()
            if not state.is_completed()
        }
        changed = stage in stale or any(state.name != "UpToDate" for state in needed.values())
        begun[stage] = datetime.now(UTC)
        future = bring.with_options(retries=0 if blocked else policies[stage].retries).submit(
            stage,
            blocked="; ".join(sorted(blocked)),
            changed=changed,
            policy=policies[stage],
            gpus=values.get("runtime", {}).get("devices", 1),
            train_on=train_on if stage.startswith("train@") else None,
            force=force,
            wait_for=[allow_failure(s) for s in needed.values() if not s.is_cancelled()],
            return_state=False,
        )
        assert isinstance(future, PrefectConcurrentFuture)
        states[stage] = future.wrapped_future
        return states[stage]

    if force and train_on:
        raise ostinato_errors.ParamsError(
            f"force runs every stage here, {train_on} elsewhere: choose one"
        )
    try:
        with checkout.checkout():
            values = dvc_graph.check_study()
            graph = chosen(dvc_graph.read_graph(), targets)
            policies = retry_policies(graph, values)
            stale = set(graph) if force else dvc_graph.stale_stages() & set(graph)
            get_run_logger().info(f"{len(graph)} stages, {len(stale)} of them changed")
            in_order(graph, start, at_once)
            ended = [state.result() for state in states.values()]
            if any(state.is_completed() and state.result() for state in ended):
                note = track()
    finally:  # of a flow that is cancelled too; its commands have ended
        wait(states.values(), timeout=2)
        rows = [_row(stage, begun.get(stage), states.get(stage)) for stage in graph]
        told = _told(rows)
        if rows:
            create_table_artifact(rows, key="reproduce", description=f"{told}\n\n{note}")
    if any(row["outcome"] in FAILED for row in rows):
        return Failed(message=told)
    return Completed(message=told, data=rows)


@task(name="stage", task_run_name="{stage}")
def bring(
    stage: str,
    *,
    blocked: str,
    changed: bool,
    policy: RetryPolicy,
    gpus: int,
    train_on: str | None,
    force: bool,
) -> State[bool]:
    """Bring one stage up to date.

    Args:
        stage: its name.
        blocked: why it cannot start, if it cannot.
        changed: whether it, or what it needs, has changed; else DVC is not asked.
        policy: how often and for how long it is tried.
        gpus: of this machine that it is bound to, if it is.
        train_on: a deployment that does the work, which is then restored from DVC's run cache.
        force: run it in any case.

    Returns:
        A state that says what happened; its data: whether MLflow may lack the result.
    """
    if blocked:
        return Cancelled(name="NotStarted", message=blocked)
    if not changed:
        return Completed(name="UpToDate", message="nothing has changed", data=False)
    logger = get_run_logger()

    def log(line: str) -> None:
        if line.strip() and not line.startswith(ADVICE):
            level = re.match("ERROR|WARNING", line)
            getattr(logger, level[0].lower() if level else "info")(mirror.masked(line))

    try:
        if runtime.task_run.run_count > 1:
            commands.wait_or_stop(policy.delay)
        if train_on and dvc_graph.stale_stages(stage):
            from flows.engine.remote_training import away

            away(stage, train_on)
        with ExitStack() as held:
            bound = policy.gpu and not train_on
            env = held.enter_context(devices.reserve_devices(gpus)) if bound else {}
            how = ["--single-item", *(["--force"] if force else [])]
            output = dvc_graph.dvc(
                "repro", *how, stage, on_line=log, env=env, timeout=policy.timeout
            )
    except commands.StoppedError:
        return Cancelled(message="stopped with its flow")
    except TimeoutError as error:
        return Failed(name="TimedOut", message=str(error))
    if output.code:
        return Failed(message=mirror.masked(_reason(output)))
    untracked = any(line.startswith("Not tracked in") for line in output.lines)
    if f"Stage '{stage}' is cached - skipping run, checking out outputs" in output.lines:
        return Completed(name="Restored", message="from DVC's run cache", data=True)
    if any(line.endswith(f"'{stage}' didn't change, skipping") for line in output.lines):
        return Completed(name="UpToDate", message="as before", data=False)
    return Completed(name="Ran", data=untracked)


def in_order(graph: Graph, start: Callable[[str], Future[Any]], at_once: int) -> None:
    """Start each stage when those that it needs have ended; ``at_once`` run side by side."""
    order = TopologicalSorter(graph)
    order.prepare()
    ready: deque[str] = deque()
    running: dict[Future[Any], str] = {}
    while order.is_active():
        ready.extend(order.get_ready())
        while ready and len(running) < at_once:
            stage = ready.popleft()
            running[start(stage)] = stage
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            order.done(running.pop(ended))


def chosen(graph: Graph, targets: Sequence[str]) -> Graph:
    """The part of the graph that ``targets`` (names, patterns, templates) need; all for none."""
    left: set[str] = set()
    for target in targets or ["*"]:
        found = {*fnmatch.filter(graph, target), *fnmatch.filter(graph, f"{target}@*")}
        if not found:
            raise ostinato_errors.ParamsError(f"no stage {target!r}; {params.near(target, graph)}")
        left |= found
    needed: set[str] = set()
    while left:
        needed |= left
        left = {name for stage in left for name in graph[stage]} - needed
    return {stage: graph[stage] for stage in graph if stage in needed}


def retry_policies(graph: Graph, values: Mapping[str, Any]) -> dict[str, RetryPolicy]:
    """How each stage is tried: by the first pattern of flows.stages that fits, or just once."""
    policies = params.bind(_policies, values.get("flows", {"stages": {}}))()
    once = RetryPolicy(retries=0, delay=0, timeout=None, gpu=False)
    return {
        stage: next((a for name, a in policies.items() if fnmatch.fnmatchcase(stage, name)), once)
        for stage in graph
    }


def _policies(*, stages: dict[str, dict[str, Any]]) -> dict[str, RetryPolicy]:
    policies = {}
    for pattern, block in stages.items():
        try:
            policies[pattern] = params.bind(RetryPolicy, block)()
        except ostinato_errors.ParamsError as error:
            raise ostinato_errors.ParamsError(f"flows.stages.{pattern}: {error}") from None
    return policies


def track() -> str:
    """Complete MLflow; a sentence where that fails, which stops nothing."""
    logger = get_run_logger()
    output = commands.run(sys.executable, "-m", "ostinato.tracking.mirror", on_line=logger.info)
    if not output.code:
        return ""
    note = f"MLflow is incomplete: {output.lines[-1] if output.lines else 'no answer'}."
    logger.warning(f"{note} `python -m ostinato.tracking.mirror` completes it.")
    return note


def _reason(output: commands.Output) -> str:
    """Why DVC failed: the last words of the stage's command and its code, or DVC's own error."""
    said = [line for line in output.lines if line.strip()]
    errors = [number for number, line in enumerate(said) if line.startswith("ERROR: ")]
    if not errors:
        return f"dvc ended with code {output.code}"
    error = said[errors[-1]]
    if code := re.search(r"failed to run: .*, exited with (-?[0-9]+)$", error):
        return f"{said[errors[-1] - 1]} (exited with {code[1]})"
    return error.removeprefix("ERROR: ")


def _row(stage: str, begun: datetime | None, future: Future[State[Any]] | None) -> Row:
    state = future.result() if future and future.done() else None
    outcome = _words(state) if state else "cancelled" if future else "not started"
    seconds = round((state.timestamp - begun).total_seconds(), 1) if state and begun else None
    message = state.message if state else None
    return {"stage": stage, "outcome": outcome, "seconds": seconds, "message": message or ""}


def _told(rows: Sequence[Row]) -> str:
    """One line: how many stages had which outcome, and why those that failed did."""
    counts = Counter(row["outcome"] for row in rows)
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    failed = [f"{row['stage']}: {row['message']}" for row in rows if row["outcome"] in FAILED]
    return "; ".join([text, *failed])


def _words(state: State[Any]) -> str:
    """The name of a state in words: TimedOut is timed out."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(state.name)).lower()


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stage or pattern")
    parser.add_argument("--at-once", type=int, default=2, help="stages side by side")
    parser.add_argument("--train-on", metavar="DEPLOYMENT", help="where training runs")
    parser.add_argument("--force", action="store_true", help="run what is up to date as well")
    state: Any = reproduce(**vars(parser.parse_args()), return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
