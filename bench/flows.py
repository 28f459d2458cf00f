"""Overhead and gain of the flow `reproduce` over plain `dvc repro`: seconds and ratios.

    python -m bench.flows [CHECKOUT] [--study params.yaml] [--rounds 3]

Each side runs the whole pipeline of a study of CHECKOUT (default: the current folder, with its
committed and new files as they are) in a new copy without caches, MLflow included; then again, with
nothing to do. The sides take turns, round by round: `dvc repro`; `python -m flows.reproduce` with
one stage at a time; with two. The time of the flow is that of its whole process, with the start of
Python and the imports. A Prefect server runs beside it and its start is not counted; without one, a
flow starts its own, which takes some 10 s. The result is the median over the rounds, for ratios
the median of the ratios within a round.

On the default study a round takes about three times the five minutes of a `dvc repro`.
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

BENCHMARK = {
    "measures": (
        "the flow `reproduce` against `dvc repro`: overhead, and the gain of two stages at a time"
    ),
    "minutes": 45,
}

START_TIMEOUT_S = 120


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=Path())
    parser.add_argument("--study", default="params.yaml", help="params file, from the checkout")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    sides = commands(args.study)
    whole: dict[str, list[float]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_server(Path(folder, "prefect")) as environment,
    ):
        for number in range(args.rounds):
            for index, (side, command) in enumerate(sides.items()):
                copy = copy_checkout(args.checkout, Path(folder, f"{number}-{index}"))
                whole[side].append(run(command, copy, environment))
                again[side].append(run(command, copy, environment))
                print(f"round {number + 1}: {side}: {whole[side][-1]:.1f} s", flush=True)
                shutil.rmtree(copy)
    print(f"\n{'':12} {'whole':>8} {'nothing to do':>14}")
    for side in sides:
        whole_median, again_median = statistics.median(whole[side]), statistics.median(again[side])
        print(f"{side:12} {whole_median:6.1f} s {again_median:12.1f} s")
    plain, one, two = (whole[side] for side in sides)
    for title, ratio in (
        ("one at a time against dvc repro", excess(one, plain)),
        ("two at a time against dvc repro", excess(two, plain)),
        ("two at a time against one", excess(two, one)),
    ):
        print(f"{title}: {ratio:+.1%}")


def commands(study: str) -> dict[str, list[str]]:
    """The command of each side, plain `dvc repro` first."""
    dvc_file = Path(study).with_name("dvc.yaml").as_posix()
    flow = [sys.executable, "-m", "flows.reproduce", "--study", study, "--max-concurrency"]
    return {
        "dvc repro": ["dvc", "repro", dvc_file],
        "one at a time": [*flow, "1"],
        "two at a time": [*flow, "2"],
    }


def excess(times: Sequence[float], others: Sequence[float]) -> float:
    """The relative excess of ``times`` over ``others``: the median over the rounds."""
    return statistics.median([a / b - 1 for a, b in zip(times, others, strict=True)])


def run(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Run a command in a folder; return its wall time in seconds."""
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file)
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} failed:\n{log.read_text()[-4000:]}")
    return seconds


def copy_checkout(checkout: Path, folder: Path) -> Path:
    """Copy and commit a checkout's files; the copy has no cache."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = checkout / name, folder / name
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target, follow_symlinks=False)  # a recipe's dvc.yaml is a link
    author = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for git in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    return folder


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Start a Prefect server on loopback; yield the environment of commands that use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with home.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(START_TIMEOUT_S):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health")
                break
            time.sleep(1)
        else:
            sys.exit(f"the Prefect server did not start within {START_TIMEOUT_S} s: {log.name}")
        yield environment
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
