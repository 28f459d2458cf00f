"""Where series come from: one function per value of ``source``.

Each is called as ``source(folder, scratch, seed, *, ...)``. It fills the empty ``folder`` with raw
files, byte for byte as they were published, and a ``manifest.json`` that says how to read them:
the layout (``long``, a row for each time; or ``wide``, a row for each series), the frequency, and
the part that each column plays. What is dirty stays dirty here: ``examples`` cleans it.

A column is the ``target`` (what is forecast), ``past`` (known up to now, such as another series),
``known`` (known for the future too, such as a timetable) or ``static`` (one value for a series).
"""

import csv as text
import importlib.util
import shutil
import sys
from hashlib import file_digest
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from ostinato import store
from ostinato.download import Whole, fetch_all, inside, is_url
from ostinato.errors import SourceError, UnreachableError
from ostinato.params import near
from ostinato.units import Count, Seconds

ROWS = 4096  # that are read from tfds at once


def seattle(folder: Path, scratch: Path, seed: int) -> None:
    """The embedded series: the weather of Seattle, each day of 2012 to 2015; no network.

    The highest temperature of the day, in degrees Celsius, is forecast; the lowest one, the rain,
    the wind and the kind of weather are known up to now. From NOAA, by way of the package
    ``vega_datasets``.
    """
    package = importlib.util.find_spec("vega_datasets")
    if package is None or package.origin is None:
        raise SourceError("the package vega_datasets is missing; pip install -r requirements.txt")
    path = folder / "seattle-weather.csv"
    shutil.copyfile(Path(package.origin).parent / "_data" / path.name, path)
    columns = {
        "date": "date",
        "series": None,
        "target": "temp_max",
        "past": ["temp_min", "precipitation", "wind", "weather"],
        "known": [],
        "static": [],
    }
    about = {"layout": "long", "frequency": "D", "date_format": "%Y/%m/%d", "columns": columns}
    _finish(folder, "seattle", about, {path: None})


def csv(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    where: str,
    date: str,
    date_format: str | None,
    series: str | None,
    target: str,
    past_covariates: list[str],
    future_covariates: list[str],
    static_covariates: list[str],
    frequency: str,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Your own series: a CSV file with a row for each time, in UTF-8.

    Args:
        folder: gets the file and the manifest.
        scratch: gets the transfer until it is whole.
        seed: not used.
        where: a URL or a local path.
        date: the column with the dates or times.
        date_format: of them, as for ``strftime``; null for ISO 8601.
        series: the column that tells many series apart; null where there is one.
        target: the column that is forecast.
        past_covariates: columns that are known up to now alone.
        future_covariates: columns that are known for the future as well.
        static_covariates: columns with one value for each series.
        frequency: of the times, as pandas names it: D, h, W-SUN, MS, 15min ...
        timeout: seconds of silence after which a transfer counts as broken.
        retries: further tries of a broken transfer.

    Raises:
        SourceError: a column that plays two parts, or a frequency that pandas does not know.
        DownloadError: the file could not be had.
    """
    about = _long(
        date,
        date_format,
        series,
        target,
        past_covariates,
        future_covariates,
        static_covariates,
        frequency,
    )
    _fetch(folder, scratch, "csv", about, [where], timeout, retries)


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    dataset: str,
    data_dir: str | None,
    split: str,
    only: list[str] | None,
    date: str,
    date_format: str | None,
    series: str | None,
    target: str,
    past_covariates: list[str],
    future_covariates: list[str],
    static_covariates: list[str],
    frequency: str,
) -> None:
    """A data set of tensorflow-datasets whose examples are times of series, such as ``covid19``.

    Features take the place of `csv`'s columns, each of one value; they are written as such a file.

    Args:
        folder: gets the file and the manifest.
        scratch: where TFDS prepares the data set, unless ``data_dir`` is given.
        seed: not used.
        dataset: name and config of the builder.
        data_dir: TFDS's data folder, or null.
        split: of the data set, as TFDS names it: train.
        only: the names of the series that count; null for all.
        date: the feature with the dates or times; the rest is as for `csv`.
        date_format: see there.
        series: see there.
        target: see there.
        past_covariates: see there.
        future_covariates: see there.
        static_covariates: see there.
        frequency: see there.

    Raises:
        SourceError: no such builder, split, feature or series, or its download fails; or as `csv`.
    """
    import tensorflow_datasets

    about = _long(
        date,
        date_format,
        series,
        target,
        past_covariates,
        future_covariates,
        static_covariates,
        frequency,
    )
    if only is not None and series is None:
        raise SourceError("only: names series, so series must name the feature that tells them")
    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        builder = tensorflow_datasets.builder(
            dataset, data_dir=data_dir or scratch / "tfds", try_gcs=False
        )
    except (tensorflow_datasets.core.registered.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"dataset: {dataset}: {str(error).splitlines()[0]}") from None
    names = [
        date,
        *([] if series is None else [series]),
        target,
        *past_covariates,
        *future_covariates,
        *static_covariates,
    ]
    features = builder.info.features
    for name in names:
        if name not in features:
            raise SourceError(f"{dataset} has no feature {name!r}; {near(name, features)}")
        if features[name].shape:
            raise SourceError(f"{dataset}: {name!r} is of shape {features[name].shape}, not ()")
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # requests', urllib's, the builder's own: whatever it uses
        hint = "Without a network there is the embedded source: set fetch's `source: seattle`."
        raise SourceError(f"{dataset}: cannot be prepared: {error}. {hint}") from error
    if split not in builder.info.splits:
        raise SourceError(f"{dataset} has no split {split!r}; {near(split, builder.info.splits)}")
    stored = builder.as_dataset(
        split,
        decoders=tensorflow_datasets.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tensorflow_datasets.ReadConfig(interleave_cycle_length=1),  # as stored
    )
    path, missing = folder / f"{builder.name}.csv", set(only or [])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = text.writer(file, lineterminator="\n")
        writer.writerow(names)
        for batch in tensorflow_datasets.as_numpy(stored.batch(ROWS)):
            columns = [[_cell(value) for value in batch[name]] for name in names]
            for row in zip(*columns, strict=True):
                if only is None or row[1] in only:
                    missing.discard(row[1])
                    writer.writerow(row)
    if missing:
        raise SourceError(f"only: {dataset} has no {series} {', '.join(sorted(missing))}")
    _finish(folder, "tfds", about, {path: None})


def cta(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    where: str,
    target: Literal["rail_boardings", "bus"],
    timeout: Seconds,
    retries: Count,
) -> None:
    """Daily boardings of Chicago's buses and trains since 2001, with the kind of day.

    ``where`` is the export of the city's data portal, or a file of it. The other means of
    transport is known up to now; the kind of day (W weekday, A Saturday, U Sunday or holiday) is
    the timetable's, so it is known for the future. The rest is as for `csv`.
    """
    columns = {
        "date": "service_date",
        "series": None,
        "target": target,
        "past": ["bus" if target == "rail_boardings" else "rail_boardings"],
        "known": ["day_type"],
        "static": [],
    }
    about = {"layout": "long", "frequency": "D", "date_format": "%m/%d/%Y", "columns": columns}
    _fetch(folder, scratch, "cta", about, [where], timeout, retries)


def m4(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    train: str,
    test: str | None,
    frequency: str,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Series of the M4 competition of one frequency (Makridakis et al. 2020), in its wide files.

    A row is a series: its name, and its values in order. They carry no dates, so that the first
    value of each is dated 1970-01-01.

    Args:
        folder: gets the files and the manifest.
        scratch: gets the transfers until they are whole.
        seed: not used.
        train: URL or local path of ``Train/<Frequency>-train.csv``.
        test: of ``Test/<Frequency>-test.csv``, whose values follow those of ``train``; or null.
        frequency: as pandas names it: h for the hourly series.
        timeout: seconds of silence after which a transfer counts as broken.
        retries: further tries of a broken transfer.

    Raises:
        SourceError: a frequency that pandas does not know.
        DownloadError: a file could not be had.
    """
    about = {"layout": "wide", "frequency": _frequency(frequency)}
    files = [train] if test is None else [train, test]
    _fetch(folder, scratch, "m4", about, files, timeout, retries)


def _cell(value: Any) -> str:
    """A value as `csv` reads it: nothing where it is missing."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if np.isnan(value) else str(value)


def _long(
    date: str,
    date_format: str | None,
    series: str | None,
    target: str,
    past: list[str],
    known: list[str],
    static: list[str],
    frequency: str,
) -> dict[str, Any]:
    """The manifest's part about a file with a row for each time."""
    named = [date, *([series] if series else []), target, *past, *known, *static]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise SourceError(f"columns that play two parts: {', '.join(twice)}")
    columns = {
        "date": date,
        "series": series,
        "target": target,
        "past": past,
        "known": known,
        "static": static,
    }
    return {
        "layout": "long",
        "frequency": _frequency(frequency),
        "date_format": date_format,
        "columns": columns,
    }


def _frequency(name: str) -> str:
    """The name, if pandas knows it."""
    try:
        if pd.tseries.frequencies.to_offset(name).n > 0:
            pd.date_range(pd.Timestamp(0), periods=2, freq=name, unit="s")
            return name
    except ValueError:
        pass
    raise SourceError(
        f"frequency: pandas knows none as {name!r}, of a second or more; days are D, hours h, "
        "weeks that end on Sunday W-SUN, months by their first day MS, days of work B, quarters of "
        "an hour 15min"
    )


def _fetch(
    folder: Path,
    scratch: Path,
    source: str,
    about: dict[str, Any],
    files: list[str],
    timeout: float,
    retries: int,
) -> None:
    """Get the files, in their order, and finish the folder."""
    names = [Path(unquote(urlsplit(w).path) if is_url(w) else w).name for w in files]
    if len(set(names)) < len(names):
        raise SourceError(f"two files of the same name: {', '.join(names)}")
    urls = {inside(scratch, name): where for name, where in zip(names, files, strict=True)}
    try:
        fetch_all(urls, Whole, max_concurrency=len(urls), timeout=timeout, retries=retries)
    except UnreachableError as error:
        hint = "Without a network there is the embedded source: set fetch's `source: seattle`."
        raise UnreachableError(f"{error}. {hint}") from error
    for path in urls:
        shutil.move(path, folder / path.name)
    origins = {folder / p.name: url if is_url(url) else None for p, url in urls.items()}
    _finish(folder, source, about, origins)


def _finish(
    folder: Path, source: str, about: dict[str, Any], files: dict[Path, str | None]
) -> None:
    described = []
    for path, url in files.items():  # in this order they are read
        with path.open("rb") as file:
            sha256 = file_digest(file, "sha256").hexdigest()
        described.append(
            {"path": path.name, "bytes": path.stat().st_size, "sha256": sha256, "url": url}
        )
    store.write_json(folder / "manifest.json", {"source": source, **about, "files": described})
