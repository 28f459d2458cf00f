"""Series in CSV files, local or downloaded."""

from pathlib import Path
from typing import Literal

from ostinato.errors import SourceError
from ostinato.forecasting.formats.layout import Stamps
from ostinato.forecasting.formats.numbers import Decimal, Notation, Thousands
from ostinato.forecasting.sources.raw import Columns, check_frequency, fetch_files, write_manifest
from ostinato.units import Count, Location, Seconds


def csv(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    where: Location,
    date: str | list[str],
    date_format: str | None,
    series: str | None,
    target: str,
    past_covariates: list[str],
    future_covariates: list[str],
    static_covariates: list[str],
    frequency: str,
    stamps: Stamps,
    decimal: Decimal,
    thousands: Thousands | None,
    missing: list[str | float],
    timeout: Seconds,
    retries: Count,
) -> None:
    """A CSV file of your own in UTF-8, with a row for each time.

    The first line names the columns. They are separated by commas, semicolons, tabs or bars: by the
    one that gives the first line all columns named here.

    Args:
        folder: gets the file and the manifest.
        scratch: holds unfinished downloads.
        seed: not used.
        where: URL or local path; ~ is the home folder.
        date: column of dates or times; several, such as [Date, Time], are joined by a space.
        date_format: of the dates, as for ``strftime``; null for ISO 8601; epoch, epoch_ms, epoch_us
            or epoch_ns for seconds or parts of them since 1970; excel for Excel's day numbers.
        series: column of the series' names; null where the file holds one series.
        target: column to forecast.
        past_covariates: columns that are known up to the origin.
        future_covariates: columns that are known for the horizon too.
        static_covariates: columns with one value for each series.
        frequency: of the times, as pandas names it: D, h, W-SUN, MS, 15min ...
        stamps: exact: times lie on the grid of the frequency; period: anywhere in its periods, as
            months by their 15th or hours by a clock that is seconds off.
        decimal: decimal mark of the numbers.
        thousands: between groups of three digits; null: none.
        missing: cells that mean a missing value, such as -999, besides the usual words.
        timeout: seconds of silence after which a download counts as broken.
        retries: of a broken download.

    Raises:
        SourceError: a column has two roles, pandas does not know the frequency, or decimal mark
            and thousands separator are the same.
        DownloadError: the file cannot be downloaded.
    """
    if decimal == thousands:
        raise SourceError(f"decimal and thousands are both {decimal!r}; expected different marks")
    columns = Columns(date, series, target, past_covariates, future_covariates, static_covariates)
    check_frequency(frequency)
    files = fetch_files(folder, scratch, [where], timeout=timeout, retries=retries)
    write_manifest(
        folder,
        "csv",
        files,
        frequency=frequency,
        date_format=date_format,
        columns=columns,
        notation=Notation(decimal, thousands, missing),
        stamps=stamps,
    )


def cta(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    where: Location,
    target: Literal["rail_boardings", "bus"],
    timeout: Seconds,
    retries: Count,
) -> None:
    """Daily boardings of Chicago's buses and trains since 2001, with the type of the day.

    The other means of transport is a past covariate. The type of the day (W weekday, A Saturday, U
    Sunday or holiday) follows the timetable, so it is a future covariate.

    Args:
        folder: gets the file and the manifest.
        scratch: holds unfinished downloads.
        seed: not used.
        where: URL of the export of the city's data portal, or a local copy.
        target: column to forecast.
        timeout: seconds of silence after which a download counts as broken.
        retries: of a broken download.

    Raises:
        DownloadError: the file cannot be downloaded.
    """
    columns = Columns(
        date="service_date",
        series=None,
        target=target,
        past_covariates=["bus" if target == "rail_boardings" else "rail_boardings"],
        future_covariates=["day_type"],
        static_covariates=[],
    )
    files = fetch_files(folder, scratch, [where], timeout=timeout, retries=retries)
    write_manifest(folder, "cta", files, frequency="D", date_format="%m/%d/%Y", columns=columns)


def m4(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    train: Location,
    test: Location | None,
    frequency: str,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Series of one frequency of the M4 competition (Makridakis et al. 2020), in its wide files.

    A row is a series: its name, then its values in order. The files have no dates, so the first
    value of each series is dated 1970-01-01.

    Args:
        folder: gets the files and the manifest.
        scratch: holds unfinished downloads.
        seed: not used.
        train: URL or local path of ``Train/<Frequency>-train.csv``.
        test: of ``Test/<Frequency>-test.csv``, which continues ``train``; null: none.
        frequency: as pandas names it: h for the hourly series.
        timeout: seconds of silence after which a download counts as broken.
        retries: of a broken download.

    Raises:
        SourceError: pandas does not know the frequency.
        DownloadError: a file cannot be downloaded.
    """
    check_frequency(frequency)
    sources = [train] if test is None else [train, test]
    files = fetch_files(folder, scratch, sources, timeout=timeout, retries=retries)
    write_manifest(folder, "m4", files, frequency=frequency, date_format=None, columns=None)
