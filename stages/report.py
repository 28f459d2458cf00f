"""Write report.md from all results, and mirror them in MLflow: ``python -m stages.report STUDY``.

Everything in the report is computed from params.yaml and the results; the same files give the same
bytes. Its figures are in report/.
"""

import csv
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from ostinato import params, store
from ostinato.errors import EvaluationError, masked
from ostinato.evaluation import undefined
from ostinato.evaluation.comparison import compare, metric_interval
from ostinato.promotion import Gate
from ostinato.study import Study
from ostinato.tables import Table
from ostinato.task import Comparison, Metric, PerExample, Reporting
from ostinato.training.imports import import_keras_quietly
from stages.entry import command, load_study

HEAD = """\
# Results

Written by `dvc repro`; edits are lost. Every number comes from a run of [params.yaml](params.yaml):
its entry has the data, the model and all parameters. `dvc repro` runs what is out of date.
"""
NUM_FIGURES = 2  # of the best run of a data set


@dataclass(frozen=True)
class Result:
    """An evaluated run or ensemble."""

    name: str
    model: str
    folder: Path
    metrics: Mapping[str, float | None]  # of the test split, and of the validation split
    speed: Mapping[str, float]
    epochs: int
    seconds: float  # of training
    undefined: Mapping[str, str] = field(default_factory=dict)  # why a metric has no value

    @classmethod
    def read(cls, study: Study, name: str) -> "Result | None":
        """Read a result; None where none of its files exists.

        Raises:
            EvaluationError: some of its files exist, and some do not.
        """
        folder = study.result_folder(name)
        files = ("metrics.json", "speed.json", "history.csv", "predictions.npz")
        missing = [file for file in files if not (folder / file).exists()]
        if len(missing) == len(files):
            return None
        if missing:
            found = ", ".join(file for file in files if file not in missing)
            stage = study.stage("ensemble" if study.is_ensemble(name) else "evaluate", name)
            raise EvaluationError(
                f"{folder}: incomplete result: found {found}, but no {', '.join(missing)}; "
                f"`dvc pull {stage}` fetches the rest from DVC's remote, `dvc repro {stage}` "
                "computes it"
            )
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
        return cls(
            name,
            study.model_name(name),
            folder,
            store.read_json(folder / "metrics.json"),
            store.read_json(folder / "speed.json"),
            len(history),
            sum(float(row["seconds"]) for row in history),
            undefined.read(folder),
        )


@dataclass(frozen=True)
class Section:
    """The results on one data set, the best on the validation split first."""

    study: Study
    domain: str
    data: str
    results: list[Result]

    @property
    def spec(self) -> Reporting:
        """How the domain reports."""
        spec: Reporting = params.module(self.domain, "reporting").REPORT
        return spec

    @cached_property
    def gate(self) -> Gate | None:
        """The promotion gate of the data set, if it has one."""
        block = self.study.params.get("gates", {}).get(self.data)
        return params.bind(Gate, block)() if block else None

    @property
    def primary(self) -> Metric:
        """The metric by which runs are chosen and compared: the gate's, where there is one."""
        return self.gate.check(self.domain) if self.gate else self.spec.metrics[0]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of the table, the primary one first; undefined for all results: left out."""
        rest = [
            metric
            for metric in self.spec.metrics
            if metric.name != self.primary.name
            and not all(metric.name in result.undefined for result in self.results)
        ]
        return [self.primary, *rest]

    @property
    def resamples(self) -> int:
        """Bootstrap samples behind the intervals of metrics."""
        return int(self.study.entry("evaluation", self.domain, "resamples"))

    def validation(self, result: Result) -> float | None:
        """The primary metric on the validation split."""
        return result.metrics.get(f"validation_{self.primary.name}")

    def rank(self, result: Result) -> tuple[float, str]:
        """The order of results: by the validation split, those without a value last."""
        number = self.validation(result)
        sign = -1 if self.primary.higher_is_better else 1
        return math.inf if number is None else sign * number, result.name

    @cached_property
    def per_example(self) -> Mapping[str, PerExample]:
        """The statistics of each result by its name."""
        module = params.module(self.domain, "evaluation")
        return {
            result.name: module.per_example(store.read_arrays(result.folder / "predictions.npz"))
            for result in self.results
        }


def main(study: str) -> None:
    """Write report.md and report/ of a study, complete its runs in MLflow, say where to look."""
    loaded = load_study(study)
    written = write(loaded)
    mirror(loaded)
    print("\n".join(closing_lines(loaded, written)), flush=True)


def write(study: Study) -> list[Section]:
    """Write report.md and report/; returns the sections."""
    parts, written = [HEAD], []
    with store.atomic_folder(study.folder / "report") as folder:
        for section, missing in sections(study):
            parts += write_section(section, missing, folder)
            written.append(section)
    parts += further_sections(written)
    store.write_text(study.folder / "report.md", "\n".join(parts))
    return written


def further_sections(sections: list[Section]) -> Iterator[str]:
    """The sections of domains that compare results on several data sets by the same metric."""
    for section in {section.domain: section for section in sections}.values():
        further = getattr(params.module(section.domain, "reporting"), "further_section", None)
        if further:
            same = [s for s in sections if s.results and s.primary.name == section.primary.name]
            yield from further(
                {name: result for s in same for name, result in s.per_example.items()},
                {result.name: f"{s.domain}/{result.model}" for s in same for result in s.results},
                resamples=section.resamples,
                seed=section.study.params["seed"],
            )


def sections(study: Study) -> Iterator[tuple[Section, list[str]]]:
    """Each data set's results, and the names of those that do not exist yet."""
    names: dict[tuple[str, str], list[str]] = {}
    for name in [*study.params["runs"], *study.params["ensembles"]]:
        entry = study.result(name)
        names.setdefault((entry["domain"], entry["data"]), []).append(name)
    for (domain, data), group in names.items():
        read = {name: Result.read(study, name) for name in group}
        section = Section(study, domain, data, [result for result in read.values() if result])
        section.results.sort(key=section.rank)
        yield section, [name for name, result in read.items() if result is None]


def write_section(section: Section, missing: list[str], folder: Path) -> Iterator[str]:
    """The paragraphs on a data set; its figures are written into ``folder``."""
    yield f"## {section.data.capitalize()}\n"
    if section.results:
        best, spec = section.results[0], section.spec
        yield from table(section)
        yield from undefined_metrics(section)
        examples = f"{best.metrics['samples']:,} test {spec.examples}"
        yield (
            f"**{best.name}** is the best of {len(section.results)} on the validation split. Its "
            f"{section.primary.title} on {examples}: {with_interval(section, best)}.\n"
            if section.results[1:] and section.validation(best) is not None
            else f"{examples}.\n"
        )
        yield from comparisons(section)
        yield f"{spec.legend.rstrip()}\n"
    if missing:
        yield f"No result yet: {', '.join(missing)}.\n"
    if section.results:
        yield from figures_of(section, folder)


def table(section: Section) -> Iterator[str]:
    """The metrics of all results as a Markdown table."""
    first, *others = section.metrics
    head = [
        "Run",
        f"{first.title}, validation",
        first.title,
        *(m.title for m in others),
        "Parameters",
        "Training",
        "ms / example",
    ]
    yield row(head)
    yield row(["---", *["---:"] * (len(head) - 1)])
    for index, result in enumerate(section.results):
        name, score = result.name, with_interval(section, result)
        yield row(
            [
                name if index else f"**{name}**",
                value(first, result, "validation_"),
                score if index else f"**{score}**",
                *(value(metric, result) for metric in others),
                f"{result.metrics['parameters']:,}",
                f"{result.seconds:,.0f} s",
                f"{result.speed['inference_ms_single']:.2f} / "
                f"{result.speed['inference_ms_batched']:.3f}",
            ]
        )
    yield ""


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def undefined_metrics(section: Section) -> Iterator[str]:
    """Why metrics of the table have no value, a paragraph for each reason."""
    runs: dict[tuple[str, str], list[str]] = {}
    for result in section.results:
        for metric in section.metrics:
            if reason := result.undefined.get(metric.name):
                runs.setdefault((metric.title, reason), []).append(result.name)
    for (title, reason), names in runs.items():
        yield f"n/a: {title} is not defined for {', '.join(names)}: {reason}.\n"


def value(metric: Metric, result: Result, split: str = "") -> str:
    """A metric's value on the test split or another: "n/a" where undefined, empty if unknown."""
    key = f"{split}{metric.name}"
    number = result.metrics.get(key)
    if number is None:
        return "n/a" if key in result.undefined else ""
    return format(number, metric.format)


def with_interval(section: Section, result: Result) -> str:
    """The primary metric with its confidence interval, where it has one."""
    number, bounds = value(section.primary, result), interval(section, result)
    if not bounds:
        return number
    low, high = (format(bound, section.primary.format) for bound in bounds)
    return f"{number} [{low}, {high}]"


def interval(section: Section, result: Result) -> tuple[float, float] | None:
    """The 95% confidence interval of the primary metric; None where it has none."""
    name = section.primary.name
    if f"{name}_low" in result.metrics:
        low, high = (result.metrics[f"{name}_{end}"] for end in ("low", "high"))
    else:  # a gate may name a metric whose interval the evaluation does not compute
        try:
            low, high = metric_interval(
                section.per_example[result.name],
                section.primary,
                resamples=section.resamples,
                seed=section.study.params["seed"],
            )
        except EvaluationError:
            return None
    return None if low is None or high is None else (low, high)


def comparisons(section: Section) -> Iterator[str]:
    """Compare every other run with each baseline, paired on the examples of both.

    Where a baseline has no value of the primary metric, the first other metric that is a mean over
    examples takes its place.
    """
    spec = section.spec
    baselines = [result for result in section.results if result.model in spec.baselines]
    for baseline in baselines:
        metric = next((m for m in section.metrics if comparable(baseline, m, section)), None)
        if not metric:
            continue
        networks = [r for r in with_value(section, metric) if r.model not in spec.baselines]
        if not networks:
            continue
        try:
            compared = {run.name: compared_with(section, run, baseline, metric) for run in networks}
        except EvaluationError as error:
            yield f"No comparison with {baseline.name}: {error}.\n"
            continue
        wins = sum(comparison.improves() for comparison in compared.values())
        noun = spec.networks
        if wins == len(networks):
            answer = f"Every {noun} beats {baseline.name}."
        elif wins == 0:
            answer = f"**No {noun} beats {baseline.name}.**"
        else:
            answer = f"{wins} of {len(networks)} {noun}s beat {baseline.name}."
        confidence = next(iter(compared.values())).confidence
        yield f"{answer} Paired differences of {metric.title} with {confidence:.0%} intervals:\n"
        yield "\n".join([*(line(metric, n, c, spec.examples) for n, c in compared.items()), ""])


def comparable(result: Result, metric: Metric, section: Section) -> bool:
    """Whether a result has a value of a metric that is a mean over examples."""
    mean = metric == section.primary or f"{metric.name}_low" in result.metrics
    return mean and result.metrics[metric.name] is not None


def with_value(section: Section, metric: Metric) -> list[Result]:
    """The results that have a value of a metric."""
    return [r for r in section.results if r.metrics[metric.name] is not None]


def compared_with(section: Section, run: Result, baseline: Result, metric: Metric) -> Comparison:
    """The paired comparison of two results, by the primary metric as the gate compares them."""
    ours, theirs = section.per_example[run.name], section.per_example[baseline.name]
    seed = section.study.params["seed"]
    if section.gate and metric == section.primary:
        return section.gate.compare(ours, theirs, metric, seed)
    return compare(ours, theirs, metric, resamples=section.resamples, seed=seed)


def line(metric: Metric, name: str, comparison: Comparison, examples: str) -> str:
    """A comparison as a list item."""
    verdict = (
        "is better"
        if comparison.improves()
        else "is worse"
        if comparison.worsens
        else "is no better"
    )
    difference, low, high = (
        format(number, "+" + metric.format)
        for number in (comparison.difference, comparison.low, comparison.high)
    )
    return f"- {name} {verdict}: {difference} [{low}, {high}] on {comparison.examples:,} {examples}"


def figures_of(section: Section, folder: Path) -> Iterator[str]:
    """Draw the comparison of the runs, and copy the best run's first figures."""
    from ostinato.evaluation import figures

    metric, best = section.primary, section.results[0]
    rows = [
        (result.name, score, *(interval(section, result) or (score, score)))
        for result in with_value(section, section.primary)
        for score in [result.metrics[metric.name]]
    ]
    if rows[1:]:
        runs = pd.DataFrame(rows, columns=["run", "score", "low", "high"])
        file = f"{section.data}-runs.png"
        drawn = figures.comparison(runs, metric.title, not metric.higher_is_better)
        store.write_figure(folder / file, drawn)
        yield f"![{metric.title} of each run, with its 95% interval](report/{file})\n"
    found = [
        (file, title)
        for name, title in section.spec.figures.items()
        for file in (best.folder / "figures" / f"{name}{suffix}" for suffix in (".png", ".svg"))
        if file.exists()
    ]
    for figure, title in found[:NUM_FIGURES]:
        file = f"{section.data}-{figure.name}"
        shutil.copyfile(figure, folder / file)
        yield f"![{title}: {best.name}](report/{file})\n"
    path = best.folder.relative_to(section.study.folder).as_posix()
    yield f"All figures of the best run: `{path}/figures/`, or its run in MLflow.\n"


def closing_lines(study: Study, written: list[Section]) -> Iterator[str]:
    """The best score of each data set beside its best baseline, and where to see more."""
    rows = []
    for section in written:
        known = with_value(section, section.primary)
        if not known:
            continue
        best, title = known[0], section.primary.title
        baselines = [r for r in known if r.model in section.spec.baselines]
        texts = [f"{best.name}: {title} {with_interval(section, best)}"]
        texts += [f"{b.name}: {value(section.primary, b)}" for b in baselines[:1] if b != best]
        rows.append((section.data, *texts, *[""] * (2 - len(texts))))
    if rows:
        yield ""
        yield from Table(("data set", "best on the validation split", "baseline"), rows).lines()
    yield ""
    yield f"Report: {study.folder / 'report.md'}"
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    where = (
        masked(address)
        if address.startswith("http")
        else (f"mlflow ui --backend-store-uri {masked(address) or 'sqlite:///mlflow.db'}")
    )
    yield f"MLflow: {where}"
    if not address.startswith("http"):
        yield "        then http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"


def mirror(study: Study) -> None:
    """Complete the study's runs in MLflow; a failure is reported and stops nothing."""
    from ostinato.tracking.client import log_and_continue

    import_keras_quietly()
    with log_and_continue():
        from ostinato.tracking.mirror import mirror as mirrored

        outcomes = list(mirrored(study))
        print(f"Runs logged to MLflow: {sum(o.missing and not o.error for o in outcomes)}")
        for outcome in outcomes:
            if outcome.error:
                print(f"Not tracked in MLflow: {outcome.name}: {outcome.error}")


if __name__ == "__main__":
    command(main)
