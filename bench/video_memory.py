"""Peak memory of `prepare` for videos: independent of their number.

    python -m bench.video_memory [--videos 2000]

A tenth of the videos and all of them are each prepared by a new process. The videos are generated
(MPEG-4 in AVI, 160x120, 40 frames).
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

BENCHMARK = {
    "measures": "peak memory of preparing 200 and 2,000 videos",
    "minutes": 5,
}

PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.25,
    "test": 0.25,
    "group": None,
    "frames": 16,
    "frame_rate": None,
    "frame_sampling": "uniform",
    "clips": 1,
    "height": 64,
    "width": 64,
    "colour": "rgb",
    "max_pixels": 10**7,
    "augment": {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0},
    "shard_size": 200,
    "workers": 2,
}
FILM = (40, 120, 160)


def measure(raw: Path, folder: Path) -> None:
    """Prepare, and print peak memory and time as JSON."""
    prepare = params.bind(dataset.prepare, PREPARE)
    import tensorflow  # noqa: F401 (so that its import is not timed)

    before = peak()
    start = time.perf_counter()
    prepare(raw, folder)
    seconds = time.perf_counter() - start
    data = dataset.load(folder)
    clips = sum(data.size(split) for split in ("train", "validation", "test"))
    print(json.dumps({"clips": clips, "before": before, "mib": peak(), "seconds": seconds}))


def peak() -> int:
    """Peak memory of this process, in MiB."""
    # Not getrusage, whose value of a child starts at its parent's.
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
    with tempfile.TemporaryDirectory() as temporary:
        for count in (arguments.videos // 10, arguments.videos):
            own, raw, folder = (
                Path(temporary, f"{name}{count}") for name in ("own", "raw", "data")
            )
            rng = np.random.default_rng(0)
            for number in range(count):
                path = own / f"class{number % 10}" / f"{number:06}.avi"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, FILM, "mpeg4", rng)
            raw.mkdir()
            folder.mkdir()
            sources.folder(raw, raw, 0, path=str(own), ignore=[], test=None)
            command = [sys.executable, "-m", "bench.video_memory", "--measure"]
            command += [str(raw), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{count:,} videos: {found['clips']:,} clips, {found['mib']:,} MiB peak memory "
                f"({found['before']:,} before), {found['seconds']:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
