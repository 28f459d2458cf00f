"""Figures of a monitoring report."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from ostinato.data import drift
from ostinato.data import figures as drift_figures
from ostinato.evaluation.figures import BLUE, GREY, ORANGE, RED, WIDTH, styled
from ostinato.monitoring.examine import Findings
from ostinato.monitoring.report import MonitoringReport
from ostinato.task import Profile

NUM_CATEGORY_FIGURES = 2


def draw(
    findings: Findings,
    earlier: Sequence[MonitoringReport],
    psi_threshold: float,
    ks_threshold: float,
) -> dict[str, tuple[str, Figure]]:
    """The figures of a report by file name, each with its title.

    Args:
        findings: of the period.
        earlier: reports on the model, the newest first.
        psi_threshold: of the drift.
        ks_threshold: of the drift.
    """
    drawn = {}
    report = findings.report
    if quality := _quality(report):
        title = "Estimated and realised quality over time"
        drawn["quality.png"] = (title, over_time([report, *earlier], quality))
    if report.drift:
        table = pd.DataFrame(report.drift).astype({"psi": float, "ks": float})
        table["feature"] = table["feature"] + np.where(table["of"] == "answers", " (answers)", "")
        figure = drift_figures.drift(table, psi_threshold, ks_threshold)
        drawn["drift.png"] = ("Drift of inputs and answers", figure)
    for kind, (then, now) in findings.profiles.items():
        numbers = {name: then.numbers[name] for name in now.numbers if name in then.numbers}
        if numbers:
            figure = drift_figures.distributions({**numbers}, {**now.numbers})
            drawn[f"{kind}_distributions.png"] = (f"Distributions of the {kind}", figure)
        for name in list(now.counts)[:NUM_CATEGORY_FIGURES]:
            if then.counts.get(name) and now.counts[name]:
                slug = name.replace(" ", "_")
                drawn[f"{slug}.png"] = (f"Frequencies of {name}", _shift(then, now, name))
    return drawn


def _quality(report: MonitoringReport) -> list[str]:
    return [
        each.name
        for each in report.metrics
        if each.threshold is not None and not each.name.endswith("_drift")
    ]


def _shift(then: Profile, now: Profile, name: str) -> Figure:
    return drift_figures.category_shift(drift.changes(then.counts[name], now.counts[name]), name)


@styled
def over_time(reports: Sequence[MonitoringReport], names: Sequence[str]) -> Figure:
    """Measures of consecutive reports with their intervals and the threshold.

    Args:
        reports: the newest first.
        names: of the measures.
    """
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    for name, colour, marker in zip(names, (BLUE, ORANGE, GREY), "os^", strict=False):
        points: Mapping[str, list[Any]] = {"x": [], "y": [], "low": [], "high": []}
        for report in reversed(reports):
            for each in report.metrics:
                if each.name == name and each.value is not None:
                    points["x"].append(datetime.fromisoformat(report.time))
                    points["y"].append(each.value)
                    points["low"].append(each.value if each.low is None else each.low)
                    points["high"].append(each.value if each.high is None else each.high)
        y, low, high = (np.array(points[key], np.float64) for key in ("y", "low", "high"))
        bars: Float[np.ndarray, "2 report"] = np.abs(np.stack([y - low, high - y]))
        axes.errorbar(
            points["x"], y, bars, fmt=f"{marker}-", color=colour, capsize=3,
            label=name.replace("_", " "),
        )  # fmt: skip
    bounds = {each.threshold for each in reports[0].metrics if each.name in names}
    for number, bound in enumerate(sorted(bound for bound in bounds if bound is not None)):
        label = "threshold" if not number else None
        axes.axhline(bound, color=RED, linestyle="--", linewidth=1.2, label=label)
    axes.tick_params(axis="x", labelrotation=20)
    axes.set_title("Quality by report, with 95% intervals")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
