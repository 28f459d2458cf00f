"""What a prepared data set tells before a training: its summary, and warnings."""

import logging

import numpy as np
from jaxtyping import Int64

from ostinato.forecasting.dataset.cleaning import Series
from ostinato.forecasting.dataset.report import ReadReport, describe
from ostinato.forecasting.formats.layout import COVARIATES, Details

LOG = logging.getLogger(__name__)
MIN_REPEATED = 3  # times that a far-off value occurs before it looks like a code
SHOWN_COUNTS = ("filled", "missing_values", "duplicates", "conflicts", "unknown_cells", "outside")


def warn(
    series: list[Series],
    details: Details,
    bounds: Int64[np.ndarray, "series 5"],
    report: ReadReport,
) -> None:
    """Log a summary, and a warning for each property that makes results undefined or doubtful.

    Args:
        series: cleaned.
        details: of the data set.
        bounds: the step of each series at which each split begins.
        report: of what was found in the raw files.
    """
    LOG.info("%s", summary(details, report))
    season, target = details.season, [each.target for each in series]
    if details.window < season:
        LOG.warning(
            "window %d is shorter than season %d: the model seasonal_naive, and residual: true of "
            "others, repeat the last %d steps in place of a season",
            *(details.window, season, details.window),
        )
    changing = [
        len(values) > season and bool((values[season:] != values[:-season]).any())
        for values in target
    ]
    if not any(changing):
        short = max(map(len, target)) <= season
        LOG.warning(
            "MASE and OWA will not be defined: %s",
            f"no series is longer than a season of {season} steps"
            if short
            else f"no series changes from one season of {season} steps to the next",
        )
    begins = np.maximum(bounds[:, 3], details.window)
    windows = bounds[:, 4] - begins >= details.horizon
    if late := int((windows & (begins < season)).sum()):
        LOG.warning(
            "%d of %d series have a history shorter than a season of %d steps where the test "
            "split begins; their seasonal naive forecast repeats what there is",
            *(late, int(windows.sum()), season),
        )
    tested = [values[int(b[3]) :] for values, b in zip(target, bounds, strict=True)]
    if not any(part.any() for part in tested):
        LOG.warning("the quantile loss will not be defined: all values of the test split are 0")
    if (code := repeated_code(np.concatenate(target))) is not None:
        LOG.warning(
            "the value %g occurs %d times, far from all others; if it means a missing value, name "
            "it in the source's missing: [%g]",
            *(code, int((np.concatenate(target) == code).sum()), code),
        )


def summary(details: Details, report: ReadReport) -> str:
    """One line: series, steps and repairs, the kind of each covariate, and what was left out."""
    counts = details.counts
    parts = [f"{len(details.series)} series of {details.steps:,} steps, {counts['rows']:,} rows"]
    parts += [f"{counts[k]:,} {k.replace('_', ' ')}" for k in SHOWN_COUNTS if counts.get(k)]
    parts += [
        f"{coding.column!r} "
        + ("numeric" if coding.categories is None else f"{len(coding.categories)} categories")
        for kind in COVARIATES
        for coding in details.codings[kind]
    ]
    if report.rejects:
        left = counts.get("series_left_out", 0)
        also = f", among them {left} whole series" if left else ""
        parts.append(
            f"{len(report.rejects):,} rejects in rejects.csv{also}; the first is "
            f"{describe(report.rejects[0])}"
        )
    return "; ".join(parts)


def repeated_code(values: np.ndarray) -> float | None:
    """A lowest or highest value that looks like a code, as -999; None where there is none.

    It occurs several times, and lies farther from the others than these are apart.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 3:
        return None
    for code, count, nearest, others in (
        (distinct[0], counts[0], distinct[1], distinct[1:]),
        (distinct[-1], counts[-1], distinct[-2], distinct[:-1]),
    ):
        far = abs(nearest - code) > np.ptp(others)
        if code != 0 and count >= MIN_REPEATED and far:
            return float(code)
    return None
