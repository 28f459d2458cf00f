"""The report of the monitor on a served model, and the folder that keeps reports.

    FOLDER/<model>/<20261130T020000Z>/report.json, report.md, figures/<name>.png

A folder appears under its name when it is whole. Names are checked wherever they come from outside.
"""

import logging
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ostinato import store
from ostinato.errors import DataError
from ostinato.task import Document, Json

MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w.-]*)?")
TIME = re.compile(r"\d{8}T\d{6}Z")
FIGURE = re.compile(r"[a-z0-9_]+\.png")
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
MAX_REPORTS = 50  # that are listed, and points of a series

Status = Literal["ok", "warning", "retrain"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measure:
    """A number of a report.

    Args:
        name: for programs, such as estimated_accuracy.
        value: None where it could not be measured; ``text`` says why.
        low: lower end of its confidence interval.
        high: upper end.
        threshold: beyond which the flow acts.
        unit: empty for a number without unit.
        text: what it means, for people.
        exceeded: whether the value is beyond the threshold.
    """

    name: str
    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    unit: str = ""
    exceeded: bool = False

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "threshold"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                object.__setattr__(self, name, None)


@dataclass(frozen=True)
class MonitoringReport(Document):
    """What the monitor found out about a version of a model in a period: report.json.

    Args:
        model: its name in the request log.
        model_version: its number in the registry.
        time: when the report was made, ISO 8601, UTC; with seconds.
        since: beginning of the period; the first request that counts.
        until: end of the period.
        requests: inputs that the version answered in the period.
        status: ok; warning: a threshold was exceeded, or something could not be measured; retrain:
            a threshold was exceeded and the flow retrains.
        summary: the outcome in a sentence.
        metrics: all numbers.
        drift: a row for each feature of inputs and answers, as `ostinato.data.drift.compare` has.
        labels: how many came, and of which kind.
        reasons: for ``status``.
        figures: titles by file name.
    """

    model: str
    model_version: str
    time: str
    since: str
    until: str
    requests: int
    status: Status
    summary: str
    metrics: tuple[Measure, ...] = ()
    drift: tuple[dict[str, Json], ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    figures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics = [each if isinstance(each, Measure) else Measure(**each) for each in self.metrics]
        object.__setattr__(self, "metrics", tuple(metrics))
        object.__setattr__(self, "drift", tuple(self.drift))
        object.__setattr__(self, "reasons", tuple(self.reasons))

    @property
    def folder_name(self) -> str:
        """The name of the report's folder: its time."""
        return datetime.fromisoformat(self.time).astimezone(UTC).strftime(TIME_FORMAT)

    def to_markdown(self) -> str:
        """The report as Markdown, without figures."""
        lines = [
            f"# {self.model}: {self.status}",
            "",
            f"{self.summary}",
            "",
            f"- Version {self.model_version}, {self.requests:,} inputs from {self.since[:16]} to "
            f"{self.until[:16]} UTC",
            *(f"- {reason}" for reason in self.reasons),
        ]
        if counted := [f"{count:,} {kind}" for kind, count in self.labels.items() if count]:
            lines.append(f"- Labels: {', '.join(counted)}")
        lines += [
            "",
            "| measure | value | interval | threshold | meaning |",
            "|---|---:|---|---:|---|",
            *(
                f"| {each.name}{' (exceeded)' if each.exceeded else ''} | {_shown(each.value)}"
                f"{f' {each.unit}' if each.unit and each.value is not None else ''} | "
                f"{_interval(each)} | {_shown(each.threshold, '')} | {each.text} |"
                for each in self.metrics
            ),
        ]
        if self.drift:
            lines += [
                "",
                "| feature | PSI | KS | p | drifted | why |",
                "|---|---:|---:|---:|---|---|",
            ]
            lines += [
                f"| {row['feature']} | {_shown(row['psi'])} | {_shown(row['ks'])} | "
                f"{_shown(row['p'])} | {'yes' if row['drifted'] else 'no'} | {row['why']} |"
                for row in self.drift
            ]
        return "\n".join([*lines, ""])


def write(folder: Path, report: MonitoringReport, figures: Mapping[str, bytes]) -> Path:
    """Write a report with its figures; returns its folder.

    Args:
        folder: of all reports.
        report: to write.
        figures: PNGs by file name, those that the report names.

    Raises:
        DataError: the name of the model cannot be that of a folder, or there is such a report.
    """
    if not MODEL.fullmatch(report.model):
        raise DataError(f"monitoring: {report.model!r} cannot be the name of a folder")
    final = folder / report.model / report.folder_name
    if final.exists():
        raise DataError(f"{final}: there is a report of this second; run the monitor again")
    final.parent.mkdir(parents=True, exist_ok=True)
    with store.temporary_folder() as temporary:
        whole = temporary / final.name
        store.write_json(whole / "report.json", report.to_json())
        links = "".join(f"\n![{title}](figures/{name})\n" for name, title in report.figures.items())
        store.write_text(whole / "report.md", report.to_markdown() + links)
        for name, content in figures.items():
            store.write_bytes(whole / "figures" / name, content)
        whole.replace(final)
    return final


def read_all(folder: Path) -> dict[str, list[MonitoringReport]]:
    """The last reports of each model, the newest first; a broken one is left out and logged."""
    found: dict[str, list[MonitoringReport]] = defaultdict(list)
    for place in sorted(folder.glob("*/*/"), key=lambda path: path.name, reverse=True):
        model = place.parent.name
        if not (MODEL.fullmatch(model) and TIME.fullmatch(place.name)):
            continue
        if len(found[model]) < MAX_REPORTS and (report := _read(place / "report.json")):
            found[model].append(report)
    return {model: reports for model, reports in sorted(found.items()) if reports}


def figure_path(folder: Path, model: str, time: str, figure: str) -> Path | None:
    """The file of a figure; None if there is none, or a name is no name of a report's."""
    named = MODEL.fullmatch(model) and TIME.fullmatch(time) and FIGURE.fullmatch(figure)
    path = folder / model / time / "figures" / figure
    return path if named and path.is_file() else None


def series(reports: Sequence[MonitoringReport]) -> list[dict[str, Json]]:
    """The measures over time, the oldest first: name, and points of (time, value)."""
    points: dict[str, list[list[Json]]] = {each.name: [] for each in reports[0].metrics}
    for report in reversed(reports):
        for each in report.metrics:
            if each.name in points and each.value is not None:
                points[each.name].append([report.time, each.value])
    return [{"name": name, "points": found} for name, found in points.items() if found]


def prune(folder: Path, model: str, keep: int) -> int:
    """Remove the oldest reports of a model beyond a number; returns how many."""
    places = [place for place in (folder / model).glob("*/") if TIME.fullmatch(place.name)]
    old = sorted(places, key=lambda path: path.name, reverse=True)[keep:]
    for place in old:
        shutil.rmtree(place)
    return len(old)


def _read(file: Path) -> MonitoringReport | None:
    try:
        return _parsed(file, file.stat().st_mtime_ns)
    except (OSError, DataError, TypeError) as error:
        log.warning("%s: left out: %s", file, error)
        return None


@lru_cache(1000)
def _parsed(file: Path, modified: int) -> MonitoringReport:
    return MonitoringReport.read(file)


def _shown(value: float | None, missing: str = "n/a") -> str:
    return missing if value is None or math.isnan(value) else f"{value:.4g}"


def _interval(each: Measure) -> str:
    return "" if each.low is None or each.high is None else f"{each.low:.4g} to {each.high:.4g}"
