"""The contract of a task: the types that cross the modules of a domain, the stages and the flows.

A domain is a folder of ``ostinato/`` whose modules have the names and functions that
`docs/new-domain.md` lists. The types here are what these functions receive and return. The
contract is not only for supervised Keras models: a model is whatever its module can build, fit,
save and restore, and a metric is whatever can be aggregated from statistics of examples.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer, Shaped
from pydantic import BaseModel

from ostinato.errors import DataError
from ostinato.units import Count, DeviceByLayer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Json = Any
"""A value that JSON can hold."""

Record = dict[str, int | float]
"""One epoch of training, by name: see `ostinato.training.trainer`."""


def mean(sums: Float[np.ndarray, "*rows 2"]) -> Float[np.ndarray, "*rows"]:
    """Aggregate the statistics (sum, count) to a mean; NaN where the count is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


@dataclass(frozen=True)
class Metric:
    """A metric: sums of statistics over examples, and a function that aggregates them.

    A mean has the statistics (value, 1) of each example, BLEU its n-gram counts, perplexity
    (nats, tokens). So every metric has confidence intervals and paired comparisons
    (`ostinato.evaluation.comparison`), and exact sums over shards and devices.

    Args:
        name: key in metrics.json and in `PerExample.statistics`.
        title: as tables and figures show it.
        unit: of its values; empty for a number without unit.
        higher_is_better: the direction.
        aggregate: maps summed statistics (..., k) to values (...).
        format: of a value, as `format` takes it.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    aggregate: Callable[[Float[np.ndarray, "*rows k"]], Float[np.ndarray, "*rows"]] = mean
    format: str = ".3f"

    def better(self, one: float, other: float) -> bool:
        """Whether the value ``one`` is better than ``other``."""
        return one > other if self.higher_is_better else one < other


@dataclass(frozen=True)
class PerExample:
    """What each test example contributes to each metric.

    Args:
        keys: the examples' names, by which the results of two models are paired.
        clusters: a number for each example. Examples with the same number are correlated (clips of
            one video, forecasts of the same days), so the bootstrap draws them together.
        statistics: for each metric, the rows that `Metric.aggregate` takes the sum of; a row of
            NaN where the example has no value.
    """

    keys: Shaped[np.ndarray, " example"]
    clusters: Integer[np.ndarray, " example"]
    statistics: Mapping[str, Float[np.ndarray, "example _"]]

    def value(self, metric: Metric) -> float:
        """The metric over all examples that have a value."""
        rows = self.statistics[metric.name]
        return float(metric.aggregate(rows[~np.isnan(rows).any(axis=1)].sum(axis=0)))

    def select(self, rows: Integer[np.ndarray, " selected"]) -> "PerExample":
        """The statistics of some examples."""
        statistics = {name: values[rows] for name, values in self.statistics.items()}
        return PerExample(self.keys[rows], self.clusters[rows], statistics)


@dataclass(frozen=True)
class Evaluation:
    """The results of a model on the test split; all but ``speed`` repeats exactly.

    Models are chosen by their metrics on the validation split, and judged on the test split once.

    Args:
        metrics: values by metric name; each confidence bound as ``<name>_low``, ``<name>_high``;
            and the values on the validation split (`validation_metrics`). None where a metric is
            not defined; a value that is not finite becomes None.
        tables: written as CSV.
        figures: matplotlib figures, written as PNG; SVG as text, written as it is; bytes of other
            files, such as sounds, by their file name.
        arrays: a row for each test example, from which ``per_example`` computes its statistics.
        speed: milliseconds for each example: ``inference_ms_single``, ``inference_ms_batched``.
        serving: what a served model needs besides its weights, such as the margins of intervals;
            kept as serving.npz.
        undefined: why a metric may have no value, by its name; kept for those without one, which
            are written as tables/undefined.csv.
    """

    metrics: Mapping[str, float | None]
    tables: Mapping[str, "pd.DataFrame"] = field(default_factory=dict)
    figures: Mapping[str, "Figure | str | bytes"] = field(default_factory=dict)
    arrays: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    serving: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics = {
            name: None if value is None or not math.isfinite(value) else value
            for name, value in self.metrics.items()
        }
        missing = [name for name, value in metrics.items() if value is None]
        reasons = {name: self.undefined.get(name, "its value is not finite") for name in missing}
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "undefined", reasons)

    def value(self, metric: str) -> float:
        """The value of a metric; NaN where it is not defined."""
        value = self.metrics[metric]
        return math.nan if value is None else value


def validation_metrics(results: PerExample, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics of the validation split, by which a model is chosen: ``validation_<name>``.

    Args:
        results: of the examples of the validation split.
        metrics: the domain's ``METRICS``; NaN where one is not defined.
    """
    return {f"validation_{name}": results.value(metric) for name, metric in metrics.items()}


@dataclass(frozen=True)
class Comparison:
    """The paired difference of one metric between two models on the same examples.

    Args:
        metric: its name.
        difference: ours minus theirs, with its sign turned where lower is better: a positive
            difference is always an improvement.
        low: lower end of the confidence interval.
        high: upper end.
        confidence: of the interval, 0 to 1.
        examples: that both models have a value for.
        clusters: that the bootstrap resampled.
    """

    metric: str
    difference: float
    low: float
    high: float
    confidence: float
    examples: int
    clusters: int

    def improves(self, margin: float = 0.0) -> bool:
        """Whether ours is better: the interval lies above 0, and reaches a margin."""
        return self.low > 0 and self.low >= margin

    @property
    def worsens(self) -> bool:
        """Whether ours is worse: the interval lies below 0."""
        return self.high < 0


@dataclass(frozen=True)
class Part:
    """A rank's part of every batch: the examples n * rank // ranks to n * (rank + 1) // ranks of n.

    A rank is one process of a training that several processes share.

    Args:
        rank: from 0.
        ranks: how many there are.
    """

    rank: int = 0
    ranks: int = 1


@runtime_checkable
class Dataset(Protocol):
    """A prepared data set: what a domain's ``dataset.load(folder)`` returns."""

    @property
    def manifest(self) -> "Manifest":
        """What the data set consists of."""

    def size(self, split: str) -> int:
        """The number of examples of a split; where data are generated without end, of an epoch."""

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Iterable[Any]:
        """Batches of a split, a pure function of the arguments.

        Args:
            split: train, validation or test.
            batch_size: examples in a batch, over all ranks.
            seed: of shuffling and augmentation; None for the stored order.
            epoch: from 1; with the seed it determines all that is random.
            part: of every batch that this rank reads. With several ranks a batch becomes
                (batch, total): only the rank's examples, and the number of examples of the whole
                batch, a scalar int32. Where the part is empty, batch has one example of the whole
                batch, which does not count.
        """


@runtime_checkable
class Predictor(Protocol):
    """A trained model, ready to be evaluated and served. What else it offers is its domain's."""

    @property
    def parameters(self) -> int:
        """The number of learned values; 0 where nothing is learned."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Layers of one model on several devices: the optional block ``placement`` of a run.

    Args:
        layers: index of a layer's device, from 0, by the layer's name or a pattern of names, as
            in ``{"lstm_[23]": 1}``. The first pattern that matches counts. A layer that no pattern
            matches is on the device of the layer before it; the first layers are on device 0.
        micro_batches: parts of a batch that are in the pipeline of devices at the same time.
    """

    layers: DeviceByLayer
    micro_batches: Count


class CompiledSteps(Protocol):
    """The compiled steps of earlier trainings of a process (`ostinato.training.graphs.Graphs`)."""

    def compiled(
        self,
        step: Any,
        peaks: Sequence[float],
        share: float,
        compile_steps: Callable[[Any, Sequence[Any], Any], tuple[Any, Any]],
    ) -> tuple[Any, tuple[Any, Any]]:
        """The step to train, and its compiled training step and test step."""


@dataclass(frozen=True)
class TrainingContext:
    """What a training needs besides model, data and parameters.

    Args:
        checkpoints: folder of this training alone; what is in it is resumed.
        seed: of all that is random.
        on_epoch: called with the record of each epoch; after a resume first with the records of
            the finished epochs.
        graphs: compiled steps of earlier trainings in this process; None compiles them anew.
        placement: of the model's layers; None: the model is on one device, or each device has a
            copy.
    """

    checkpoints: Path
    seed: int
    on_epoch: Callable[[Record], None] = lambda record: None
    graphs: "CompiledSteps | None" = None
    placement: Placement | None = None


@runtime_checkable
class Build(Protocol):
    """``build(data, *, ...) -> model``; the keyword-only arguments are parameters."""

    def __call__(self, data: Any, /, **parameters: Any) -> Any:
        """Build an untrained model for a data set."""


@runtime_checkable
class Fit(Protocol):
    """``fit(model, data, context, *, ...) -> records``."""

    def __call__(
        self, model: Any, data: Any, context: TrainingContext, /, **parameters: Any
    ) -> Sequence[Record]:
        """Train the model in place; return a record for each epoch."""


@dataclass(frozen=True)
class Model:
    """The functions of a model's module ``ostinato/<domain>/models/<model>.py``.

    ``save`` and ``restore`` are those of `ostinato.training.keras_model` unless the module has its
    own: Keras is the default, not the contract.
    """

    build: Build
    fit: Fit
    save: Callable[[Any, Path], None]
    restore: Callable[[Path], Any]


@dataclass(frozen=True)
class Reporting:
    """What report.md shows of a domain's results: ``reporting.REPORT``.

    Args:
        metrics: of the table's columns; the first is the one that runs are ranked and compared by.
        examples: the noun for the test examples: "drawings", "forecasts".
        baselines: the models that the others have to beat.
        networks: the noun for all other models: "recurrent network".
        figures: file name (without suffix) and title of the best run's figures, in order.
        legend: how to read the table.
    """

    metrics: tuple[Metric, ...]
    examples: str
    baselines: tuple[str, ...]
    networks: str
    figures: Mapping[str, str]
    legend: str


@runtime_checkable
class Service(Protocol):
    """A loaded model that answers requests: what a domain's ``serving.load(folder)`` returns."""

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> Sequence[BaseModel]:
        """One response for each input, independent of the order and of the other inputs.

        Args:
            inputs: of the domain's ``serving.Input``.
            options: of the request, such as ``top_k``, ``seed`` or ``temperature``.

        Raises:
            RequestError: an input cannot be answered; names it by its number.
        """


@dataclass(frozen=True)
class Serving:
    """How a domain's models are packaged: ``serving.SERVING``.

    Args:
        limits: of the models, as Markdown list items, for the model card.
        example: an input as JSON for the model card; None: a test example is shown.
        options: that ``predict`` understands, with their defaults.
        files: that ``load`` needs besides the model, manifest.json and about.json:
            "results/serving.npz" is of the run, "data/source.model" of the data set.
        optional_files: as ``files``, packaged where they exist.
        packages: that prediction needs besides the library's core dependencies.
    """

    limits: str
    example: Mapping[str, Json] | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    optional_files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


class Document:
    """A dataclass that is kept as a JSON file, with a version of its layout."""

    VERSION: ClassVar[int] = 1

    def to_json(self) -> dict[str, Json]:
        """The content, with ``version``."""
        return {"version": self.VERSION, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, content: Mapping[str, Json]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: another version, or a field that is missing or unknown.
        """
        fields = dict(content)
        version = fields.pop("version", None)
        if version != cls.VERSION:
            raise DataError(
                f"{cls.__name__}: version {version!r}, not {cls.VERSION}; "
                "`dvc repro` prepares the data again"
            )
        try:
            return cls(**fields)
        except TypeError as error:
            raise DataError(f"{cls.__name__}: {error}") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            DataError: there is none, or it is not such a document.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run `dvc repro`") from None
        except ValueError as error:
            raise DataError(f"{path}: not JSON: {error}") from None
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object, found {type(content).__name__}")
        try:
            return cls.from_json(content)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Manifest(Document):
    """What a prepared data set consists of: manifest.json.

    Args:
        source: the function that fetched it.
        examples: the noun for its examples, a key of the counts in ``splits``.
        splits: for each split its counts, by noun.
        classes: names, in the order of the labels; empty where there are none.
        details: what the domain needs besides.
    """

    source: str
    examples: str
    splits: dict[str, dict[str, int]]
    classes: list[str] = field(default_factory=list)
    details: dict[str, Json] = field(default_factory=dict)

    def size(self, split: str) -> int:
        """The number of examples of a split; 0 where there is no such split."""
        return self.splits.get(split, {}).get(self.examples, 0)


@dataclass(frozen=True)
class Profile(Document):
    """Distributions of the training split's features, from which drift is found: profile.json.

    Args:
        examples: how many there are.
        numbers: for each numeric feature a sorted sample, of about 1,000 values.
        counts: for each categorical feature how often each category occurs.
    """

    examples: int
    numbers: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
