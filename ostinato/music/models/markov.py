"""The baseline: a Markov chain of chords, with shorter contexts behind the longer ones.

The probability of a frame after a context is interpolated with that after a shorter context, by the
weights of Witten and Bell (1991, IEEE Transactions on Information Theory 37). After the empty
context comes a chain of two states for each note, which gives every chord a probability.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer, Real

from ostinato import store
from ostinato.music.dataset.loader import Dataset, Pieces
from ostinato.music.formats.measured import Measured
from ostinato.music.formats.roll import NOTES, Roll, pack, unpack
from ostinato.task import Record, TrainingContext
from ostinato.units import Count

__all__ = ["build", "fit", "restore", "save"]

START = b""  # the frame before a piece
Context = tuple[bytes, ...]


class Markov:
    """A Markov chain (`ostinato.music.evaluation.Model`).

    Args:
        pieces: that it is counted from.
        order: frames of the longest context.
    """

    conditional = False
    latent_size = 0

    def __init__(self, pieces: Pieces, order: int) -> None:
        self.pieces, self.order = pieces, order
        self.counts: dict[Context, Counter[bytes]] = defaultdict(Counter)
        on = np.ones((2, NOTES))  # after silence, and after the note itself; one more than counted
        of = np.full((2, NOTES), 2.0)
        for roll in pieces:
            before = np.concatenate([np.zeros((1, NOTES), bool), roll[:-1]])
            for state in (0, 1):
                there = before == bool(state)
                on[state] += (roll & there).sum(axis=0)
                of[state] += there.sum(axis=0)
            for context, frame in self._steps(roll):
                for length in range(order + 1):
                    self.counts[context[order - length :]][frame] += 1
        self.sounds: Float64[np.ndarray, "2 88"] = on / of

    @property
    def parameters(self) -> int:
        """The number of counts, and the probabilities of the notes."""
        return sum(map(len, self.counts.values())) + self.sounds.size

    def __call__(self, x: Any, training: bool = False) -> Float64[np.ndarray, "batch frame"]:
        """Nats of each frame of a batch of the data set."""
        rolls = [np.asarray(roll) > 0 for roll in x["frames"]]
        return np.stack([self._nats(roll) for roll in rolls])

    def measure(
        self,
        pieces: Sequence[Roll],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
    ) -> list[Measured]:
        """What the chain says of pieces; see `ostinato.music.layers.Writer.measure`."""
        found = []
        for roll in pieces:
            likely = np.stack([self._likely(context) for context, _ in self._steps(roll)])
            hits = (likely & roll).sum(axis=1).astype(np.float64)
            either = (likely | roll).sum(axis=1).astype(np.float64)
            found.append(Measured(self._nats(roll), hits, either))
        return found

    def write(
        self,
        frames: Sequence[int],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " piece"],
        beginnings: Sequence[Roll] | None = None,
    ) -> list[Roll]:
        """Write pieces; see `ostinato.music.layers.Writer.write`."""
        begun = beginnings if beginnings is not None else [np.zeros((0, NOTES), bool)] * len(frames)
        rows = zip(frames, seeds, temperature.tolist(), begun, strict=True)
        return [self._piece(*row) for row in rows]

    def _piece(self, frames: int, seed: int, temperature: float, beginning: Roll) -> Roll:
        random = np.random.default_rng(seed)
        roll = np.zeros((frames, NOTES), bool)
        roll[: len(beginning)] = beginning[:frames]
        context: Context = (START,) * self.order
        for t in range(frames):
            if t >= len(beginning):
                roll[t] = self._draw(random, context, roll[t - 1] if t else roll[0], temperature)
            context = (*context, pack(roll[t : t + 1]).tobytes())[1:]
        return roll

    def _draw(
        self, random: np.random.Generator, context: Context, before: Any, temperature: float
    ) -> Any:
        """The next frame after a context."""
        for length in range(self.order, -1, -1):
            followers = self.counts.get(context[self.order - length :])
            if followers is None:
                continue
            total, kinds = followers.total(), len(followers)
            if random.random() < total / (total + kinds):
                shares = np.array(list(followers.values())) ** (1 / temperature)
                chosen = random.choice(len(shares), p=shares / shares.sum())
                frame = list(followers)[int(chosen)]
                return unpack(np.frombuffer(frame, np.uint8)[None])[0]
        chances = np.where(before, self.sounds[1], self.sounds[0])
        odds = np.log(chances / (1 - chances)) / temperature
        return random.random(NOTES) < 1 / (1 + np.exp(-odds))

    def _likely(self, context: Context) -> Any:
        """The most frequent frame after the longest context that is known."""
        for length in range(self.order, -1, -1):
            if followers := self.counts.get(context[self.order - length :]):
                frame = max(followers, key=lambda each: (followers[each], each))
                return unpack(np.frombuffer(frame, np.uint8)[None])[0]
        return np.zeros(NOTES, bool)

    def _nats(self, roll: Roll) -> Float64[np.ndarray, " frame"]:
        before = np.concatenate([np.zeros((1, NOTES), bool), roll[:-1]])
        chances = np.where(before, self.sounds[1], self.sounds[0])
        probability = np.exp(np.log(np.where(roll, chances, 1 - chances)).sum(axis=1))
        for t, (context, frame) in enumerate(self._steps(roll)):
            for length in range(self.order + 1):
                if followers := self.counts.get(context[self.order - length :]):
                    kinds, total = len(followers), followers.total()
                    counted = followers.get(frame, 0)
                    probability[t] = (counted + kinds * probability[t]) / (total + kinds)
        return np.asarray(-np.log(probability))

    def _steps(self, roll: Roll) -> Iterator[tuple[Context, bytes]]:
        """The context of each frame, and the frame."""
        context: Context = (START,) * self.order
        for row in pack(roll):
            frame = row.tobytes()
            yield context, frame
            context = (*context, frame)[1:]


def build(data: Dataset, *, order: Count) -> Markov:
    """Count the training split.

    Args:
        data: of pieces.
        order: frames of the longest context.
    """
    return Markov(data.examples("train"), order)


def fit(model: Markov, data: Dataset, context: TrainingContext) -> list[Record]:
    """Nothing is left to learn; returns one record."""
    nats = []
    for split in ("train", "validation"):
        pieces = data.examples(split)
        unknown = np.full(len(pieces), -1)
        found = model.measure(list(pieces), unknown, unknown, [0] * len(pieces))
        nats.append(float(np.mean(np.concatenate([each.nats for each in found]))))
    record: Record = {"epoch": 1, "loss": nats[0], "validation_loss": nats[1], "seconds": 0.0}
    context.on_epoch(record)
    return [record]


def save(model: Markov, folder: Path) -> None:
    """Write the pieces that the chain is counted from."""
    names = ("frames", "ends", "styles", "musical_keys", "keys")
    arrays = {name: getattr(model.pieces, name) for name in names}
    store.write_arrays(folder / "pieces.npz", {**arrays, "order": np.array(model.order)})


def restore(folder: Path) -> Markov:
    """Read what `save` has written."""
    arrays = store.read_arrays(folder / "pieces.npz")
    order = int(arrays.pop("order"))
    return Markov(Pieces(**arrays), order)
