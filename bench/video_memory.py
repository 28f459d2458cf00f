"""Peak memory of preparing videos: flat, whatever their number.

    python -m bench.video_memory [--videos 2000]

A tenth and all of the videos, made here (MPEG-4 in AVI, 160x120, 40 frames), are each prepared by
a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.video_decoding import write
from ostinato import params
from ostinato.video import dataset, sources

SETTINGS: dict[str, Any] = {
    "colour": "rgb",
    "frames": 16,
    "height": 64,
    "width": 64,
    "shard_size": 200,
}
FILM = (40, 120, 160)


def measure(raw: Path, folder: Path) -> None:
    """Prepare, and print the peak and the time as JSON."""
    block = params.load()["data"]["clips"]["prepare"]
    prepare = params.bind(dataset.prepare, {**block, **SETTINGS})
    import tensorflow  # noqa: F401 (its import is no part of the time)

    before = peak()
    start = time.perf_counter()
    prepare(raw, folder)
    seconds = time.perf_counter() - start
    data = dataset.load(folder)
    clips = sum(data.size(split) for split in ("train", "validation", "test"))
    print(json.dumps({"clips": clips, "before": before, "mib": peak(), "seconds": seconds}))


def peak() -> int:
    """MiB of memory that this process has held at most."""
    # Not getrusage: that of a child begins at its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as place:
        for count in (arguments.videos // 10, arguments.videos):
            own, raw, folder = (Path(place, f"{name}{count}") for name in ("own", "raw", "data"))
            rng = np.random.default_rng(0)
            for number in range(count):
                path = own / f"class{number % 10}" / f"{number:06}.avi"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, FILM, "mpeg4", rng)
            raw.mkdir()
            folder.mkdir()
            sources.folder(raw, raw, 0, path=str(own), test=None)
            command = [sys.executable, "-m", "bench.video_memory", "--measure"]
            command += [str(raw), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{count:,} videos: {found['clips']:,} clips, {found['mib']:,} MiB at most "
                f"({found['before']:,} before), {found['seconds']:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
