"""Write music: pieces in a style and a key, and pieces that begin as yours.

An input says what to write. A note is ``[start, duration, pitch]``: quarter notes, and a MIDI
number (60 is middle C). With ``beginning`` or ``midi`` the piece begins with these notes and goes
on. The response has the notes and the same as a MIDI file.

The same input gives the same piece, whatever is asked beside it.
"""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, Field

from ostinato import models, params, store
from ostinato.errors import MalformedError, RequestError
from ostinato.music import dataset
from ostinato.music.evaluation import SUMS
from ostinato.music.formats import midi as midi_files
from ostinato.music.formats.keys import KEYS, find_key
from ostinato.music.formats.roll import LOWEST, NOTES, Note, Roll, from_notes, seed_of, to_notes
from ostinato.task import Json
from ostinato.task import Serving as ServingContract

MAX_BARS = 64
MAX_NOTES = 20_000  # of an input
MAX_FRAMES = 8_192  # of an input
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**32 - 1
MAX_NAME_CHARS = 60  # of an unknown name, in errors

SERVING = ServingContract(
    limits="""\
- The model writes as its training pieces are written. It knows no form beyond what it has read: a
  long piece may wander.
- It has no loudness and no tempo of its own, and does not tell a held note from a repeated one.
- A beginning that is unlike the training pieces is continued badly.
- A passage may be the same as one of a training piece; the evaluation says how often.
""",
    example={"bars": 8, "seed": 1},
    options={"midi": True},
    files=("results/serving.npz",),
    packages=("mido",),
)

NoteJson = tuple[float, float, int]


class Input(BaseModel):
    """What to write."""

    model_config = ConfigDict(extra="forbid")

    style: str | None = Field(None, description="name; null: drawn by the seed")
    key: str | None = Field(
        None,
        description='such as "G major"; null: that of the beginning, else drawn by the seed; a '
        "model that is not conditional takes neither style nor key",
    )
    beginning: list[NoteJson] | None = Field(
        None, description="notes that the piece begins with: [start, duration, pitch] each"
    )
    midi: str | None = Field(
        None, description="a MIDI file in base64 that the piece begins with, without `beginning`"
    )
    bars: int = Field(8, description=f"of the piece, the beginning included, 1 to {MAX_BARS}")
    temperature: float | None = Field(
        None, description="above 0, at most 2; null: the one that evaluation has chosen"
    )
    seed: int = Field(0, description="of all that is random, 0 to 2^32 - 1")
    whole: list[NoteJson] | None = Field(
        None,
        description="a whole piece, in place of a beginning: the answer is what the model says of "
        "it, and no piece",
    )
    quarters: float | None = Field(
        None, description="length of `whole` in quarter notes; null: to the end of its last note"
    )


class Response(BaseModel):
    """A piece, or what the model says of one."""

    notes: list[NoteJson] = Field(
        description="[start, duration, pitch] each, in quarter notes and MIDI numbers"
    )
    given_quarters: float = Field(description="length of the beginning, in quarter notes")
    quarters: float = Field(description="length of the piece, in quarter notes")
    style: str | None = Field(description="that the model was told; null: it takes none")
    key: str | None = Field(description="of the piece, found from its notes; null: it tells none")
    midi: str | None = Field(None, description="the piece as a MIDI file in base64")
    nats: float | None = Field(None, description="of `whole`: sum over its frames but the first")
    frames: float | None = Field(None, description="of `whole`: number of its frames, less one")
    hits: float | None = Field(None, description="of `whole`: right notes of the likeliest frames")
    either: float | None = Field(
        None, description="of `whole`: notes of its frames or of the likeliest ones"
    )
    first_nats: float | None = Field(None, description="of `whole`: nats of its first frame")


@dataclass(frozen=True)
class Order:
    """What is read or written for an input.

    Args:
        roll: the beginning, or the whole piece.
        frames: of the piece.
        style: index; -1: not told.
        key: index; -1: not told.
        temperature: of the piece.
        seed: of the piece.
        whole: whether the piece is only measured.
    """

    roll: Roll
    frames: int
    style: int
    key: int
    temperature: float
    seed: int
    whole: bool


class MusicService:
    """A loaded model (`ostinato.task.Service`).

    Args:
        model: as `ostinato.music.layers.Writer`.
        data: the data set, of which only the manifest is read.
        temperature: of inputs that name none.
    """

    def __init__(self, model: Any, data: dataset.Dataset, temperature: float) -> None:
        self.model, self.styles, self.temperature = model, data.styles, temperature
        details = data.manifest.details
        self.per_quarter = int(details["frames_per_quarter"])
        self.per_bar = self.per_quarter * int(details["quarters_per_bar"])
        self.quarters_per_bar = int(details["quarters_per_bar"])
        self.tempo = float(details["quarters_per_minute"])
        self.keys = np.array(details["key_counts"])

    @property
    def reads(self) -> dict[str, Json]:
        """What a client must know besides the manifest (`ostinato.serving.kinds`)."""
        known = [name for name, count in zip(KEYS, self.keys, strict=True) if count]
        return {
            "styles": list(self.styles) if self.model.conditional else [],
            "keys": known if self.model.conditional else [],
            "temperature": self.temperature,
            "max_bars": MAX_BARS,
            "quarters_per_bar": self.quarters_per_bar,
            "quarters_per_minute": self.tempo,
        }

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Json]) -> list[Response]:
        """Write the pieces of all inputs at once.

        Args:
            inputs: what to write.
            options: ``midi``: whether each piece comes as a MIDI file, too.

        Raises:
            RequestError: an input cannot be answered; names it by its number, from 0.
        """
        orders = [self._order(number, each) for number, each in enumerate(inputs)]
        found: dict[int, Response] = {}
        numbers = [i for i, order in enumerate(orders) if order.whole]
        if numbers:
            part = [orders[i] for i in numbers]
            measured = self.model.measure(
                [order.roll for order in part],
                np.array([order.style for order in part]),
                np.array([order.key for order in part]),
                [seed_of(order.roll) for order in part],
            )
            for i, each in zip(numbers, measured, strict=True):
                found[i] = self._response(orders[i], orders[i].roll, False, each.statistics)
        numbers = [i for i, order in enumerate(orders) if not order.whole]
        if numbers:
            part = [orders[i] for i in numbers]
            rolls = self.model.write(
                [order.frames for order in part],
                np.array([order.style for order in part]),
                np.array([order.key for order in part]),
                [order.seed for order in part],
                np.array([order.temperature for order in part]),
                [order.roll for order in part],
            )
            for i, roll in zip(numbers, rolls, strict=True):
                found[i] = self._response(orders[i], roll, bool(options.get("midi")), {})
        return [found[i] for i in range(len(orders))]

    def _order(self, number: int, each: Input) -> Order:
        """Check an input."""
        for name, value, low, high in (("bars", each.bars, 1, MAX_BARS),
                                       ("seed", each.seed, 0, MAX_SEED)):  # fmt: skip
            if not low <= value <= high:
                raise RequestError(
                    f"piece {number}: {name}: found {value}; expected {low} to {high}"
                )
        heat = self.temperature if each.temperature is None else each.temperature
        if not 0 < heat <= MAX_TEMPERATURE:
            raise RequestError(
                f"piece {number}: temperature: found {heat:g}; expected a number above 0, at most "
                f"{MAX_TEMPERATURE:g}"
            )
        roll, frames = self._roll(number, each), each.bars * self.per_bar
        whole = each.whole is not None
        if not whole and len(roll) >= frames:
            raise RequestError(
                f"piece {number}: bars: found {each.bars}, but the beginning has "
                f"{len(roll) / self.per_bar:g}; expected more bars than that"
            )
        style, key = self._told(number, each, roll)
        return Order(roll, frames, style, key, heat, each.seed, whole)

    def _roll(self, number: int, each: Input) -> Roll:
        """The notes of an input, as a roll."""
        given = [n for n in ("beginning", "midi", "whole") if getattr(each, n) is not None]
        if len(given) > 1:
            raise RequestError(f"piece {number}: {given[1]}: found {given[0]}, too; expected one")
        if not given:
            return np.zeros((0, NOTES), bool)
        if each.midi is not None:
            roll = self._file(number, each.midi)
        else:
            roll = self._notes(number, given[0], getattr(each, given[0]), each.quarters)
        if len(roll) > MAX_FRAMES:
            raise RequestError(
                f"piece {number}: {given[0]}: found {len(roll) / self.per_quarter:g} quarter "
                f"notes; expected {MAX_FRAMES / self.per_quarter:g} at most"
            )
        if each.whole is not None and len(roll) < 2:
            raise RequestError(f"piece {number}: whole: found {len(roll)} frames; expected 2")
        return roll

    def _file(self, number: int, content: str) -> Roll:
        try:
            return midi_files.read(
                base64.b64decode(content, validate=True),
                frames_per_quarter=self.per_quarter,
                tempo=self.tempo,
                time_signatures=[],
            )
        except (binascii.Error, ValueError) as error:
            reason = error if isinstance(error, MalformedError) else f"no base64: {error}"
            raise RequestError(f"piece {number}: midi: {reason}") from None

    def _notes(
        self, number: int, name: str, sent: Sequence[NoteJson], quarters: float | None
    ) -> Roll:
        if len(sent) > MAX_NOTES:
            raise RequestError(
                f"piece {number}: {name}: found {len(sent)} notes; expected {MAX_NOTES} at most"
            )
        longest = MAX_FRAMES / self.per_quarter
        notes = []
        for place, (start, duration, pitch) in enumerate(sent):
            fits = 0 <= start <= longest and 0 < duration <= longest  # false for NaN, too
            if not fits or not LOWEST <= pitch < LOWEST + NOTES:
                raise RequestError(
                    f"piece {number}: {name}[{place}]: found [{start:g}, {duration:g}, {pitch}]; "
                    f"expected a start of 0 or more, a duration above 0, and a pitch of {LOWEST} "
                    f"to {LOWEST + NOTES - 1}"
                )
            first, last = (round(q * self.per_quarter) for q in (start, start + duration))
            notes.append(Note(first, max(1, last - first), int(pitch)))
        if name != "whole" or quarters is None:
            return from_notes(notes)
        if not 0 <= quarters <= longest:
            raise RequestError(
                f"piece {number}: quarters: found {quarters:g}; expected 0 to {longest:g}"
            )
        return from_notes(notes, round(quarters * self.per_quarter))

    def _told(self, number: int, each: Input, roll: Roll) -> tuple[int, int]:
        """The style and the key that the model is told."""
        asked = (("style", each.style, self.styles), ("key", each.key, KEYS))
        if not self.model.conditional:
            for name, value, _ in asked:
                if value is not None and each.whole is None:
                    raise RequestError(
                        f"piece {number}: {name}: found {value[:MAX_NAME_CHARS]!r}; this model "
                        "takes none; ask one that was built with conditional: true"
                    )
            return -1, -1
        found = []
        for name, value, names in asked:
            if value is not None and value not in names:
                raise RequestError(
                    f"piece {number}: {name}: found {value[:MAX_NAME_CHARS]!r}, which is not "
                    f"known; {params.near(value, names)}"
                )
            found.append(-1 if value is None else list(names).index(value))
        style, key = found
        random = np.random.default_rng([each.seed, 2])  # 0 and 1 are of the model
        drawn = int(random.integers(len(self.styles)))
        style = drawn if style < 0 else style
        if key < 0 and len(roll):
            key = find_key(roll)
        elif key < 0 and self.keys.any():
            key = int(random.choice(len(KEYS), p=self.keys / self.keys.sum()))
        return style, key

    def _response(
        self, order: Order, roll: Roll, midi: bool, statistics: Mapping[str, float]
    ) -> Response:
        key = find_key(roll)
        file = None
        if midi:
            file = midi_files.write(
                roll,
                frames_per_quarter=self.per_quarter,
                quarters_per_minute=self.tempo,
                quarters_per_bar=self.quarters_per_bar,
            )
        return Response(
            notes=[] if order.whole else to_quarters(roll, self.per_quarter),
            given_quarters=len(order.roll) / self.per_quarter,
            quarters=len(roll) / self.per_quarter,
            style=self.styles[order.style] if order.style >= 0 else None,
            key=KEYS[key] if key >= 0 else None,
            midi=base64.b64encode(file).decode() if file else None,
            **statistics,
        )


def to_quarters(roll: Roll, per_quarter: int) -> list[NoteJson]:
    """The notes of a roll in quarter notes."""
    return [
        (note.start / per_quarter, note.frames / per_quarter, note.pitch) for note in to_notes(roll)
    ]


def load(folder: Path) -> MusicService:
    """Load a packaged model; a first answer compiles its graphs.

    Args:
        folder: holds ``model/``, manifest.json, about.json and serving.npz.
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    model = models.load(about["domain"], about["model"]).restore(folder / "model")
    temperature = float(store.read_arrays(folder / "serving.npz")["temperature"])
    service = MusicService(model, data, temperature)
    first: list[dict[str, Json]] = [{"bars": 1}, {"whole": [[0, 8, 60]]}]
    service.predict([Input.model_validate(each) for each in first], SERVING.options)
    return service


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test pieces as requests, by key: each asks for what evaluation measures of a piece.

    Args:
        raw: not used: the prepared pieces are what evaluation has read.
        prepared: the folder of the data set.
        keys: of the pieces.
    """
    data = dataset.load(prepared)
    split, wanted = data.examples("test"), set(keys)
    per_quarter = int(data.manifest.details["frames_per_quarter"])
    return {
        key: {
            "style": data.styles[style],
            "whole": to_quarters(split[i], per_quarter),
            "quarters": len(split[i]) / per_quarter,
        }
        for i, (key, style) in enumerate(
            zip(split.keys.tolist(), split.styles.tolist(), strict=True)
        )
        if key in wanted and len(split[i]) <= MAX_FRAMES
    }


def from_responses(
    responses: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses to `to_requests` as the arrays of an evaluation.

    Args:
        responses: as JSON.
        truth: not used: the request has the whole piece.
        classes: not used.
    """
    return {name: np.array([one[name] for one in responses], np.float64) for name in SUMS}
