"""Fetch new data; retrain where the data drifted or the champion is too old. Runs on a schedule.

Each data set is fetched, prepared, and compared with the data that its champion was trained on
(`ostinato.data.drift`). Without a reason to retrain, and where a step before the training fails,
the former data are restored: data, results and dvc.lock fit together again, after a kill at the
latest with the next run. The report on each data set, with figures, is an artifact in Prefect and a
run (stage ``retrain``) in MLflow.

By hand: ``python -m flows.retrain [DATA ...] [--study PARAMS] [--max-age-days DAYS] [--force]``.
"""

import argparse
import math
import re
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FailedRun
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows.engine import checkout, dvc_graph, origins
from flows.engine.commands import StoppedError
from flows.engine.errors import fails_with_message
from flows.promote import artifact_key, promote
from flows.reproduce import check_ranks, reproduce, retry_policies, run_stage
from ostinato import params, store
from ostinato.data import drift
from ostinato.errors import OstinatoError, ParamsError, RegistryError, TrackingError
from ostinato.promotion import Verdict
from ostinato.study import Study
from ostinato.task import Profile
from ostinato.tracking import dvc_lock, registry, runs
from ostinato.tracking.client import experiment, masked

MAX_TEXT_CHARS = 5000  # of a tag in MLflow
NUM_CATEGORY_FIGURES = 3  # features whose shifts of categories are drawn


class RetrainError(OstinatoError):
    """A data set could not be brought up to date; the message names it, the step and the reason."""


@dataclass
class RetrainReport:
    """What the flow found out about a data set, and what it did.

    Args:
        study: of the data set.
        data: its name.
        thresholds: arguments of `drift.compare`.
        champion: its version in the registry.
        age_days: days since the training of the champion.
        reference: the profile of the champion's data.
        current: the profile of the new data.
        drift: the rows of `drift.compare`.
        reasons: to retrain; empty where there are none.
        stages: the rows of `reproduce`.
        verdict: of `promote`.
        error: the failure, if any.
    """

    study: Study
    data: str
    thresholds: dict[str, Any]
    champion: Any = None
    age_days: float | None = None
    reference: Profile | None = None
    current: Profile | None = None
    drift: list[dict[Any, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    verdict: Verdict | None = None
    error: str = ""

    @property
    def model(self) -> str:
        """The registered model."""
        return registry.model_name(self.study.name, self.data)

    @property
    def promoted(self) -> bool:
        """Whether there is a new champion."""
        return self.verdict is not None and self.verdict.promoted

    @property
    def outcome(self) -> str:
        """The outcome and its reason."""
        if self.error:
            return f"failed: {self.error}"
        if self.verdict:
            return f"retrained: {'; '.join(self.reasons)}. {self.verdict.reason}"
        maxima = []
        for measure in ("psi", "ks"):
            rows = [row for row in self.drift if not math.isnan(row[measure])]
            if rows:
                largest = max(rows, key=lambda row: row[measure])
                maxima.append(f"{measure.upper()} {largest[measure]:.3f} of {largest['feature']}")
        return (
            f"not retrained: none of {len(self.drift)} features drifted (at most "
            f"{', '.join(maxima)}; thresholds: {self.limits}); the champion, version "
            f"{self.champion.version}, is {self.age_days:.1f} days old"
        )

    @property
    def limits(self) -> str:
        """The thresholds in words."""
        psi, ks = self.thresholds["psi_threshold"], self.thresholds["ks_threshold"]
        return f"PSI {psi:g}, KS {ks:g}"

    @property
    def line(self) -> str:
        """The outcome with the name of the data set."""
        return f"{self.data}: {self.outcome}"


@flow(name="retrain")
@fails_with_message
def retrain(
    data: list[str] = [],  # noqa: B006 - Prefect's form shows it; nothing changes it
    max_age_days: Annotated[float, Field(gt=0)] = 30.0,
    force: bool = False,
    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 2,
    train_on: str | None = None,
    study: str = "params.yaml",
    ranks: Annotated[int, Field(ge=1, le=1000)] = 1,
) -> Any:
    """Fetch new data; retrain and promote where the data drifted or the champion is too old.

    A data set that fails does not stop the others; the flow fails after them.

    Args:
        data: Data sets of the study, such as sketches; all that have a gate when empty.
        max_age_days: Days since its training after which a champion is challenged in any case.
        force: Retrain in any case.
        max_concurrency: Number of stages that run at the same time.
        train_on: A deployment for the training, such as `train/gpu`; this machine when empty.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.
        ranks: Number of flow runs of the deployment train_on that share each training.

    Returns:
        For each data set whether it was retrained, whether the champion changed, and the reason.
    """
    check_ranks(ranks, train_on)
    with checkout.checkout():
        reports = new_reports(dvc_graph.check_study(study), data)
        for report in reports:
            lock = remember_lock(report)
            try:
                report.reasons = find_reasons(report, max_age_days, force)
                if report.reasons:
                    lock.unlink(missing_ok=True)
                    get_run_logger().info(f"{report.data}: {'; '.join(report.reasons)}")
                    report.stages = train_again(report, max_concurrency, train_on, ranks)
                    report.verdict = promote([report.data], study=study)[report.data]
            except StoppedError:
                raise
            except (OstinatoError, FailedRun) as error:
                report.error = masked(str(error)) or type(error).__name__
            if not report.reasons:
                restore_data(report, lock)
            publish(report)
    summary = "\n".join(report.line for report in reports)
    if any(report.error for report in reports):
        raise RetrainError(summary)
    result = {
        report.data: {
            "retrained": bool(report.reasons),
            "promoted": report.promoted,
            "reason": report.outcome,
        }
        for report in reports
    }
    return Completed(message=summary, data=result)


def new_reports(study: Study, data: list[str]) -> list[RetrainReport]:
    """An empty report for each data set.

    Raises:
        ParamsError: there is no such data set, it has no gate, so no champion either, or the block
            ``drift`` is missing or wrong.
    """
    thresholds = dict(study.entry("drift"))
    params.bind(drift.compare, thresholds)
    gates = study.params.get("gates", {})
    for name in data:
        study.entry("data", name)
        if name not in gates:
            raise ParamsError(
                f"{study.path}: data set {name} has no gate, so it has no champion to retrain; add "
                f"gates.{name}"
            )
    return [RetrainReport(study, name, thresholds) for name in data or gates]


def find_reasons(report: RetrainReport, max_age_days: float, force: bool) -> list[str]:
    """Fetch and prepare a data set, and compare it with the champion's; the reasons to retrain."""
    study, name = report.study, report.data
    champion = report.champion = registry.champion(report.model)  # fails before anything is fetched
    new = origins.may_be_new(study, name)
    refresh(study, "fetch", name, force=new)
    if new:
        origins.remember(study, name)
    else:
        get_run_logger().info(f"{name}: its remote files are those of the last fetch")
    refresh(study, "prepare", name, force=False)
    report.current = Profile.read(study.data_folder(name) / "profile.json")
    reasons = ["retraining was forced"] if force else []
    if champion is None:
        return [f"{report.model} has no champion yet", *reasons]
    reasons += find_drift(report)
    report.age_days = registry.age(champion).total_seconds() / 86_400
    if report.age_days > max_age_days:
        reasons.append(
            f"the champion, version {champion.version}, is {report.age_days:.1f} days old, more "
            f"than {max_age_days:g}"
        )
    return reasons


def find_drift(report: RetrainReport) -> Iterator[str]:
    """Compare the new data with those of the champion; yields the reason to retrain, if any."""
    report.reference = registry.profile(report.champion)
    if report.reference is None:
        yield (
            f"the champion, version {report.champion.version}, has no profile of its data: drift "
            "cannot be measured"
        )
        return
    assert report.current
    table = drift.compare(report.reference, report.current, **report.thresholds)
    report.drift = table.to_dict("records")
    for row in report.drift:
        get_run_logger().info(f"{row['feature']}: {row['why']}")
    drifted = [f"{row['feature']}: {row['why']}" for row in report.drift if row["drifted"]]
    if drifted:
        summary = f"{len(drifted)} of {len(report.drift)} features drifted"
        yield f"{summary} ({'; '.join(drifted)})"


def refresh(study: Study, stage: str, name: str, *, force: bool) -> None:
    """Run one stage of a data set, with ``force`` also where nothing that it needs has changed.

    Raises:
        RetrainError: the stage failed; DVC has deleted its former outputs.
    """
    address = study.stage(stage, name)
    policy = retry_policies({address: ()}, study.params)[address]
    state = run_stage.with_options(retries=policy.retries)(
        address,
        blocked="",
        changed=True,
        policy=policy,
        train_on=None,
        force=force,
        return_state=True,
    )
    if not state.is_completed():
        raise RetrainError(f"{stage}@{name}: {state.message}")


def train_again(
    report: RetrainReport, max_concurrency: int, train_on: str | None, ranks: int
) -> list[dict[str, Any]]:
    """Train and evaluate all runs and ensembles of a data set; returns the rows of `reproduce`."""
    study = report.study
    names = [*study.params["runs"], *study.params["ensembles"]]
    stages = [
        runs.stages_of(study, name)[1]
        for name in names
        if study.result(name)["data"] == report.data
    ]
    targets = [study.stage(stage) for stage in [*stages, "report"]]
    rows: Any = reproduce(
        targets, max_concurrency, train_on, study=study.path.as_posix(), ranks=ranks
    )
    return list(rows)


def lock_path(study: Study) -> Path:
    """The study's dvc.lock."""
    return study.folder / "dvc.lock"


def remember_lock(report: RetrainReport) -> Path:
    """Copy dvc.lock until the flow has decided about the new data; returns the copy.

    The copy of a killed run stays, unless other stages have run in the checkout since.
    """

    def other_stages(lock: Path) -> dict[str, Any]:
        stages: dict[str, Any] = params.read_yaml(lock)["stages"]
        own = (f"fetch@{report.data}", f"prepare@{report.data}")
        return {key: value for key, value in stages.items() if key not in own}

    lock, copy = lock_path(report.study), Path(".dvc", "tmp", f"retrain-{report.model}.lock")
    if not lock.exists():
        copy.unlink(missing_ok=True)
    elif not (copy.exists() and other_stages(copy) == other_stages(lock)):
        store.write_bytes(copy, lock.read_bytes())
    return copy


def restore_data(report: RetrainReport, copy: Path) -> None:
    """Restore a data set from DVC's cache as the copy of dvc.lock has it, if it has changed."""
    if not copy.exists():
        return
    study, lock = report.study, lock_path(report.study)
    same = lock.read_bytes() == copy.read_bytes()
    store.write_bytes(lock, copy.read_bytes())
    records = dvc_lock.read(study)
    stages = (f"fetch@{report.data}", f"prepare@{report.data}")
    paths = [path for stage in stages if stage in records for path in records[stage].outs]
    if paths and not (same and all(Path(path).exists() for path in paths)):
        output = dvc_graph.dvc("checkout", "--force", *paths)
        if output.code:
            error = " ".join(output.lines[-2:])
            report.error += f"\nThe former data could not be restored: {error}"
            return
        get_run_logger().info(f"{report.data}: the data from before this run are restored")
    copy.unlink()


# The report


def publish(report: RetrainReport) -> None:
    """Log a report, and publish it with figures in Prefect and, where it answers, in MLflow."""
    (get_run_logger().error if report.error else get_run_logger().info)(report.line)
    text = to_markdown(report)
    with store.temporary_folder() as folder:
        paths = write_figures(report, folder / "figures")
        links = [f"figures/{path.name}" for path in paths]
        store.write_text(folder / "report.md", text + image_links(links))
        if report.drift:
            store.write_table(folder / "drift.csv", pd.DataFrame(report.drift))
        try:
            run = record(report, text, folder)
            text += f"\nMLflow: experiment {runs.experiment_name(report.study, report.data)}, "
            text += f"run {run}.\n"
        except (RegistryError, TrackingError) as error:
            get_run_logger().warning(f"The report is not in MLflow: {error}")
        inline = [
            f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}" for path in paths
        ]
    create_markdown_artifact(
        key=artifact_key("retrain", report.model),
        markdown=text + image_links(inline),
        description=f"{report.data}: {report.outcome.partition(':')[0]}, and the reason",
    )


def image_links(addresses: list[str]) -> str:
    """Figures as Markdown."""
    return "".join(f"\n![figure]({address})\n" for address in addresses)


def to_markdown(report: RetrainReport) -> str:
    """A report as Markdown, without figures."""
    head, _, reason = report.outcome.partition(": ")
    lines = [f"# {report.data}: {head}", ""]
    if report.error or not report.reasons:
        lines += [reason, ""]
    if report.champion:
        tags = report.champion.tags
        age = "" if report.age_days is None else f", {report.age_days:.1f} days ago"
        lines += [
            f"- The champion was version {report.champion.version} ({tags['run']}), trained at "
            f"{tags['trained'][:16]} UTC{age}"
        ]
    if report.current:
        before = f"; the champion had {report.reference.examples:,}" if report.reference else ""
        lines += [f"- Training examples: {report.current.examples:,}{before}"]
    lines += [f"- Reason to retrain: {reason}" for reason in report.reasons]
    if report.verdict:
        head = "A new champion" if report.verdict.promoted else "The champion stays"
        lines += [f"- {head}: {report.verdict.reason}"]
    if report.drift:
        columns = ("feature", "psi", "ks", "p", "drifted", "why")
        lines += ["", *to_table(columns, report.drift), ""]
        lines += [
            f"A feature has drifted if its change is significant (p under "
            f"{report.thresholds['significance']:g}, corrected for {len(report.drift)} features) "
            f"and large (at least one threshold: {report.limits})."
        ]
    if report.stages:
        lines += ["", *to_table(("stage", "outcome", "seconds"), report.stages)]
    return "\n".join([*lines, ""])


def to_table(columns: tuple[str, ...], rows: list[dict[Any, Any]]) -> list[str]:
    """The lines of a Markdown table."""

    def cell(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.3g}"
        return str(value or "").replace("|", "\\|")

    cells = [columns, ["---"] * len(columns), *([cell(row[c]) for c in columns] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def write_figures(report: RetrainReport, folder: Path) -> list[Path]:
    """Draw the drift of the features, the largest change first; returns the files."""
    from ostinato.data import figures

    if not (report.reference and report.current and report.drift):
        return []
    reference, current = report.reference, report.current
    table = pd.DataFrame(report.drift).sort_values("psi", ascending=False)
    names = {str(kind): list(part["feature"]) for kind, part in table.groupby("kind")}
    thresholds = report.thresholds["psi_threshold"], report.thresholds["ks_threshold"]
    drawn = {"drift": figures.drift(table, *thresholds)}
    if "numbers" in names:
        common = [name for name in names["numbers"] if name in reference.numbers]
        before: dict[str, Sequence[float]] = {name: reference.numbers[name] for name in common}
        drawn["distributions"] = figures.distributions(before, {**current.numbers})
    for name in names.get("counts", [])[:NUM_CATEGORY_FIGURES]:
        changes = drift.changes(*(profile.counts.get(name, {}) for profile in (reference, current)))
        drawn[f"category_shift_{name}"] = figures.category_shift(changes, name)
    paths = [folder / f"{re.sub('[^a-z0-9]+', '_', title.lower())}.png" for title in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        store.write_figure(path, figure)
    return paths


def record(report: RetrainReport, text: str, folder: Path) -> str:
    """Log a report as a run of the data set's experiment in MLflow; returns the run's id.

    Args:
        report: of the data set.
        text: as Markdown.
        folder: of the files to log.
    """
    from mlflow.entities import Metric

    numbers = {"champion_age_days": math.nan if report.age_days is None else report.age_days}
    for row in report.drift:
        measures = ("psi", "ks")
        numbers |= {runs.metric_name(f"{m}/{row['feature']}"): row[m] for m in measures}
    tags = {
        "stage": "retrain",
        "retrained": str(bool(report.reasons)).lower(),
        "promoted": str(report.promoted).lower(),
        "outcome": report.outcome[:MAX_TEXT_CHARS],
        "flow_run": str(runtime.flow_run.name),
        "mlflow.note.content": text[:MAX_TEXT_CHARS],
    }
    with registry.connected() as client:
        where = experiment(client, runs.experiment_name(report.study, report.data))
        run = client.create_run(where, run_name=f"retrain {report.data}", tags=tags)
        key, now = run.info.run_id, run.info.start_time
        metrics = [Metric(name, x, now, 0) for name, x in numbers.items() if not math.isnan(x)]
        client.log_batch(key, metrics)
        client.log_artifacts(key, str(folder))
        client.set_terminated(key, "FAILED" if report.error else "FINISHED")
    return str(key)


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    parser.add_argument("data", nargs="*", help="data sets; none: all that have a gate")
    parser.add_argument("--study", default="params.yaml", metavar="PARAMS", help="params file")
    parser.add_argument("--max-age-days", type=float, default=30.0, metavar="DAYS")
    parser.add_argument("--force", action="store_true", help="retrain in any case")
    arguments = vars(parser.parse_args())
    state: Any = retrain(**arguments, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
