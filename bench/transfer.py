"""Top-1 of the drawing runs of a study on real drawings of QuickDraw.

    python -m bench.transfer FOLDER [--form raw] [--study params.yaml] [--data sketches]

The runs are those of a study on one data set, trained before by `dvc repro` (with the embedded
source `doodles`: has a model that never saw a real drawing learned to recognise one?). FOLDER
holds the ndjson files of QuickDraw, one for each category; those of the data set's classes are
read, whether Google's game recognised the drawings or not. In brackets: 95% confidence interval.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ostinato import models
from ostinato.errors import OstinatoError
from ostinato.evaluation import comparison
from ostinato.sketches import dataset, sources
from ostinato.study import Study
from ostinato.task import Metric, PerExample

BENCHMARK = {
    "measures": "top-1 accuracy of the drawing runs on real drawings of QuickDraw",
    "minutes": 2,
    "needs": "FOLDER of QuickDraw's raw ndjson files, and the results of `dvc repro`",
}

SETTINGS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.1,
    "test": 0.1,
    "only_recognised": False,
    "shard_size": 50_000,
    "workers": 2,
}
BATCH_SIZE = 256
TOP1 = Metric("top1", "Top-1")

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of ndjson files, one for each category")
    parser.add_argument("--form", choices=["raw", "simplified"], default="raw")
    parser.add_argument("--study", type=Path, default=Path("params.yaml"))
    parser.add_argument("--data", default="sketches", help="a data set of strokes of the study")
    args = parser.parse_args(arguments)
    try:
        study = Study.load(args.study)
        trained = dataset.load(study.data_folder(args.data))
        max_points = study.entry("data", args.data, "prepare", "max_points")
        drawings, truth = real_drawings(args.folder, args.form, trained.classes, max_points)
    except OstinatoError as error:
        parser.error(str(error))
    if not drawings:
        parser.error(f"{args.folder}: no file of the classes {', '.join(trained.classes)}")
    print(f"{len(truth)} real drawings of {len(np.unique(truth))} categories, {args.form}")
    for name, run in study.entry("runs").items():
        if (run["domain"], run["data"]) != ("sketches", args.data):
            continue
        folder = study.result_folder(name) / "model"
        if not folder.exists():
            print(f"{name:24}not trained: {folder} is missing")
            continue
        predictor = models.load(run["domain"], run["model"]).restore(folder)
        correct = recognised(predictor, trained, drawings) == truth
        low, high = interval(correct, study.entry("seed"))
        print(f"{name:24}{correct.mean():.3f} [{low:.3f}, {high:.3f}]")


def real_drawings(
    folder: Path, form: str, classes: Sequence[str], max_points: int
) -> tuple[list[NDArray[np.int16]], NDArray[np.int64]]:
    """The drawings of the classes that have a file, each stroke-3 (point, 3), and their labels."""
    files = [folder / f"{name}.ndjson" for name in classes]
    files = [file for file in files if file.exists()]
    if not files:
        return [], np.empty(0, np.int64)
    with tempfile.TemporaryDirectory() as temporary:
        given, raw, ready = (Path(temporary, name) for name in ("given", "raw", "ready"))
        for path in (given, raw, ready):
            path.mkdir()
        for file in files:
            shutil.copy(file, given)
        sources.folder(raw, ready, 0, path=str(given), form=form, label="file")  # type: ignore[arg-type]
        dataset.prepare(raw, ready, max_points=max_points, **SETTINGS)
        data = dataset.load(ready)
        parts = [data.examples(split) for split in ("train", "validation", "test")]
    drawings = [part[i] for part in parts for i in range(len(part))]
    labels = np.concatenate([part.labels for part in parts])
    index = np.array([classes.index(name) for name in data.classes])
    return drawings, index[labels]


def recognised(
    predict: Predict, data: dataset.Dataset, drawings: Sequence[NDArray[np.int16]]
) -> NDArray[np.int64]:
    """The most probable class of each drawing, in batches of similar length."""
    best = np.empty(len(drawings), np.int64)
    order = np.argsort([len(drawing) for drawing in drawings], kind="stable")
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        best[batch] = predict(data.inputs([drawings[i] for i in batch])).argmax(axis=1)
    return best


def interval(correct: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """The 95% confidence interval of the share of correct answers."""
    keys = np.arange(len(correct))
    rows = np.stack([correct, np.ones(len(correct))], axis=1).astype(float)
    per_example = PerExample(keys, keys, {TOP1.name: rows})
    return comparison.metric_interval(per_example, TOP1, resamples=1000, seed=seed)


if __name__ == "__main__":
    main()
