"""Classify pen drawings: raw strokes in, classes with probabilities out.

A drawing is the list of its strokes in drawing order. A stroke is ``[xs, ys]``, as in QuickDraw's
files, or ``[xs, ys, times]`` as a pen records it, in any unit of length. All lists of a
stroke have the same length. The drawing is aligned, scaled, simplified and cut by the functions
that prepared the training data.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from jaxtyping import Float64, Int16, Int64
from pydantic import BaseModel, Field, SkipValidation

from ostinato import models, store
from ostinato.errors import MalformedError, RequestError
from ostinato.serving import classification
from ostinato.serving.classification import Response, from_responses
from ostinato.sketches import dataset
from ostinato.sketches.evaluation import DrawingClassifier
from ostinato.sketches.formats import quickdraw, strokes
from ostinato.sketches.formats.raw import RawManifest
from ostinato.task import Json
from ostinato.task import Serving as ServingContract

__all__ = ["SERVING", "Input", "Response", "from_responses", "load", "to_requests"]

BATCH_SIZE = 256  # drawings that are classified at once

STAIRS = [[0, 0, 30, 30, 60, 60, 90, 90], [120, 90, 90, 60, 60, 30, 30, 0]]

SERVING = ServingContract(
    limits="""\
- The model knows only its classes and assigns every drawing to one of them.
- It was trained on whole drawings; accuracy on unfinished drawings is lower.
- It was trained on drawings by hand, which have wobbly lines: figures drawn by ruler, such as a
  square of five points, may not be recognised.
- Probabilities are the network's own; the calibration error says how reliable they are.
""",
    example={"strokes": [STAIRS]},
    options={"top_k": 0},
    files=("results/serving.npz",),
    packages=("numba",),
)


class Input(BaseModel):
    """A drawing to classify."""

    # `to_rows` validates the strokes and names drawing and stroke; the type is for the signature.
    strokes: SkipValidation[list[list[list[float]]]] = Field(
        description="in drawing order: [xs, ys] or [xs, ys, times] each"
    )
    simplified: bool | None = Field(
        None, description="whether coordinates are in 0 to 255 and simplified, as Google's"
    )


@dataclass(frozen=True)
class Scanned:
    """An `Input` that the compiled scanner has read from a file.

    Args:
        points: x and y.
        ends: end of each stroke in ``points``.
        simplified: as of `Input`.
    """

    points: Float64[np.ndarray, "point 2"]
    ends: Int64[np.ndarray, " stroke"]
    simplified: bool

    @property
    def strokes(self) -> list[list[list[float]]]:
        """As of `Input`."""
        return [each.T.tolist() for each in np.split(self.points, self.ends[:-1])]


class DrawingService:
    """A loaded model that classifies drawings (`ostinato.task.Service`)."""

    def __init__(
        self, predictor: DrawingClassifier, data: dataset.Dataset, max_points: int
    ) -> None:
        self.predictor = predictor
        self.data = data
        self.max_points = max_points

    def predict(
        self, inputs: Sequence[Input | Scanned], options: Mapping[str, Json]
    ) -> list[Response]:
        """Classify drawings.

        Args:
            inputs: the drawings.
            options: ``top_k``: number of ranked predictions to return; 0 returns all.

        Raises:
            RequestError: ``top_k`` is below 0, or a drawing is malformed; names it by its number,
                from 0.
        """
        top_k = classification.read_top_k(options)
        rows = _all_rows(inputs, self.max_points)
        order = np.argsort([len(drawing) for drawing in rows], kind="stable")
        responses: dict[int, Response] = {}
        for start in range(0, len(rows), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            probabilities = self.predictor(self.data.inputs([rows[i] for i in batch]))
            for i, p in zip(batch, probabilities, strict=True):
                responses[i] = classification.response(p, self.data.classes, top_k)
        return [responses[i] for i in range(len(rows))]


def load(folder: Path) -> DrawingService:
    """Load a packaged model; a first prediction compiles its graph.

    Args:
        folder: holds ``model/``, manifest.json and about.json.

    Raises:
        RequestError: the model reads bitmaps.
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    if data.kind != "strokes":
        raise RequestError(f"the model reads {data.kind}s; only models of strokes can be served")
    predictor = models.load(about["domain"], about["model"]).restore(folder / "model")
    service = DrawingService(predictor, data, about["prepare"]["max_points"])
    service.predict([Input.model_validate(SERVING.example)], {"top_k": 1})
    return service


def optimise(service: DrawingService) -> None:
    """Let a server answer faster: compute the model by compiled loops, if they support it."""
    from ostinato.sketches import packed
    from ostinato.training.keras_model import KerasModel

    predictor = service.predictor
    loops = packed.pack(predictor.model) if isinstance(predictor, KerasModel) else None
    if loops is not None:
        service.predictor = loops


def _all_rows(
    inputs: Sequence[Input | Scanned], max_points: int
) -> list[Int16[np.ndarray, "point 3"]]:
    """Stroke-3 rows of drawings, by one call of each compiled function for all of them."""
    simplified = {bool(drawing.simplified) for drawing in inputs}
    found = _points_of(inputs)
    if found is not None and len(simplified) == 1:
        points, ends, drawings = found
        if not quickdraw.check(points, ends, drawings, True in simplified).any():
            if False in simplified:
                points, ends = strokes.simplify_all(points, ends, drawings)
            rows, ends = strokes.stroke3_all(points.astype(np.int16), ends, drawings)
            cut = [each[:max_points] for each in np.split(rows, ends[:-1])]
            for each in cut:
                each[-1, 2] = 1
            return cut
    # One by one: an error names the drawing.
    return [to_rows(number, drawing, max_points) for number, drawing in enumerate(inputs)]


def _points_of(inputs: Sequence[Input | Scanned]) -> tuple[Any, Any, Any] | None:
    """Points of all drawings, and the ends of their strokes and drawings; None if one is broken."""
    if inputs and all(isinstance(each, Scanned) for each in inputs):
        scanned = cast(Sequence[Scanned], inputs)
        points = np.concatenate([each.points for each in scanned])
        ends = np.concatenate([each.ends for each in scanned])
        sizes = [len(each.ends) for each in scanned]
        before = np.cumsum([0, *(len(each.points) for each in scanned[:-1])])
        return points, ends + np.repeat(before, sizes), np.cumsum(sizes)
    try:
        lines = [orjson.dumps({"key_id": "request", "drawing": each.strokes}) for each in inputs]
    except orjson.JSONEncodeError:
        return None
    parsed, _ = quickdraw.parse(b"\n".join(lines))
    every = np.array_equal(parsed.lines, range(len(inputs)))
    return parsed[1:4] if every else None


def to_rows(number: int, drawing: Input | Scanned, max_points: int) -> Int16[np.ndarray, "point 3"]:
    """Stroke-3 rows of a drawing, by the functions that prepared the training data.

    Args:
        number: of the drawing, for errors.
        drawing: of a request.
        max_points: points that are kept of a longer drawing.

    Raises:
        RequestError: the drawing is malformed.
    """
    try:
        tracks = quickdraw.read_strokes(drawing.strokes)
    except MalformedError as error:
        raise RequestError(f"drawing {number}: {error}") from None
    if fault := quickdraw.fault_of(tracks, bool(drawing.simplified)):
        raise RequestError(f"drawing {number}: {quickdraw.FAULTS[fault]}")
    if drawing.simplified:
        simplified = [track.astype(np.int16) for track in tracks]
    else:
        simplified = strokes.simplify(tracks)
    rows = strokes.to_stroke3(simplified)[:max_points]
    rows[-1, 2] = 1
    return rows


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test drawings as requests, by key.

    If the raw files hold raw strokes, a request has these; else it has the prepared strokes. A key
    of several raw drawings is left out, because the prepared one is not known.

    Args:
        raw: the folder that a source has filled.
        prepared: the folder of the data set.
        keys: of the drawings.

    Raises:
        RequestError: the data are bitmaps.
    """
    source = RawManifest.read(raw)
    if (source.format, source.form) == ("ndjson", "raw"):
        return _raw_requests(raw, source, keys)
    data = dataset.load(prepared)
    if data.kind != "strokes":
        raise RequestError(f"{prepared} holds bitmaps; only models of strokes can be served")
    split, wanted = data.examples("test"), set(keys)
    return {
        key: {
            "strokes": [track.T.tolist() for track in strokes.from_stroke3(split[i])],
            "simplified": True,
        }
        for i, key in enumerate(split.keys.tolist())
        if key in wanted
    }


def _raw_requests(
    raw: Path, source: RawManifest, keys: Collection[str]
) -> dict[str, dict[str, Json]]:
    wanted, repeated = set(keys), set()
    found: dict[str, dict[str, Json]] = {}
    for file in source.files:
        drawings, again = quickdraw.find(raw / file.path, wanted)
        repeated |= again | (found.keys() & drawings.keys())
        for key, drawing in drawings.items():
            found[key] = {"strokes": [track.T.tolist() for track in drawing.strokes]}
    return {key: request for key, request in found.items() if key not in repeated}
