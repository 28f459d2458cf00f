"""TODO."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from flows.engine.commands import POLL_S, OnLine, Output, run, wait_or_stop
from ostinato import errors as ostinato_errors
from ostinato import params


def dvc(
    *arguments: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run `dvc` as `command` does; where another process works on the same files, wait for it."""
    delay = POLL_S
    while True:
        output = run(
            "dvc", "--wait-for-lock", *arguments, on_line=on_line, env=env, timeout=timeout
        )
        errors = [line for line in output.lines if line.startswith("ERROR: ")]
        # Its option is for its short lock of the checkout, not for that of a stage's files.
        if not output.code or not errors or "is busy, it is being blocked by" not in errors[-1]:
            return output
        wait_or_stop(delay)
        delay = min(2 * delay, 30.0)


def check_study() -> dict[str, Any]:
    """The content of params.yaml, after `stages.check` has checked the whole file.

    Raises:
        ParamsError: lists all that is wrong in it.
    """
    output = run(sys.executable, "-m", "stages.check")
    text = "\n".join(output.lines)
    if output.code and "ParamsError: " in text:
        raise ostinato_errors.ParamsError(text.partition("ParamsError: ")[2])
    if output.code:
        raise RuntimeError(f"`python -m stages.check` ended with code {output.code}:\n{text}")
    return params.load()


def read_graph() -> dict[str, set[str]]:
    """Each stage of dvc.yaml and the stages that it needs."""
    stages: dict[str, set[str]] = {}
    for line in _dvc_lines("dag", "--dot"):
        match re.findall(r'"([^"]+)"', line):
            case [stage]:
                stages.setdefault(stage, set())
            case [needed, stage]:
                stages.setdefault(needed, set())
                stages.setdefault(stage, set()).add(needed)
    return stages


def stale_stages(*stages: str) -> set[str]:
    """Those of all stages, or of these, that are not as dvc.lock has them."""
    lines = _dvc_lines("status", "--json", *stages)
    return set(json.loads(next(line for line in reversed(lines) if line.startswith("{"))))


def _dvc_lines(*arguments: str) -> list[str]:
    output = dvc(*arguments)
    if output.code:
        said = "\n".join(output.lines[-20:])
        raise RuntimeError(f"`dvc {' '.join(arguments)}` ended with code {output.code}:\n{said}")
    return output.lines
