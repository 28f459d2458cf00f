"""Series from tensorflow-datasets."""

import csv
import sys
from pathlib import Path

import numpy as np

from ostinato.errors import SourceError
from ostinato.forecasting.sources.raw import OFFLINE, Columns, check_frequency, write_manifest
from ostinato.params import near

ROWS = 4096  # in a batch that is read


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
    """A data set of tensorflow-datasets with an example for each time, such as ``covid19``.

    Its scalar features become the columns of a CSV file; the other parameters are those of `csv`.

    Args:
        folder: gets the file and the manifest.
        scratch: where TFDS prepares the data set, unless ``data_dir`` is set.
        seed: not used.
        dataset: name and config of the builder.
        data_dir: TFDS's data folder, or null.
        split: of the data set, as TFDS names it: train.
        only: names of the series to keep; null for all.
        date: feature of dates or times.
        date_format: of the dates, as for ``strftime``; null for ISO 8601.
        series: feature of the series' names; null where there is one series.
        target: feature to forecast.
        past_covariates: features that are known up to the origin.
        future_covariates: features that are known for the horizon too.
        static_covariates: features with one value for each series.
        frequency: of the times, as pandas names it.

    Raises:
        SourceError: no such builder, split, feature or series, the data set cannot be prepared, a
            column has two roles, or pandas does not know the frequency.
    """
    import tensorflow_datasets

    columns = Columns(date, series, target, past_covariates, future_covariates, static_covariates)
    check_frequency(frequency)
    if only is not None and series is None:
        raise SourceError("only: set series to the feature that holds the names of the series")
    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        builder = tensorflow_datasets.builder(
            dataset, data_dir=data_dir or scratch / "tfds", try_gcs=False
        )
    except (tensorflow_datasets.core.registered.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"dataset: {dataset}: {str(error).splitlines()[0]}") from None
    features = builder.info.features
    for name in columns.names:
        if name not in features:
            raise SourceError(f"{dataset} has no feature {name!r}; {near(name, features)}")
        if features[name].shape:
            raise SourceError(
                f"{dataset}: the feature {name!r} has shape {features[name].shape}; a column needs "
                "a scalar"
            )
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{dataset}: needs the package {error.name} to be built; build it in an environment of "
            "its own, and name its folder in data_dir: see docs/domains/forecasting.md"
        ) from error
    except Exception as error:  # builders raise errors of requests, of urllib and of their own
        raise SourceError(f"{dataset}: cannot be prepared: {error}. {OFFLINE}") from error
    if split not in builder.info.splits:
        raise SourceError(f"{dataset} has no split {split!r}; {near(split, builder.info.splits)}")
    stored = builder.as_dataset(
        split,
        decoders=tensorflow_datasets.decode.PartialDecoding(dict.fromkeys(columns.names, True)),
        read_config=tensorflow_datasets.ReadConfig(interleave_cycle_length=1),  # in stored order
    )
    path, missing = folder / f"{builder.name}.csv", set(only or [])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.names)
        for batch in tensorflow_datasets.as_numpy(stored.batch(ROWS)):
            cells = [[_cell(value) for value in batch[name]] for name in columns.names]
            for row in zip(*cells, strict=True):
                if only is None or row[1] in only:
                    missing.discard(row[1])
                    writer.writerow(row)
    if missing:
        raise SourceError(f"only: {dataset} has no {series} {', '.join(sorted(missing))}")
    write_manifest(
        folder,
        "tfds",
        {path: None},
        frequency=frequency,
        date_format=date_format,
        columns=columns,
    )


def _cell(value: bytes | np.generic) -> str:
    """A value as text; "" where it is missing."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if np.isnan(value) else str(value)
