"""Trials of a search in an hour: one process for all of them, against a process for each.

    python -m bench.search [--run weather-linear] [--epochs 4] [--trials 8] [--rounds 3]

It runs in a checkout in which `dvc repro` has prepared the data of RUN. A trial is RUN with another
learning rate. In each round one process of `stages.trial` trains all of them, as that of `tune`
does, and then a process for each. The digits of both must be equal. One process is faster because
it imports TensorFlow once, and traces graphs of equal shapes once. The processor time of a trial is
shown too, which the load of the machine changes less.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ostinato.study import Study

BENCHMARK = {
    "measures": "trials of a search in an hour: one process for all against a process for each",
    "minutes": 5,
    "needs": "a checkout in which `dvc repro` has prepared the data of RUN",
}

History = list[dict[str, Any]]
TIMED = ("seconds", "sequences_per_second")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="params.yaml")
    parser.add_argument("--run", default="weather-linear")
    parser.add_argument("--epochs", type=int, help="of a trial; by default those of RUN")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    plan = plan_of(args.study, args.run)
    if args.epochs:
        plan = with_fit(plan, epochs=args.epochs)
    rate = plan["run"]["fit"]["learning_rate"]
    plans = [
        with_fit(plan, learning_rate=rate * (1 + index / args.trials))
        for index in range(args.trials)
    ]
    kinds = {"one process": [plans], "a process for each": [[plan] for plan in plans]}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        digits = []
        for kind, groups in kinds.items():
            began, used = time.perf_counter(), processor_seconds()
            digits.append([history for group in groups for history in train(group)])
            seconds[kind].append(time.perf_counter() - began)
            processor[kind].append(processor_seconds() - used)
        assert digits[0] == digits[1], "other digits"
    print(f"{args.run}, {args.trials} trials, {args.rounds} rounds")
    for kind in kinds:
        rate = 3600 * args.trials / statistics.median(seconds[kind])
        used = statistics.median(processor[kind]) / args.trials
        print(f"{kind}: {rate:,.0f} trials/h, {used:.2f} s of processor for a trial")
    for what, values in (("trials/h", seconds), ("processor time", processor)):
        one, each = (statistics.median(values[kind]) for kind in kinds)
        print(f"{what}: {each / one:.2f} times as good in one process")


def processor_seconds() -> float:
    """The processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plan_of(study: str, run: str) -> dict[str, Any]:
    """The plan of a trial that changes no parameter of a run."""
    loaded = Study.load(study)
    values = {key: loaded.params[key] for key in ("seed", "runtime")}
    return {"study": study, **values, "run": loaded.entry("runs", run)}


def with_fit(plan: Mapping[str, Any], **fit: Any) -> dict[str, Any]:
    """A plan with other parameters of the training."""
    changed = deepcopy(dict(plan))
    changed["run"]["fit"] |= fit
    return changed


def train(plans: Sequence[Mapping[str, Any]]) -> list[History]:
    """Train plans one after another in one new process; the digits of their epochs."""
    scratch = Path("scratch")
    scratch.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch.resolve()))
    found: list[History] = []
    command = [sys.executable, "-m", "stages.trial", "train"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        for index, plan in enumerate(plans):
            # One at a time: a line that arrives during a training stops it.
            print(
                json.dumps({"plan": plan, "folder": str(folder / str(index))}), file=process.stdin
            )
            process.stdin.flush()
            history: History = []
            for line in process.stdout:
                answer = json.loads(line) if line.startswith("{") else {}
                if "ended" in answer:
                    assert answer["ended"] == "completed"
                    break
                if answer:
                    history.append({k: v for k, v in answer.items() if k not in TIMED})
            found.append(history)
        process.stdin.close()
    shutil.rmtree(folder)
    assert process.returncode == 0
    return found


if __name__ == "__main__":
    main()
