"""Peak memory of preparing many series and reading their windows: it depends on the series only.

    python -m bench.series_memory [--series 100000] [--steps 100] [--batches 500]

A CSV file with a row for each step is prepared and read, with a tenth of the series and with all
of them, the latter with a tenth and with all of the windows; each time by new processes. The
memory that the training windows would need as arrays is printed for comparison. The memory of
reading is measured from the import of TensorFlow on.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.forecasting import dataset, sources

BENCHMARK = {
    "measures": "peak memory of preparing 10,000 and 100,000 series, and of reading their windows",
    "minutes": 10,
}

SETTINGS: dict[str, Any] = {
    "horizon": 7,
    "window": 28,
    "season": 7,
    "since": None,
    "until": None,
    "validation": 21,
    "calibration": None,
    "test": 7,
    "timezone": None,
    "duplicates": "refuse",
    "gaps": "refuse",
    "longest_gap": 1,
    "zeros": "keep",
    "tolerated_rejects": 0.0,
    "calendar": ["weekday"],
    "country": None,
    "subdivision": None,
    "scaling": "standard",
    "per": "series",
    "log": False,
}
BATCH = 256


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--batches", type=int, default=500, help="batches of an epoch that are read"
    )
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stride", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.prepare:
        print(json.dumps(prepare(args.prepare, args.stride)))
    elif args.read:
        print(json.dumps(read(args.read, args.batches)))
    else:
        for share, stride in ((0.1, 1), (1.0, 10), (1.0, 1)):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                generate(folder / "series.csv", int(args.series * share), args.steps)
                common = ["--stride", str(stride), "--batches", str(args.batches)]
                prepared = run_process(["--prepare", temporary, *common])
                found = run_process(["--read", temporary, *common])
            print(
                f"{int(args.series * share):,} series of {args.steps} steps, "
                f"{found['windows']:,} training windows ({found['held_mib']:,.0f} MiB as arrays): "
                f"prepare {prepared['mib']:,} MiB at the peak, {prepared['seconds']:.0f} s; "
                f"reading {found['mib']:,} MiB at the peak, "
                f"{found['mib'] - found['base_mib']:,} MiB of them beyond the imports, "
                f"{found['windows_per_second']:,.0f} windows/s",
                flush=True,
            )


def run_process(options: list[str]) -> dict[str, float]:
    """Run this module in a new process; return what it measured."""
    command = [sys.executable, "-m", "bench.series_memory", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peak() -> int:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def generate(file: Path, series: int, steps: int) -> None:
    """Write series with a weekly season, a row for each day of each series."""
    random = np.random.default_rng(1)
    day = np.arange(steps)
    dates = (np.datetime64("2020-01-01") + day).astype(str)
    with file.open("w") as out:
        out.write("series,date,value\n")
        for number in range(series):
            values = 50 + 10 * np.sin(2 * np.pi * day / 7 + number) + random.normal(size=steps)
            lines = [
                f"s{number},{date},{value:.2f}\n" for date, value in zip(dates, values, strict=True)
            ]
            out.writelines(lines)


def prepare(folder: Path, stride: int) -> dict[str, float]:
    """Measure the peak memory and the time of fetching and preparing the CSV file."""
    start = time.perf_counter()
    for name in ("raw", "scratch", "data"):
        (folder / name).mkdir()
    sources.csv(
        folder / "raw",
        folder / "scratch",
        1,
        where=str(folder / "series.csv"),
        date="date",
        date_format=None,
        series="series",
        target="value",
        past_covariates=[],
        future_covariates=[],
        static_covariates=[],
        frequency="D",
        stamps="exact",
        decimal=".",
        thousands=None,
        missing=[],
        timeout=10.0,
        retries=1,
    )
    dataset.prepare(folder / "raw", folder / "data", **SETTINGS, stride=stride)
    return {"mib": peak(), "seconds": time.perf_counter() - start}


def read(folder: Path, batches: int) -> dict[str, float]:
    """Measure the peak memory and the speed of the first batches of a training epoch."""
    import tensorflow as tf

    tf.data.Dataset.range(8).batch(2).reduce(np.int64(0), lambda total, x: total + x[0])
    base = peak()
    data = dataset.load(folder / "data")
    start, seen, size = time.perf_counter(), 0, 0
    for x, y, weight in data.batches("train", batch_size=BATCH, seed=1, epoch=1).take(batches):
        seen += len(y)
        size += sum(part.numpy().nbytes for part in (*x.values(), y, weight))
    return {
        "base_mib": base,
        "mib": peak(),
        "windows": data.size("train"),
        "held_mib": size / seen * data.size("train") / 2**20,
        "windows_per_second": seen / (time.perf_counter() - start),
    }


if __name__ == "__main__":
    main()
