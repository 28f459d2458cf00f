"""DVC's graph of a study: its stages, the stages that are out of date, and their run.

A stage is named by DVC's address: ``train@NAME`` in the default study,
``recipes/x/dvc.yaml:train@NAME`` in another one.
"""

import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flows.engine.commands import POLL_INTERVAL_S, OnLine, Output, run, wait_or_stop
from ostinato.errors import FlowError, ParamsError
from ostinato.study import Study

Graph = Mapping[str, Collection[str]]
"""Each stage's address, and the addresses of the stages that it needs."""

MAX_WAIT_S = 30.0  # between two attempts to run a stage whose files another process has locked


def dvc(
    *arguments: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run `dvc` (see `commands.run`); wait while another process works on the same files."""
    delay = POLL_INTERVAL_S
    while True:
        output = run(
            "dvc", "--wait-for-lock", *arguments, on_line=on_line, env=env, timeout=timeout
        )
        errors = [line for line in output.lines if line.startswith("ERROR: ")]
        # --wait-for-lock covers the lock of the checkout, but not the locks of a stage's files.
        if not output.code or not errors or "is busy, it is being blocked by" not in errors[-1]:
            return output
        wait_or_stop(delay)
        delay = min(2 * delay, MAX_WAIT_S)


def check_study(path: str) -> Study:
    """Load a study after `stages.check` has checked all of its params file.

    The check runs in a process of its own: it imports the models, and a flow never imports Keras.

    Args:
        path: of the params file, relative to the root of the checkout.

    Raises:
        ParamsError: lists all that is wrong in it.
    """
    output = run(sys.executable, "-m", "stages.check", path)
    text = "\n".join(output.lines)
    if output.code and "ParamsError: " in text:
        raise ParamsError(text.partition("ParamsError: ")[2])
    if output.code:
        raise FlowError(f"`python -m stages.check {path}` ended with code {output.code}:\n{text}")
    return Study.load(path)


def read_graph(study: Study) -> Graph:
    """The stages of a study, and the stages of other studies that it needs."""
    graph, prefix = read_all_graphs(), study.stage("")
    return ancestors(
        graph, (s for s in graph if (s.startswith(prefix) if prefix else ":" not in s))
    )


def read_all_graphs() -> Graph:
    """The stages of all studies of the checkout."""
    graph: dict[str, set[str]] = {}
    for line in _dvc_lines("dag", "--dot"):
        match re.findall(r'"([^"]+)"', line):
            case [stage]:
                graph.setdefault(stage, set())
            case [needed, stage]:
                graph.setdefault(needed, set())
                graph.setdefault(stage, set()).add(needed)
    return graph


def ancestors(graph: Graph, stages: Iterable[str]) -> Graph:
    """The part of a graph that has these stages and all that they need, in the graph's order."""
    missing, found = set(stages), set[str]()
    while missing:
        found |= missing
        missing = {needed for stage in missing for needed in graph[stage]} - found
    return {stage: graph[stage] for stage in graph if stage in found}


def short_name(stage: str) -> str:
    """The name of a stage within its study: ``train@NAME``."""
    return stage.rpartition(":")[2]


def dvc_file(stage: str) -> str:
    """The file that defines a stage: a dvc.yaml, or the .dvc file of tracked data."""
    file, _, name = stage.rpartition(":")
    return file or (name if name.endswith(".dvc") else "dvc.yaml")


def stale_stages(*targets: str) -> set[str]:
    """The stages that differ from dvc.lock.

    The stage `check` always runs, and does in each flow (`check_study`): it counts as stale only
    where its outputs have changed.

    Args:
        targets: addresses, or files as `dvc_file` returns them; none: all of the checkout.
    """
    return {
        stage
        for stage, changes in _status(*targets).items()
        if not (short_name(stage) == "check" and changes == ["always changed"])
    }


def changed_outputs(*stages: str) -> dict[str, list[str]]:
    """For each of these stages the outputs on disk that differ from dvc.lock."""
    status = _status(*stages)
    return {
        stage: [
            path
            for change in status.get(stage, ())
            if isinstance(change, dict)
            for path in change.get("changed outs", ())
        ]
        for stage in stages
    }


def _status(*targets: str) -> dict[str, list[Any]]:
    lines = _dvc_lines("status", "--json", *targets)
    first = next(number for number, line in enumerate(lines) if line.startswith("{"))
    # A long line has come in pieces (`commands.MAX_LINE_CHARS`).
    status: dict[str, list[Any]] = json.JSONDecoder().raw_decode("".join(lines[first:]))[0]
    return status


def _dvc_lines(*arguments: str) -> list[str]:
    output = dvc(*arguments)
    if output.code:
        text = "\n".join(output.lines[-20:])
        if "is not a git repository" in text:
            text += "\nWithout git, tell DVC so: dvc config --local core.no_scm true"
        raise FlowError(f"`dvc {' '.join(arguments)}` ended with code {output.code}:\n{text}")
    return output.lines
