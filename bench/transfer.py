"""Models trained on the embedded drawings alone, asked for real ones: top-1 of every run.

    python -m bench.transfer FOLDER [--form raw]

Run `dvc repro` with the source `doodles` before. FOLDER holds QuickDraw's ndjson files, one a
category; those of the embedded categories are read, whether Google's game recognised them or not.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ostinato import params
from ostinato.evaluation import classification
from ostinato.sketches import dataset, sources

SETTINGS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.1,
    "test": 0.1,
    "only_recognised": False,
    "shard_size": 50_000,
    "workers": 2,
}
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--form", choices=["raw", "simplified"], default="raw")
    args = parser.parse_args()
    values = params.load()
    trained = dataset.load(Path("data", "sketches"))
    points = values["data"]["sketches"]["prepare"]["max_points"]
    drawings, truth = real(args.folder, args.form, trained.classes, points)
    print(f"{len(truth)} real drawings of {len(np.unique(truth))} categories, {args.form}")
    for name, run in values["runs"].items():
        if run["domain"] != "sketches":
            continue
        predict = params.model("sketches", run["model"]).restore(Path("results", name, "model"))
        right = np.empty(len(truth), bool)
        order = np.argsort([len(drawing) for drawing in drawings], kind="stable")
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            x = trained.inputs([drawings[i] for i in chosen])
            right[chosen] = predict(x).argmax(1) == truth[chosen]
        low, high = classification.mean_interval(right, resamples=1000, seed=values["seed"])
        print(f"{name:24}{right.mean():.3f} [{low:.3f}, {high:.3f}]")


def real(
    folder: Path, form: str, classes: tuple[str, ...], points: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """The drawings of ``classes``, each stroke-3 (point, 3), and their labels."""
    with tempfile.TemporaryDirectory() as place:
        given, raw, ready = (Path(place, name) for name in ("given", "raw", "ready"))
        for path in (given, raw, ready):
            path.mkdir()
        for name in classes:
            if (folder / f"{name}.ndjson").exists():
                shutil.copy(folder / f"{name}.ndjson", given)
        sources.folder(raw, ready, 0, path=str(given), form=form, label="file")  # type: ignore[arg-type]
        dataset.prepare(raw, ready, max_points=points, **SETTINGS)
        data = dataset.load(ready)
        parts = [data.examples(split) for split in ("train", "validation", "test")]
    drawings = [part[i] for part in parts for i in range(len(part))]
    labels = np.concatenate([part.labels for part in parts])
    place_of = np.array([classes.index(name) for name in data.classes])
    return drawings, place_of[labels]


if __name__ == "__main__":
    main()
