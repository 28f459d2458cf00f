"""Recognises pen drawings: raw strokes in, labels with probabilities out.

A drawing is the list of its strokes, in the order drawn; a stroke is ``[xs, ys]``, as in
QuickDraw's files, or ``[xs, ys, times]`` as a pen records it. Any unit will do: the drawing is
placed, scaled and simplified as the training data were, then cut to as many points.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, Field, SkipValidation

from ostinato import errors, params, store
from ostinato.errors import RequestError
from ostinato.evaluation import classification
from ostinato.sketches import dataset
from ostinato.sketches.dataset import ndjson, strokes
from ostinato.sketches.evaluation import compiled

BATCH = 256  # drawings recognised at once

STAIRS = [[0, 0, 30, 30, 60, 60, 90, 90], [120, 90, 90, 60, 60, 30, 30, 0]]
EXAMPLE = {"strokes": [STAIRS]}

LIMITS = """\
- It knows its classes and no other: whatever is drawn, it answers one of them.
- What it learned are whole drawings; of one that has only begun it knows little.
- Probabilities are the network's own; how far they can be trusted is the calibration error.
"""


class Drawing(BaseModel):
    """A drawing to be recognised."""

    # Checked by `_rows`, which names drawing and stroke; the type is for the signature.
    strokes: SkipValidation[list[list[list[float]]]]
    simplified: bool | None = Field(None, description="it is in 0 to 255 and simplified already")


class Answer(BaseModel):
    """What a drawing is, and how sure that is."""

    label: str
    probability: float
    probabilities: dict[str, float]  # of the likeliest first


Input = Drawing


def load(folder: Path) -> Callable[[Sequence[Drawing], int], list[Answer]]:
    """The model whose files are in ``folder``, ready to answer drawings.

    Returns:
        A function of drawings, and of how many of the likeliest classes are told (0: all).
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    if data.kind != "strokes":
        raise RequestError(f"the model reads a {data.kind}, not the strokes of a drawing")
    params.model_module(about["domain"], about["model"])  # registers the model's layers
    call = compiled(store.read_model(folder / "model.keras"))
    points, names = about["prepare"]["points"], np.array(data.classes)

    def answer(drawings: Sequence[Drawing], best: int) -> list[Answer]:
        rows = [_rows(number, drawing, points) for number, drawing in enumerate(drawings)]
        order = np.argsort([len(drawing) for drawing in rows], kind="stable")
        told: dict[int, Answer] = {}
        for start in range(0, len(rows), BATCH):
            chosen = order[start : start + BATCH]
            p, _ = call(data.pad([rows[i] for i in chosen]))
            for i, row in zip(chosen, p, strict=True):
                first = np.argsort(-row, kind="stable")[: best or None]
                known = dict(zip(names[first].tolist(), row[first].tolist(), strict=True))
                label = next(iter(known))
                told[i] = Answer(label=label, probability=known[label], probabilities=known)
        return [told[i] for i in range(len(rows))]

    # Compiles all that a first question would wait for.
    answer([Drawing.model_validate(EXAMPLE)], 1)
    return answer


def _rows(number: int, drawing: Drawing, points: int) -> NDArray[np.int16]:
    """A drawing as a model's stroke-3 rows, by the very steps that prepared the training data."""
    try:
        line = orjson.dumps(
            {"key_id": "asked", "drawing": drawing.strokes}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        *_, tracks = ndjson.parse_line(line)
    except (errors.MalformedError, orjson.JSONEncodeError) as error:
        raise RequestError(f"drawing {number}: {error}") from None
    ends = np.cumsum([len(track) for track in tracks], dtype=np.int64)
    flat = np.concatenate([np.empty((0, 2)), *tracks])
    (fault,) = ndjson.check(flat, ends, np.array([len(ends)]), bool(drawing.simplified))
    if fault:
        told = (*ndjson.FAULTS, "no ink: it has no points, or all of them in one place")[fault]
        raise RequestError(f"drawing {number}: {told}")
    if drawing.simplified:
        simple = [track.astype(np.int16) for track in tracks]
    else:
        simple = strokes.simplify(tracks)
    rows = strokes.to_stroke3(simple)[:points]
    rows[-1, 2] = 1
    return rows


def questions(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Examples of the test split as somebody would ask them, by key: raw, where the data are raw.

    Simplified drawings are asked as they were prepared. A key that names several raw drawings is
    left out: nothing says which of them was prepared.

    Raises:
        ServedError: the data are bitmaps.
    """
    source, wanted = store.read_json(raw / "manifest.json"), set(keys)
    found: dict[str, dict[str, Any]] = {}
    if (source["format"], source["form"]) != ("ndjson", "raw"):
        data = dataset.load(prepared)
        if data.kind != "strokes":
            raise RequestError(f"{prepared} holds bitmaps; a registered model reads strokes")
        split = data.examples("test")
        for i, key in enumerate(split.keys.tolist()):
            if key in wanted:
                rows = split[i]
                tracks = [track.T.tolist() for track in strokes.from_stroke3(rows)]
                found[key] = {"strokes": tracks, "simplified": True}
        return found
    twice = set()
    for file in source["files"]:
        with (raw / file["path"]).open("rb") as lines:
            for line in lines:
                try:
                    fields = orjson.loads(line)
                    key = str(fields["key_id"])
                except (orjson.JSONDecodeError, TypeError, KeyError):
                    continue  # malformed: prepare has left it out
                if key in found:
                    twice.add(key)
                elif key in wanted:
                    found[key] = {"strokes": fields.get("drawing")}
    return {key: question for key, question in found.items() if key not in twice}


def arrays(
    answers: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Answers as evaluation keeps them: truth, rank, and probabilities (example, class).

    Args:
        answers: with all probabilities; of classes that need not be ``classes``.
        truth: the true class of each.
        classes: in whose order the probabilities are told; a class that was not known has 0,
            and as the true one the last rank.
    """
    known = sorted(answers[0]["probabilities"])
    place = {name: i for i, name in enumerate(known)}
    # One more column, for what was not known.
    p = np.zeros((len(answers), len(known) + 1))
    p[:, :-1] = [[answer["probabilities"][name] for name in known] for answer in answers]
    told = np.array([place.get(name, len(known)) for name in truth])
    index = {name: i for i, name in enumerate(classes)}
    return {
        "truth": np.array([index[name] for name in truth]),
        "rank": classification.ranks(p, told),
        "probabilities": p[:, [place.get(name, len(known)) for name in classes]],
    }
