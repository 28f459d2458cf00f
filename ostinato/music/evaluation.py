"""Evaluate a model of pieces: likelihood, accuracy, and what it writes beside real pieces."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Int32, Integer, Real, Shaped

from ostinato.evaluation import timing
from ostinato.evaluation.comparison import metric_interval
from ostinato.music import metrics as measures
from ostinato.music.formats.keys import find_key
from ostinato.music.formats.measured import Measured
from ostinato.music.formats.roll import NAMES, Roll, seed_of
from ostinato.music.metrics import METRICS, WRITTEN, Corpus
from ostinato.progress import track
from ostinato.task import Evaluation, Manifest, PerExample, validation_metrics
from ostinato.units import Count, Temperature

SUMS = ("nats", "frames", "hits", "either", "first_nats")
"""The arrays of an evaluation besides ``keys``: `Measured.statistics` of each piece."""
POSITIONS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
"""First frames, from 1, of the rows of the table by_position."""

Arrays = dict[str, Shaped[np.ndarray, "..."]]


class Model(Protocol):
    """What `evaluate` needs of a restored model; see `ostinato.music.layers.Writer`."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    @property
    def conditional(self) -> bool:
        """Whether the model knows the style and the key."""

    def measure(
        self,
        pieces: Sequence[Roll],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
    ) -> list[Measured]:
        """What the model says of the frames of pieces."""

    def write(
        self,
        frames: Sequence[int],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " piece"],
        beginnings: Sequence[Roll] | None = None,
    ) -> list[Roll]:
        """Pieces, each a function of its own arguments."""


class Examples(Protocol):
    """The pieces of a split: `ostinato.music.dataset.loader.Pieces`."""

    @property
    def styles(self) -> Int32[np.ndarray, " piece"]:
        """The style of each."""

    @property
    def musical_keys(self) -> Int32[np.ndarray, " piece"]:
        """The key of each."""

    @property
    def keys(self) -> Shaped[np.ndarray, " piece"]:
        """The name of each."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Roll: ...
    def __iter__(self) -> Iterator[Roll]: ...


class Data(Protocol):
    """What `evaluate` needs of `ostinato.music.dataset.Dataset`."""

    @property
    def manifest(self) -> Manifest:
        """Of the data set."""

    def examples(self, split: str) -> Examples:
        """The pieces of a split."""


@dataclass(frozen=True)
class Reference:
    """What written pieces are compared with.

    Args:
        corpus: of real pieces.
        ranges: of the voices of the training pieces.
        known: passages of the training pieces.
        frames: of a passage.
    """

    corpus: Corpus
    ranges: Mapping[int, Shaped[np.ndarray, "voice 2"]]
    known: set[bytes]
    frames: int

    def compare(self, pieces: Sequence[Roll]) -> dict[str, float]:
        """The metrics of `WRITTEN`, by name, and the mean number of notes in a frame."""
        corpus = measures.describe(pieces, map(find_key, pieces))
        return {
            **measures.compare_corpora(corpus, self.corpus),
            "parallel_fifths": corpus.parallel_fifths,
            "parallel_octaves": corpus.parallel_octaves,
            "outside_range": measures.outside_range(pieces, self.ranges),
            "copied": measures.copied(pieces, self.known, self.frames),
            "notes_per_frame": corpus.notes_per_frame,
        }


def evaluate(
    predictor: Model,
    data: Data,
    seed: int,
    *,
    resamples: Count,
    temperatures: list[Temperature],
    samples: Count,
    max_frames: Count,
    copied_frames: Count,
    num_plots: Count,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a model; its temperature is chosen on the validation split.

    The chosen temperature is the one whose pieces have the pitch classes and intervals of the
    validation pieces: the sum of both distances is smallest.

    Args:
        predictor: the trained model.
        data: the data set.
        seed: of the written pieces and of resampling.
        resamples: bootstrap samples of a 95% confidence interval.
        temperatures: that are tried; the first of the best is kept.
        samples: number of pieces that are written at each temperature, with the styles, keys and
            lengths of real pieces.
        max_frames: of a written piece, and of a real one that it is compared with.
        copied_frames: of a passage that counts as copied.
        num_plots: number of written pieces in the figures and the files.
        timed_requests: number of pieces that are written one by one to measure the time.

    Returns:
        metrics, tables, figures, speed, and arrays in the stored order of the split: ``keys``,
        ``truth`` (the style), and `SUMS` of each piece. For serving: the chosen ``temperature``.
    """
    from ostinato.music import figures

    random = np.random.default_rng([seed, 0])
    train, validation, test = (data.examples(s) for s in ("train", "validation", "test"))
    earlier, _ = measure(predictor, validation)
    arrays, by_frame = measure(predictor, test)
    results = per_example(arrays)

    real = {name: [roll[:max_frames] for roll in split] for name, split in
            (("train", train), ("validation", validation), ("test", test))}  # fmt: skip
    ranges = measures.describe(real["train"], map(find_key, real["train"])).ranges
    known = measures.passages(train, copied_frames)
    references = {
        name: Reference(
            measures.describe(real[name], map(find_key, real[name])), ranges, known, copied_frames
        )
        for name in ("validation", "test")
    }
    tried = {
        heat: references["validation"].compare(
            write_like(predictor, validation, random, samples, max_frames, heat)
        )
        for heat in track(temperatures, "choosing the temperature", unit="temperatures")
    }
    temperature = min(temperatures, key=lambda heat: _distance(tried[heat]))

    began = time.perf_counter()
    written = {
        heat: write_like(
            predictor, test, np.random.default_rng([seed, 1]), samples, max_frames, heat
        )
        for heat in track(temperatures, "writing pieces", unit="temperatures")
    }
    seconds = (time.perf_counter() - began) / len(temperatures)
    found = {heat: references["test"].compare(pieces) for heat, pieces in written.items()}
    of_test = references["test"].compare(real["test"])
    pieces = written[temperature]

    metrics: dict[str, float | None] = {
        "samples": len(test),
        "parameters": predictor.parameters,
        "temperature": temperature,
        **{name: results.value(metric) for name, metric in METRICS.items()},
        "first_frame_nats": float(np.mean(arrays["first_nats"])),
        **found[temperature],
        **{f"test_{metric.name}": of_test[metric.name] for metric in WRITTEN[2:]},
        **validation_metrics(per_example(earlier), METRICS),
    }
    for name, metric in METRICS.items():
        low, high = metric_interval(results, metric, resamples=resamples, seed=seed)
        metrics |= {f"{name}_low": low, f"{name}_high": high}

    def write_one(number: int) -> object:
        return write_like(
            predictor, test, np.random.default_rng(number), 1, max_frames, temperature
        )

    positions = position_table(by_frame)
    corpora = {
        "test pieces": references["test"].corpus,
        "written": measures.describe(pieces, map(find_key, pieces)),
    }
    return Evaluation(
        metrics=metrics,
        tables={
            "written": pd.DataFrame(
                [
                    {"pieces": "test", "temperature": None, **of_test},
                    *({"pieces": "written", "temperature": h, **row} for h, row in found.items()),
                ]
            ),
            "by_position": positions,
            "pitch_classes": shares_table(
                "degree", NAMES, {name: c.pitch_classes for name, c in corpora.items()}
            ),
            "intervals": shares_table(
                "semitones",
                range(1, measures.MAX_INTERVAL + 1),
                {name: c.intervals for name, c in corpora.items()},
            ),
        },
        figures=figures.draw(
            real["test"], pieces, corpora, positions, num_plots,
            frames_per_quarter=data.manifest.details["frames_per_quarter"],
            quarters_per_bar=data.manifest.details["quarters_per_bar"],
            quarters_per_minute=data.manifest.details["quarters_per_minute"],
        ),
        arrays=arrays,
        speed=timing.speed(write_one, range(timed_requests), seconds, samples),
        serving={"temperature": np.array(temperature, np.float32)},
        undefined={
            metric.name: "the written pieces have no such moves, notes or passages"
            for metric in WRITTEN
        },
    )  # fmt: skip


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each piece, from the arrays of `evaluate`."""
    pairs = {"nats": ("nats", "frames"), "accuracy": ("hits", "either")}
    return PerExample(
        arrays["keys"],
        np.arange(len(arrays["keys"])),
        {
            name: np.stack([np.asarray(arrays[part], np.float64) for part in parts], axis=1)
            for name, parts in pairs.items()
        },
    )


def measure(predictor: Model, examples: Examples) -> tuple[Arrays, list[Measured]]:
    """The arrays of `evaluate`, and what the model says of each frame."""
    pieces = list(examples)
    seeds = [seed_of(piece) for piece in pieces]
    found = predictor.measure(pieces, examples.styles, examples.musical_keys, seeds)
    rows = [each.statistics for each in found]
    arrays: Arrays = {"keys": np.asarray(examples.keys, str), "truth": np.asarray(examples.styles)}
    return arrays | {name: np.array([row[name] for row in rows]) for name in SUMS}, found


def write_like(
    predictor: Model,
    examples: Examples,
    random: np.random.Generator,
    count: int,
    max_frames: int,
    temperature: float,
) -> list[Roll]:
    """Pieces with the styles, keys and lengths of real pieces that are drawn at random."""
    chosen = random.integers(len(examples), size=count)
    return predictor.write(
        [min(len(examples[int(i)]), max_frames) for i in chosen],
        examples.styles[chosen],
        examples.musical_keys[chosen],
        random.integers(2**32, size=count).tolist(),
        np.full(count, temperature),
    )


def position_table(by_frame: Sequence[Measured]) -> pd.DataFrame:
    """Mean nats of frames, by their number in the piece."""
    rows = []
    for start, end in zip(POSITIONS, (*POSITIONS[1:], 1 << 40), strict=True):
        nats = np.concatenate([each.nats[start - 1 : end - 1] for each in by_frame])
        if len(nats):
            rows.append({"from_frame": start, "frames": len(nats), "nats": float(nats.mean())})
    return pd.DataFrame(rows)


def shares_table(
    name: str, rows: Sequence[object], columns: Mapping[str, Shaped[np.ndarray, " row"]]
) -> pd.DataFrame:
    """A table of distributions side by side."""
    return pd.DataFrame({name: list(rows), **columns})


def _distance(found: Mapping[str, float]) -> float:
    return found["pitch_class_distance"] + found["interval_distance"]
