"""Peak memory of preparing and reading up to a million drawings: it does not grow with them.

    python -m bench.memory [FOLDER] [--drawings 1000000]

FOLDER holds simplified ndjson files of QuickDraw; without it the embedded drawings are used. They
are repeated as in bench.ingest. A tenth, a half and all
of the drawings are prepared, and read for an epoch, each time by a new process.
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

from bench.ingest import SETTINGS, embedded, multiply
from ostinato.sketches import dataset

BENCHMARK = {
    "measures": "peak memory of preparing and reading up to a million drawings",
    "minutes": 10,
}


def measure(raw: Path, folder: Path) -> None:
    """Prepare drawings, read an epoch, and print the peaks of memory as JSON."""
    start = time.perf_counter()
    dataset.prepare(raw, folder, **SETTINGS, workers=2)
    prepared = time.perf_counter()
    prepare_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    import tensorflow  # noqa: F401 (its import is not part of an epoch's time)

    start_reading = time.perf_counter()
    data = dataset.load(folder)
    rows = sum(len(y) for _, y in data.batches("train", batch_size=128, seed=0, epoch=0))
    assert rows == data.size("train")
    sizes = {
        "drawings": sum(data.size(split) for split in ("train", "validation", "test")),
        "prepare_mib": prepare_mib,
        "prepare_seconds": round(prepared - start, 1),
        "epoch_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "epoch_drawings_a_second": round(rows / (time.perf_counter() - start_reading)),
    }
    print(json.dumps(sizes))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--drawings", type=int, default=1_000_000)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.prepared:
        measure(args.folder, args.prepared)
        return
    for share in (0.1, 0.5, 1.0):
        with tempfile.TemporaryDirectory() as temporary:
            raw, folder = Path(temporary, "raw"), Path(temporary, "data")
            raw.mkdir()
            folder.mkdir()
            given = args.folder or embedded(Path(temporary), "simplified")
            size = multiply(given, raw, int(args.drawings * share))
            command = [sys.executable, "-m", "bench.memory", str(raw), "--prepared", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sizes = json.loads(done.stdout.splitlines()[-1])
            print(f"{sizes['drawings']:,} drawings, {size / 1e6:,.0f} MB of ndjson:", flush=True)
            print(
                f"  prepare {sizes['prepare_mib']:,} MiB at the peak, "
                f"{sizes['prepare_seconds']} s; with an epoch {sizes['epoch_mib']:,} MiB, "
                f"{sizes['epoch_drawings_a_second']:,} drawings/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
