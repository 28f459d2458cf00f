"""What the flow `reproduce` costs and gains, against plain `dvc repro`: seconds, and ratios.

    python -m bench.flows [CHECKOUT] [--rounds 3]

Every side runs the whole pipeline of CHECKOUT (this one unless given: committed and new files, as
they are) in a fresh copy without any cache, MLflow included; then again, with nothing to do. The
sides take turns, round by round: `dvc repro`; `python -m flows.reproduce` with one stage at once;
with two. The flow's seconds are those of its whole process, the start of Python and the imports
too. A Prefect server runs beside it (its start is not counted; without one a flow starts its own,
some 10 s). Medians over the rounds, and medians of the ratios within a round.

On the default pipeline a round takes about 13 minutes on two cores.
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
from collections.abc import Iterator
from pathlib import Path

FLOW = [sys.executable, "-m", "flows.reproduce", "--at-once"]
SIDES = {"dvc repro": ["dvc", "repro"], "one at once": [*FLOW, "1"], "two at once": [*FLOW, "2"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=Path())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    whole: dict[str, list[float]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder, "prefect")) as environment:
        for number in range(args.rounds):
            for place, (side, command) in enumerate(SIDES.items()):
                copy = fresh(args.checkout, Path(folder, f"{number}-{place}"))
                whole[side].append(timed(command, copy, environment))
                again[side].append(timed(command, copy, environment))
                print(f"round {number + 1}: {side}: {whole[side][-1]:.1f} s", flush=True)
                shutil.rmtree(copy)
    print(f"\n{'':12} {'whole':>8} {'nothing to do':>14}")
    for side in SIDES:
        print(f"{side:12} {median(whole[side]):6.1f} s {median(again[side]):12.1f} s")
    plain, one, two = (whole[side] for side in SIDES)
    for title, ratio in (
        ("one at once against dvc repro", share(one, plain)),
        ("two at once against dvc repro", share(two, plain)),
        ("two at once against one", share(two, one)),
    ):
        print(f"{title}: {ratio:+.1%}")


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def share(one: list[float], other: list[float]) -> float:
    """By how much ``one`` takes longer than ``other``, in the median over the rounds."""
    return median([a / b - 1 for a, b in zip(one, other, strict=True)])


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    log = folder.with_suffix(".log")
    with log.open("w") as file:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file)
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} failed:\n{log.read_text()[-4000:]}")
    return seconds


def fresh(checkout: Path, folder: Path) -> Path:
    """A copy of a checkout, committed, that has nothing of what its pipeline makes in a cache."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (checkout / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, folder / name)
    author = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for git in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    return folder


@contextlib.contextmanager
def server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own on loopback; the environment of what uses it."""
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
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health")
                break
            time.sleep(1)
        else:
            sys.exit(f"The server did not start: {log.name}")
        yield environment
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
