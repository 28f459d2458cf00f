"""The cost and gain of the flow `reproduce`, compared with plain `dvc repro`: seconds, and ratios.

    python -m bench.flows [CHECKOUT] [--study PARAMS] [--rounds 3] [--targets TARGET ...]

Each side runs the whole pipeline of CHECKOUT (by default this one: committed and new files, as they
are) in a fresh copy without any cache, also of MLflow; then once more, with nothing to do. The
sides alternate, round by round: `dvc repro`; `python -m flows.reproduce` with one stage at a time;
with two. The seconds of the flow are those of its whole process, with the start of Python and the
imports. A Prefect server runs beside it (its start is not counted; without a server a flow starts
its own, some 10 s). Reported are medians over the rounds, and medians of the ratios within a round.
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


def commands(study: Path, targets: list[str]) -> dict[str, list[str]]:
    """The command of each side."""
    flow = [sys.executable, "-m", "flows.reproduce", *targets, "--study", str(study)]
    graph = str(study.with_name("dvc.yaml"))
    return {
        "dvc repro": ["dvc", "repro", *(targets or [graph])],
        "flow, one stage": [*flow, "--max-concurrency", "1"],
        "flow, two stages": [*flow, "--max-concurrency", "2"],
    }


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=Path())
    parser.add_argument("--study", type=Path, default=Path("params.yaml"), help="params file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--targets", nargs="*", default=[], help="stages; all if empty")
    args = parser.parse_args()
    sides = commands(args.study, args.targets)
    whole: dict[str, list[float]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_server(Path(folder, "prefect")) as environment,
    ):
        for number in range(args.rounds):
            for index, (side, command) in enumerate(sides.items()):
                copy = fresh_copy(args.checkout, Path(folder, f"{number}-{index}"))
                whole[side].append(time_command(command, copy, environment))
                again[side].append(time_command(command, copy, environment))
                print(f"round {number + 1}: {side}: {whole[side][-1]:.1f} s", flush=True)
                shutil.rmtree(copy)
    print(f"\n{'':16} {'whole':>8} {'nothing to do':>14}")
    for side in sides:
        seconds = statistics.median(whole[side]), statistics.median(again[side])
        print(f"{side:16} {seconds[0]:6.1f} s {seconds[1]:12.1f} s")
    plain, one, two = (whole[side] for side in sides)
    for title, ratio in (
        ("flow, one stage, against dvc repro", excess(one, plain)),
        ("flow, two stages, against dvc repro", excess(two, plain)),
        ("two stages against one", excess(two, one)),
    ):
        print(f"{title}: {ratio:+.1%}")


def excess(one: list[float], other: list[float]) -> float:
    """Relative excess of ``one`` over ``other``: the median over the rounds."""
    return statistics.median([a / b - 1 for a, b in zip(one, other, strict=True)])


def time_command(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """The seconds of a command in a folder."""
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file)
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} failed:\n{log.read_text()[-4000:]}")
    return seconds


def fresh_copy(checkout: Path, folder: Path) -> Path:
    """A copy of a checkout, committed, without any cache."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (checkout / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, folder / name, follow_symlinks=False)
    author = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for git in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    return folder


@contextlib.contextmanager
def server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server on loopback; yields the environment of its clients."""
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
