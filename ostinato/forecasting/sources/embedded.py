"""The embedded series, which needs no network."""

import importlib.util
import shutil
from pathlib import Path

from ostinato.errors import SourceError
from ostinato.forecasting.sources.raw import Columns, write_manifest


def seattle(folder: Path, scratch: Path, seed: int) -> None:
    """Daily weather of Seattle, 2012 to 2015: the embedded series.

    The target is the highest temperature of the day in degrees Celsius. Past covariates are the
    lowest temperature, precipitation, wind and the kind of weather. From NOAA, through the package
    ``vega_datasets``.
    """
    package = importlib.util.find_spec("vega_datasets")
    if package is None or package.origin is None:
        raise SourceError("the package vega_datasets is missing; pip install -r requirements.txt")
    path = folder / "seattle-weather.csv"
    shutil.copyfile(Path(package.origin).parent / "_data" / path.name, path)
    columns = Columns(
        date="date",
        series=None,
        target="temp_max",
        past_covariates=["temp_min", "precipitation", "wind", "weather"],
        future_covariates=[],
        static_covariates=[],
    )
    write_manifest(
        folder,
        "seattle",
        {path: None},
        frequency="D",
        date_format="%Y/%m/%d",
        columns=columns,
    )
