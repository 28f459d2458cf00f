"""The files of raw and of prepared series: their manifests as types.

A raw manifest is what a source writes, and says how its files are read. `Details` is the part of a
prepared data set's manifest that only forecasting knows; training and serving read it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from ostinato import store
from ostinato.errors import DataError
from ostinato.forecasting.formats.numbers import Notation
from ostinato.task import Json, Manifest

Covariates = Literal["past", "future", "static"]
COVARIATES: tuple[Covariates, ...] = ("past", "future", "static")
"""past: known up to the origin; future: known for the horizon too; static: one for a series."""

Calendar = Literal["weekday", "year", "hour", "holiday", "day_type"]
Duplicates = Literal["refuse", "first", "last"]
Gaps = Literal["refuse", "forward", "seasonal"]
Zeros = Literal["keep", "missing"]
Stamps = Literal["exact", "period"]
Scaling = Literal["standard", "min_max", "robust", "none"]
ScaledBy = Literal["series", "all", "window"]


@dataclass(frozen=True)
class Columns:
    """The columns of a long file.

    Args:
        date: of the dates or times; several, such as a date and a time, are joined by a space.
        series: of the series' names; None where the file holds one series.
        target: of the values to forecast.
        covariates: column names for each kind of `COVARIATES`.
    """

    date: str | list[str]
    series: str | None
    target: str
    covariates: Mapping[Covariates, list[str]]

    @property
    def dates(self) -> list[str]:
        """The columns of the dates or times."""
        return [self.date] if isinstance(self.date, str) else self.date


@dataclass(frozen=True)
class RawManifest:
    """The manifest.json of a raw folder.

    Args:
        source: the function of ``sources`` that wrote it.
        frequency: of the steps, as pandas names it.
        paths: of the files, in reading order.
        date_format: of the dates, see `times.parse`; None for ISO 8601.
        notation: of the numbers.
        stamps: whether times lie on the grid, or anywhere in their periods.
        columns: of a long file (a row for each time); None: the files are wide (a row for each
            series).
    """

    source: str
    frequency: str
    paths: list[Path]
    date_format: str | None
    notation: Notation
    stamps: Stamps
    columns: Columns | None

    @classmethod
    def read(cls, raw: Path) -> Self:
        """Read the manifest of a raw folder.

        Raises:
            DataError: there is none, or it has another layout.
        """
        path = raw / "manifest.json"
        try:
            content = store.read_json(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run `dvc repro`") from None
        try:
            columns = content.get("columns")
            return cls(
                source=content["source"],
                frequency=content["frequency"],
                paths=[raw / file["path"] for file in content["files"]],
                date_format=content.get("date_format"),
                notation=Notation(**content["notation"]),
                stamps=content["stamps"],
                columns=columns
                and Columns(
                    columns["date"],
                    columns["series"],
                    columns["target"],
                    {kind: columns[f"{kind}_covariates"] for kind in COVARIATES},
                ),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: another layout ({error}); `dvc repro` fetches the data again"
            ) from None

    def covariates(self, kind: Covariates) -> list[str]:
        """The columns of one kind of covariates; none in wide files."""
        return [] if self.columns is None else self.columns.covariates[kind]


@dataclass(frozen=True)
class Rules:
    """How dirty raw data are cleaned; `prepare` documents each."""

    since: str | None
    until: str | None
    timezone: str | None
    duplicates: Duplicates
    gaps: Gaps
    longest_gap: int
    zeros: Zeros
    season: int


@dataclass(frozen=True)
class CalendarFeatures:
    """Which features of the date a model reads; see `features.calendar`."""

    kinds: list[Calendar]
    country: str | None
    subdivision: str | None


@dataclass(frozen=True)
class Coding:
    """How the cells of a column become features.

    Args:
        column: its name.
        categories: one feature for each; None: the column is numeric.
        centre: of a numeric column's training values.
        spread: their standard deviation.
    """

    column: str
    categories: list[str] | None
    centre: float
    spread: float

    @property
    def names(self) -> list[str]:
        """The names of its features."""
        if self.categories is None:
            return [self.column]
        return [f"{self.column} {category}" for category in self.categories]


@dataclass(frozen=True)
class Details:
    """``Manifest.details`` of prepared series.

    Args:
        frequency: of the steps, as pandas names it.
        horizon: steps that are forecast.
        window: steps that a model reads.
        season: steps of a season.
        stride: steps between the origins of two training windows.
        scaling: of the target; see `windows.fit_scale`.
        per: the data that a scale is fitted on.
        log: whether log(1 + value) is taken before scaling.
        rules: of cleaning.
        notation: of the numbers in the raw files.
        stamps: whether times lie on the grid, or anywhere in their periods.
        calendar: features of the date.
        codings: of the covariates' columns, by kind.
        features: names by kind, those of the calendar under ``calendar``.
        first: time of the first step, ISO 8601.
        last: time of the last step, ISO 8601.
        steps: of all series together.
        rejects: rows of rejects.csv.
        counts: of what was found in the raw files; see `cleaning.ReadReport`.
        digest: of series.npz.
        series: names.
        centre: of each series' scale.
        spread: of each series' scale.
    """

    frequency: str
    horizon: int
    window: int
    season: int
    stride: int
    scaling: Scaling
    per: ScaledBy
    log: bool
    rules: Rules
    notation: Notation
    stamps: Stamps
    calendar: CalendarFeatures
    codings: Mapping[Covariates, list[Coding]]
    features: dict[str, list[str]]
    first: str
    last: str
    steps: int
    rejects: int
    counts: dict[str, int]
    digest: str
    series: list[str]
    centre: list[float]
    spread: list[float]

    def to_json(self) -> dict[str, Json]:
        """The content of ``Manifest.details``."""
        return asdict(self)

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Read the details of a manifest.

        Raises:
            DataError: a field is missing or unknown.
        """
        content = dict(manifest.details)
        try:
            content["rules"] = Rules(**content["rules"])
            content["notation"] = Notation(**content["notation"])
            content["calendar"] = CalendarFeatures(**content["calendar"])
            content["codings"] = {
                kind: [Coding(**coding) for coding in content["codings"][kind]]
                for kind in COVARIATES
            }
            return cls(**content)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"manifest.json: details of another layout ({error}); `dvc repro` prepares the "
                "data again"
            ) from None
