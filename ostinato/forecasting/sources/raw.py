"""Raw folders: fetching their files, and the manifest.json that `dataset` reads."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd

from ostinato import store
from ostinato.data.files import expanded
from ostinato.download import Whole, fetch_all, inside, is_url
from ostinato.errors import SourceError, UnreachableError
from ostinato.forecasting.formats.layout import Stamps
from ostinato.forecasting.formats.numbers import Notation

OFFLINE = "Without a network there is the embedded source: set fetch's `source: seattle`."

PLAIN = Notation()  # 1234.5
RENAMED = {"M": "ME", "BM": "BME", "Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "BA": "BYE", "BY":
           "BYE", "AS": "YS", "H": "h", "BH": "bh", "T": "min", "S": "s"}  # fmt: skip
"""Frequencies that pandas 3 calls otherwise."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file with a row for each time.

    Args:
        date: column of dates or times, or several that are joined by a space.
        series: column of the series' names; None where the file holds one series.
        target: column to forecast.
        past_covariates: columns that are known up to the origin.
        future_covariates: columns that are known for the horizon too.
        static_covariates: columns with one value for each series.

    Raises:
        SourceError: a column has two roles, or there is no date.
    """

    date: str | list[str]
    series: str | None
    target: str
    past_covariates: list[str]
    future_covariates: list[str]
    static_covariates: list[str]

    def __post_init__(self) -> None:
        names = self.names
        if not self.date:
            raise SourceError("date: name a column, or a list of columns")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"columns with two roles: {', '.join(twice)}; name each column once")

    @property
    def names(self) -> list[str]:
        """All columns, in the order of the fields."""
        return [
            *([self.date] if isinstance(self.date, str) else self.date),
            *([] if self.series is None else [self.series]),
            self.target,
            *self.past_covariates,
            *self.future_covariates,
            *self.static_covariates,
        ]


def check_frequency(name: str) -> None:
    """Check that pandas knows a frequency, of a second or longer.

    Raises:
        SourceError: pandas does not.
    """
    try:
        if pd.tseries.frequencies.to_offset(name).n > 0:
            pd.date_range(pd.Timestamp(0), periods=2, freq=name, unit="s")
            return
    except ValueError:
        pass
    head, *anchor = name.lstrip("0123456789").split("-")
    if head in RENAMED:
        number = name[: len(name) - len("-".join([head, *anchor]))]
        now = number + "-".join([RENAMED[head], *anchor])
        raise SourceError(
            f"frequency: pandas does not know {name!r} any more; set {now}, its name today"
        )
    raise SourceError(
        f"frequency: pandas does not know {name!r} as a frequency of a second or longer; days are "
        "D, hours h, weeks that end on Sunday W-SUN, months by their first day MS, by their last "
        "ME, business days B, quarters of an hour 15min"
    )


def fetch_files(
    folder: Path, scratch: Path, sources: Sequence[str], *, timeout: float, retries: int
) -> dict[Path, str | None]:
    """Copy or download files into a folder.

    Args:
        folder: gets the files.
        scratch: holds unfinished downloads.
        sources: URLs or local paths.
        timeout: seconds of silence after which a download counts as broken.
        retries: of a broken download.

    Returns:
        The files in the order of ``sources``, with their URLs; None for local files.

    Raises:
        SourceError: two files have the same name.
        DownloadError: a file cannot be downloaded.
    """
    sources = [s if is_url(s) else str(expanded(s)) for s in sources]
    names = [Path(unquote(urlsplit(s).path) if is_url(s) else s).name for s in sources]
    if len(set(names)) < len(names):
        raise SourceError(f"two files have the same name: {', '.join(names)}; rename one")
    downloads = {inside(scratch, name): where for name, where in zip(names, sources, strict=True)}
    try:
        fetch_all(downloads, Whole, max_concurrency=len(names), timeout=timeout, retries=retries)
    except UnreachableError as error:
        raise UnreachableError(f"{error}. {OFFLINE}") from error
    for path in downloads:
        shutil.move(path, folder / path.name)
    return {folder / p.name: url if is_url(url) else None for p, url in downloads.items()}


def write_manifest(
    folder: Path,
    source: str,
    files: Mapping[Path, str | None],
    *,
    frequency: str,
    date_format: str | None,
    columns: Columns | None,
    notation: Notation = PLAIN,
    stamps: Stamps = "exact",
) -> None:
    """Write the manifest.json of a raw folder.

    Args:
        folder: holds the files.
        source: the function that wrote them.
        files: in reading order, with their URLs.
        frequency: of the steps, as pandas names it.
        date_format: of the dates, see `times.parse`; None for ISO 8601.
        notation: of the numbers.
        stamps: whether times lie on the grid, or anywhere in their periods.
        columns: of a file with a row for each time; None for files with a row for each series.
    """
    described = []
    for path, url in files.items():
        with path.open("rb") as file:
            sha256 = file_digest(file, "sha256").hexdigest()
        described.append(
            {"path": path.name, "bytes": path.stat().st_size, "sha256": sha256, "url": url}
        )
    manifest = {
        "source": source,
        "frequency": frequency,
        "date_format": date_format,
        "notation": asdict(notation),
        "stamps": stamps,
        "columns": None if columns is None else asdict(columns),
        "files": described,
    }
    store.write_json(folder / "manifest.json", manifest)
