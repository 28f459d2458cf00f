"""Draw: new drawings of a class, drawings that begin as yours, and what lies between two of yours.

An input says what to draw. Without `strokes`: new drawings. With `strokes`: the drawing begins with
these strokes and is finished. With `strokes` and `other`: drawings from the one to the other, by a
model with an encoder. A drawing is the list of its strokes in drawing order. A stroke is
``[xs, ys]``, as in QuickDraw's files, or ``[xs, ys, times]`` as a pen records it.

The same input gives the same drawings, whatever is asked beside it. Of an input with a larger
`count` the first drawings are the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int16, Shaped
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, create_model

from ostinato import models, params, store
from ostinato.errors import MalformedError, RequestError
from ostinato.generation import dataset
from ostinato.generation.formats import drawings
from ostinato.generation.formats.latent import spherical
from ostinato.generation.formats.svg import to_svg
from ostinato.sketches.formats import quickdraw, strokes
from ostinato.task import Json
from ostinato.task import Serving as ServingContract

MAX_COUNT = 100
"""Drawings of an input, at most."""
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**32 - 1
MAX_NAME_CHARS = 60  # of an unknown class, in errors
HALF = 0.5  # of a test drawing's points, from which evaluation completes it

SERVING = ServingContract(
    limits="""\
- The model draws in the hand of its training drawings, and knows only their classes.
- Single drawings may be unfinished or unreadable, more of them at high temperatures. The label in
  a response is what the data set's classifier sees; that classifier can be wrong.
- A beginning that is unlike the training drawings is continued badly.
- The drawing that finishes a beginning may end at once: the model can hold it for finished.
""",
    options={"svg": False},
    files=("results/serving.npz",),
    optional_files=("data/classifier.keras",),
    packages=("numba",),
)

Kind = Literal["sample", "completion", "interpolation", "reconstruction"]
Strokes = SkipValidation[list[list[list[float]]] | None]

# `class` is a keyword of Python, so that no class statement can declare this field.
_WithClass = create_model(
    "_WithClass",
    **{
        "class": (
            str | None,
            Field(None, description="name; null: where the model knows one class, or none"),
        )
    },  # type: ignore[call-overload]
)


class Input(_WithClass):  # type: ignore[misc,valid-type]
    """What to draw."""

    model_config = ConfigDict(extra="forbid")

    # `_rows` validates the strokes and names the drawing; the types are for the signature.
    strokes: Strokes = Field(
        None, description="a beginning, or with `other` a drawing: [xs, ys] or [xs, ys, times] each"
    )
    other: Strokes = Field(
        None, description="a second drawing: the answer lies between the two; equal: reconstruction"
    )
    temperature: float | None = Field(
        None, description="above 0, at most 2; null: the one that evaluation has chosen"
    )
    count: int = Field(1, description=f"number of drawings, 1 to {MAX_COUNT}")
    seed: int = Field(0, description="of all that is random, 0 to 2^32 - 1")
    size: float | None = Field(
        None,
        description="longer side of the finished drawing, in the unit of the beginning; null: 255, "
        "or the beginning's own where that is longer",
    )
    simplified: bool = Field(
        False, description="whether coordinates are in 0 to 255 and simplified, as Google's"
    )
    whole: Strokes = Field(
        None,
        description="a whole drawing, in place of the other fields: the answer is what evaluation "
        "makes of it: a completion from half of its points, by a model with an encoder a "
        "reconstruction, and its loss",
    )


class Drawing(BaseModel):
    """A drawing that the model has made."""

    kind: Kind = Field(description="what was asked for")
    strokes: list[list[list[float]]] = Field(
        description="[xs, ys] each: integers in 0 to 255; a completion is in the unit of the "
        "beginning, which comes first and is unchanged"
    )
    label: str | None = Field(
        description="the class that a classifier sees; null: no drawing, or no classifier"
    )
    probability: float | None = Field(description="of `label`, 0 to 1")
    svg: str | None = Field(None, description="the picture, with the option `svg`")


class Response(BaseModel):
    """The drawings of an input."""

    drawings: list[Drawing] = Field(description="`count` of them")
    loss: float | None = Field(
        None,
        description="of `whole`: reconstruction loss L_R, in nats divided by the most points of a "
        "drawing; null for other inputs, and where the model has no density",
    )


@dataclass(frozen=True)
class Page:
    """Where a drawing lies: pixel (x, y) of its box is ``corner + unit * (x, y)`` of the request.

    Args:
        corner: of the box.
        unit: units of the request in a pixel.
    """

    corner: tuple[float, float] = (0.0, 0.0)
    unit: float = 1.0


@dataclass(frozen=True)
class Order:
    """One drawing to make.

    Args:
        kind: of the drawing.
        label: index of the class.
        seed: of this drawing.
        temperature: of this drawing.
        beginning: stroke-3 rows that it begins with.
        latent: its latent vector; None: drawn by the seed.
        given: the strokes of the beginning, as the response repeats them.
        page: where the beginning lies.
    """

    kind: Kind
    label: int
    seed: int
    temperature: float
    beginning: Int16[np.ndarray, "_ 3"] = field(default_factory=lambda: np.zeros((0, 3), np.int16))
    latent: Float32[np.ndarray, " latent"] | None = None
    given: Sequence[Sequence[Sequence[float]]] = ()
    page: Page = Page()


class GenerationService:
    """A loaded generator (`ostinato.task.Service`).

    Args:
        generator: as `ostinato.generation.layers.Generator`.
        data: with the classifier, if there is one.
        temperature: of inputs that name none.
    """

    def __init__(self, generator: Any, data: dataset.Dataset, temperature: float) -> None:
        self.generator, self.data, self.temperature = generator, data, temperature
        self.classifier = data.classifier
        network = getattr(generator, "network", None)  # stored drawings are all of known classes
        self.knows_classes = len(data.classes) > 1 and (network is None or network.classes > 0)
        self.max_points = int(data.manifest.details["max_points"])

    @property
    def reads(self) -> dict[str, Json]:
        """What a client must know besides the manifest (`ostinato.serving.kinds`)."""
        return {
            "classes": list(self.data.classes) if self.knows_classes else [],
            "encoder": self.generator.latent_size > 0,
            "temperature": self.temperature,
            "max_count": MAX_COUNT,
        }

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Json]) -> list[Response]:
        """Make the drawings of all inputs at once.

        Args:
            inputs: what to draw.
            options: ``svg``: whether each drawing comes as a picture, too.

        Raises:
            RequestError: an input cannot be answered; names it by its number, from 0.
        """
        orders = [self._orders(number, each) for number, each in enumerate(inputs)]
        flat = [order for each in orders for order in each]
        found = iter(self._described(flat, self._drawn(flat), bool(options.get("svg"))))
        losses = self._losses(inputs)
        return [
            Response.model_construct(drawings=[next(found) for _ in each], loss=losses.get(number))
            for number, each in enumerate(orders)
        ]

    def _orders(self, number: int, each: Input) -> list[Order]:
        """The drawings that an input asks for."""
        label, temperature = self._label(number, each), self._temperature(number, each)
        _check_whole(number, each)
        if not 1 <= each.count <= MAX_COUNT:
            raise RequestError(
                f"drawing {number}: count: found {each.count}; expected 1 to {MAX_COUNT}"
            )
        if not 0 <= each.seed <= MAX_SEED:
            raise RequestError(
                f"drawing {number}: seed: found {each.seed}; expected 0 to {MAX_SEED}"
            )
        seeds = [drawing_seed(each.seed, k) for k in range(each.count)]

        def orders(kind: Kind, latent: Sequence[Any] | None = None, **more: Any) -> list[Order]:
            return [
                Order(kind, label, seed, temperature, latent=latent[k] if latent else None, **more)
                for k, seed in enumerate(seeds)
            ]

        if each.whole is not None:
            rows = self._rows(number, "whole", each.whole, each.simplified)
            begun = self._beginning(number, "whole", drawings.prefix(rows, HALF))
            found = orders("completion", beginning=begun)
            if self.generator.latent_size:
                found += orders("reconstruction", self._encoded([rows], label))
            return found
        if each.other is not None:
            return orders("interpolation", self._between(number, each, label))
        if each.strokes is not None:
            rows, page = self._begun(number, each)
            given = [stroke[:2] for stroke in each.strokes if stroke and stroke[0]]
            return orders("completion", beginning=rows, given=given, page=page)
        return orders("sample")

    def _label(self, number: int, each: Input) -> int:
        name: str | None = getattr(each, "class")
        if name is None:
            if self.knows_classes:
                known = ", ".join(self.data.classes)
                raise RequestError(f"drawing {number}: class: found null; expected one of {known}")
            return 0
        if name not in self.data.classes:
            hint = params.near(name, self.data.classes)
            raise RequestError(
                f"drawing {number}: class: found {name[:MAX_NAME_CHARS]!r}, which is not known; "
                f"{hint}"
            )
        return self.data.classes.index(name)

    def _temperature(self, number: int, each: Input) -> float:
        if each.temperature is None:
            return self.temperature
        if not 0 < each.temperature <= MAX_TEMPERATURE:
            raise RequestError(
                f"drawing {number}: temperature: found {each.temperature:g}; expected a number "
                f"above 0, at most {MAX_TEMPERATURE:g}"
            )
        return each.temperature

    def _begun(self, number: int, each: Input) -> tuple[Int16[np.ndarray, "_ 3"], Page]:
        """The rows of a beginning, in the size that it has in the finished drawing."""
        tracks = _tracks(number, "strokes", each.strokes, each.simplified)
        if each.simplified:
            if each.size is not None:
                raise RequestError(
                    f"drawing {number}: size: found {each.size:g}; expected null, as `simplified` "
                    f"strokes are of a drawing of {drawings.BOX}"
                )
            rows, page = _to_rows(tracks), Page()
        else:
            points = np.concatenate(tracks)
            corner = points.min(axis=0)
            extent = float((points - corner).max())
            size = max(float(drawings.BOX), extent) if each.size is None else each.size
            if not extent <= size <= strokes.MAX_COORDINATE:
                raise RequestError(
                    f"drawing {number}: size: found {size:g}; expected {extent:g} or more, the "
                    f"longer side of the beginning, at most {strokes.MAX_COORDINATE:g}"
                )
            # A stroke as long as the finished drawing gives the beginning its scale.
            span = np.array([[0.0, 0.0], [size, 0.0]])
            *simple, _ = strokes.simplify([*(track - corner for track in tracks), span])
            rows, page = _to_rows(simple), Page((corner[0], corner[1]), size / drawings.BOX)
        return self._beginning(number, "strokes", rows), page

    def _beginning(
        self, number: int, name: str, rows: Int16[np.ndarray, "_ 3"]
    ) -> Int16[np.ndarray, "_ 3"]:
        if len(rows) >= self.data.longest:
            raise RequestError(
                f"drawing {number}: {name}: found a beginning of {len(rows)} points; the model "
                f"draws {self.data.longest} at most"
            )
        return rows

    def _rows(
        self, number: int, name: str, sent: object, simplified: bool
    ) -> Int16[np.ndarray, "_ 3"]:
        """The rows of a whole drawing, as prepared ones."""
        tracks = _tracks(number, name, sent, simplified)
        rows = _to_rows(tracks if simplified else strokes.simplify(tracks))
        if len(rows) > self.max_points:
            raise RequestError(
                f"drawing {number}: {name}: found {len(rows)} points; the model knows drawings of "
                f"{self.max_points} at most"
            )
        return rows

    def _between(self, number: int, each: Input, label: int) -> list[Float32[np.ndarray, " _"]]:
        """The latent vectors from the one drawing to the other."""
        if each.strokes is None:
            raise RequestError(f"drawing {number}: other: found a drawing, but no strokes")
        if not self.generator.latent_size:
            raise RequestError(
                f"drawing {number}: other: this model has no encoder; ask one that has, such as "
                "sketch_rnn"
            )
        pair = [
            self._rows(number, name, sent, each.simplified)
            for name, sent in (("strokes", each.strokes), ("other", each.other))
        ]
        shares = np.linspace(0, 1, each.count) if each.count > 1 else np.array([0.5])
        one, another = self._encoded(pair, label)
        return list(spherical(one, another, shares))

    def _encoded(
        self, rows: Sequence[Int16[np.ndarray, "_ 3"]], label: int
    ) -> list[Float32[np.ndarray, " _"]]:
        return list(self.generator.encode(rows, np.full(len(rows), label)))

    def _drawn(self, orders: Sequence[Order]) -> list[Int16[np.ndarray, "_ 3"]]:
        """The rows of drawings: one call for given latent vectors, one for all others."""
        found: dict[int, Int16[np.ndarray, "_ 3"]] = {}
        for encoded in (False, True):
            numbers = [i for i, each in enumerate(orders) if (each.latent is not None) == encoded]
            if not numbers:
                continue
            part = [orders[i] for i in numbers]
            latent = [each.latent for each in part if each.latent is not None]
            drawn = self.generator.draw(
                np.array([each.label for each in part]),
                [each.seed for each in part],
                np.array([each.temperature for each in part]),
                latent=np.stack(latent) if latent else None,
                beginnings=[each.beginning for each in part],
            )
            found |= dict(zip(numbers, drawn, strict=True))
        return [found[i] for i in range(len(orders))]

    def _losses(self, inputs: Sequence[Input]) -> dict[int, float]:
        """The losses of whole drawings by the number of their input, if the model has a density."""
        wholes = {number: each for number, each in enumerate(inputs) if each.whole is not None}
        if not wholes:
            return {}
        losses, _ = self.generator.measure(
            [self._rows(n, "whole", each.whole, each.simplified) for n, each in wholes.items()],
            np.array([self._label(n, each) for n, each in wholes.items()]),
            [each.seed for each in wholes.values()],
        )
        return {} if losses is None else dict(zip(wholes, losses.tolist(), strict=True))

    def _described(
        self, orders: Sequence[Order], drawn: Sequence[Int16[np.ndarray, "_ 3"]], svg: bool
    ) -> list[Drawing]:
        """The drawings as strokes, with what the classifier sees."""
        boxed = [drawings.fitted(rows) for rows in drawn]
        seen: dict[int, tuple[str, float]] = {}
        readable = [i for i, rows in enumerate(boxed) if len(rows) > 1]
        if self.classifier and readable:
            probabilities, _ = self.classifier([boxed[i] for i in readable])
            best = probabilities.argmax(axis=1)
            for i, p, label in zip(readable, probabilities, best.tolist(), strict=True):
                seen[i] = self.data.classes[label], float(p[label])
        found = []
        for i, (order, rows) in enumerate(zip(orders, drawn, strict=True)):
            completed = order.kind == "completion"
            lines = _finished(order, rows) if completed else drawings.strokes_of(boxed[i])
            label, probability = seen.get(i, (None, None))
            # The types are right by construction.
            found.append(
                Drawing.model_construct(
                    kind=order.kind,
                    strokes=lines,
                    label=label,
                    probability=probability,
                    svg=to_svg(lines) if svg else None,
                )
            )
        return found


def drawing_seed(seed: int, k: int) -> int:
    """The seed of the k-th drawing of an input: the first one has the input's own."""
    return seed if k == 0 else int(np.random.SeedSequence((seed, k)).generate_state(1)[0])


def load(folder: Path) -> GenerationService:
    """Load a packaged model; a first answer compiles its graphs.

    Args:
        folder: holds ``model/``, manifest.json, about.json, serving.npz and, where the data set has
            several classes, classifier.keras.
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    generator = models.load(about["domain"], about["model"]).restore(folder / "model")
    temperature = float(store.read_arrays(folder / "serving.npz")["temperature"])
    service = GenerationService(generator, data, temperature)
    line = {"class": data.classes[0], "whole": [[[0, 255], [0, 0]]], "simplified": True}
    service.predict([Input.model_validate(line)], SERVING.options)
    return service


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test drawings as requests, by key: each asks for all that evaluation makes of a drawing.

    Args:
        raw: not used: the prepared strokes are what evaluation has read.
        prepared: the folder of the data set.
        keys: of the drawings.
    """
    data = dataset.load(prepared)
    split, wanted = data.examples("test"), set(keys)
    return {
        key: {
            "class": data.classes[label],
            "whole": drawings.strokes_of(split[i]),
            "simplified": True,
            "seed": drawings.seed_of(key),
        }
        for i, (key, label) in enumerate(
            zip(split.keys.tolist(), split.labels.tolist(), strict=True)
        )
        if key in wanted
    }


def from_responses(
    responses: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses to `to_requests` as the arrays of an evaluation.

    Args:
        responses: as JSON.
        truth: class of each test drawing.
        classes: in the order of the labels.

    Returns:
        Labels and losses; NaN for what the model cannot give.
    """
    index = {name: i for i, name in enumerate(classes)}
    missing = np.full(len(responses), np.nan)

    def labels(kind: Kind) -> Shaped[np.ndarray, " example"]:
        """Class indices; -1 where nothing was drawn, or a class that is not among ``classes``."""
        seen = [
            index.get(each["label"], -1)
            for one in responses
            for each in one["drawings"]
            if each["kind"] == kind
        ]
        return np.array(seen) if seen and len(classes) > 1 else missing

    return {
        "truth": np.array([index[name] for name in truth]),
        "completion_label": labels("completion"),
        "reconstruction_label": labels("reconstruction"),
        "reconstruction_loss": np.array([one["loss"] for one in responses], np.float64),
    }


def _check_whole(number: int, each: Input) -> None:
    if each.whole is None:
        return
    given = [name for name in ("strokes", "other", "size") if getattr(each, name) is not None]
    if given or each.count != 1:
        raise RequestError(
            f"drawing {number}: whole: found {given[0] if given else 'count'}, too; expected "
            "`whole` without strokes, other, size and count"
        )


def _tracks(
    number: int, name: str, sent: object, simplified: bool
) -> list[Float[np.ndarray, "_ 2"]]:
    try:
        tracks = quickdraw.read_strokes(sent)
    except MalformedError as error:
        raise RequestError(f"drawing {number}: {name}: {error}") from None
    if fault := quickdraw.fault_of(tracks, simplified):
        raise RequestError(f"drawing {number}: {name}: {quickdraw.FAULTS[fault]}")
    return list(tracks)


def _to_rows(tracks: Sequence[Any]) -> Int16[np.ndarray, "_ 3"]:
    return strokes.to_stroke3([track.astype(np.int16) for track in tracks])


def _finished(order: Order, rows: Int16[np.ndarray, "_ 3"]) -> list[Any]:
    """The strokes of a completion: the given ones as they are, the others in the same unit."""
    if not order.given:
        return drawings.strokes_of(rows)
    points = np.cumsum(rows[:, :2], axis=0, dtype=np.int64)[len(order.beginning) :]
    lifts = np.flatnonzero(rows[len(order.beginning) :, 2]) + 1
    decimals = max(0, int(np.ceil(-np.log10(order.page.unit))))
    placed = np.round(np.array(order.page.corner) + points * order.page.unit, decimals)
    parts = np.split(placed if decimals else placed.astype(np.int64), lifts)
    return [*map(list, order.given), *(part.T.tolist() for part in parts if len(part))]
