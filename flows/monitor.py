"""Watch the champions that are served; retrain where they have become worse. Runs on a schedule.

For each data set, the requests of a period (`ostinato serve --log-folder`) are compared with what
the champion was trained and tested on: inputs and answers by the drift test of `retrain`, accuracy
as expected from calibrated confidence, and as labels show it (`POST /v1/feedback`, a file of
labels, or for forecasts the data that were fetched since). The report is a folder
(``monitoring/<model>/<time>/``), an artifact in Prefect and, with its numbers over time, a run
(stage ``monitor``) in MLflow. Beyond a threshold the flow starts `retrain`.

By hand: ``python -m flows.monitor [DATA ...] --log-folder FOLDER [--study PARAMS] [--days DAYS]``.
"""

import argparse
import io
import json
import sys
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from prefect.exceptions import FailedRun, ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows.engine import dvc_graph
from flows.engine.errors import fails_with_message
from flows.promote import artifact_key
from flows.retrain import new_reports, retrain
from ostinato.data import served
from ostinato.errors import OstinatoError, RegistryError, TrackingError
from ostinato.monitoring import report as reports
from ostinato.monitoring.examine import Findings, Period, Thresholds, examine
from ostinato.monitoring.reference import Reference
from ostinato.monitoring.report import MonitoringReport
from ostinato.study import Study
from ostinato.task import Manifest
from ostinato.tracking import registry, runs
from ostinato.tracking.client import experiment, masked

RETRAIN = "retrain/retrain"  # the deployment
MAX_TEXT_CHARS = 5000  # of a tag in MLflow

Days = Annotated[float, Field(gt=0, le=3650)]


class MonitorError(OstinatoError):
    """A model could not be watched; the message names it and the reason."""


@flow(name="monitor")
@fails_with_message
def monitor(
    data: list[str] = [],  # noqa: B006 - Prefect's form shows it; nothing changes it
    log_folder: str = "log",
    days: Days = 1.0,
    label_days: Days = 30.0,
    labels: str | None = None,
    min_requests: Annotated[int, Field(ge=1)] = 200,
    min_labels: Annotated[int, Field(ge=1)] = 50,
    max_loss: Annotated[float, Field(gt=0, le=1)] = 0.1,
    retrain_after_days: Annotated[float, Field(ge=0)] = 7.0,
    start_retrain: bool = True,
    keep_reports: Annotated[int, Field(ge=1)] = 1000,
    folder: str = "monitoring",
    study: str = "params.yaml",
) -> Any:
    """Compare what champions are asked and answer with their training and test.

    A data set that fails does not stop the others; the flow fails after them.

    Args:
        data: Data sets of the study, such as sketches; all that have a gate when empty.
        log_folder: Folder of the server's request log.
        days: Length of the period that is examined, up to now.
        label_days: Days of requests that labels are joined with; labels come later than answers.
        labels: A CSV or ndjson of labels (request_id, item, truth), besides those that were sent.
        min_requests: With fewer requests in the period nothing is decided.
        min_labels: With fewer labels the realised metric decides nothing.
        max_loss: Share of the metric on the test split that may be lost before retraining.
        retrain_after_days: Days after a retraining in which no other one is started.
        start_retrain: Start retrain beyond a threshold; else the report has the status warning.
        keep_reports: Number of reports of a model that are kept.
        folder: Folder of the reports, which the server shows.
        study: Path of the study's params file, such as recipes/sketches/params.yaml.

    Returns:
        For each data set the status and the summary of its report.
    """
    loaded = dvc_graph.check_study(study)
    if not (Path(log_folder) / "requests").is_dir():
        message = f"nothing to watch: {log_folder} is no log of `ostinato serve --log-folder`"
        get_run_logger().warning(message)
        return Completed(message=message, data={})
    found, errors, unwatched = {}, [], []
    for empty in new_reports(loaded, data):  # checks names, gates and the block drift
        name = empty.data
        thresholds = Thresholds(min_requests, min_labels, max_loss, empty.thresholds)
        try:
            with TemporaryDirectory() as temporary:
                findings = look(
                    loaded,
                    name,
                    Path(log_folder),
                    Path(temporary),
                    thresholds,
                    days=days,
                    label_days=label_days,
                    label_file=labels,
                )
            if findings is None:
                unwatched.append(f"{name}: has no champion yet")
                continue
            earlier = reports.read_all(Path(folder)).get(findings.report.model, [])
            findings = replace(
                findings,
                report=decide(findings.report, earlier, start_retrain, retrain_after_days),
            )
            found[name] = publish(loaded, name, findings, earlier, Path(folder), thresholds)
            reports.prune(Path(folder), findings.report.model, keep_reports)
            if found[name].status == "retrain":
                retrain_now(name, study)
        except (OstinatoError, FailedRun) as error:
            errors.append(f"{name}: {masked(str(error)) or type(error).__name__}")
            get_run_logger().error(errors[-1])
    lines = [f"{name}: {report.status}: {report.summary}" for name, report in found.items()]
    lines += unwatched
    if errors:
        raise MonitorError("\n".join([*errors, *lines]))
    result = {name: {"status": r.status, "summary": r.summary} for name, r in found.items()}
    return Completed(message="\n".join(lines), data=result)


def look(
    study: Study,
    data: str,
    log_folder: Path,
    temporary: Path,
    thresholds: Thresholds,
    *,
    days: float,
    label_days: float,
    label_file: str | None,
) -> Findings | None:
    """Examine the requests to the champion of a data set; None where there is no champion.

    Args:
        study: of the data set.
        data: its name.
        log_folder: of the server.
        temporary: an empty folder, for the champion's files.
        thresholds: of the decision.
        days: of requests that are examined.
        label_days: of requests that labels are joined with.
        label_file: of further labels.
    """
    model = registry.model_name(study.name, data)
    with registry.connected() as client:
        champion = registry.find(client, model, registry.CHAMPION)
        if champion is None:
            return None
        files = registry.download(client, champion, temporary) / "artifacts"
    reference = Reference.read(files, json.loads(champion.tags["scores"]))
    until = datetime.now(UTC)
    since, first = until - timedelta(days=days), until - timedelta(days=max(days, label_days))
    logged = served.read_requests(log_folder, model, first, until)
    of_version = logged[logged["version"] == str(champion.version)]
    sent = [served.read_feedback(log_folder, model, first, until)]
    if label_file is not None:
        sent.append(served.read_label_file(Path(label_file)))
    joined, counts = join_labels(study, data, reference, logged, of_version, sent)
    period = Period(
        since=since,
        until=until,
        requests=of_version[of_version["time"] >= since],
        labelled=joined,
        labels=counts,
    )
    seed = int(study.params["seed"])
    return examine(model, str(champion.version), reference, period, thresholds, seed=seed)


def join_labels(
    study: Study,
    data: str,
    reference: Reference,
    logged: pd.DataFrame,
    of_version: pd.DataFrame,
    sent: list[pd.DataFrame],
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Answers of a version with their labels: those that came, and those that the data have.

    Args:
        study: of the data set.
        data: its name.
        reference: of the version.
        logged: answers of all versions, by which unknown labels are told.
        of_version: answers of the version.
        sent: tables of labels.

    Returns:
        The answers with the column ``truth``, and the number of labels by kind.
    """
    module = reference.module
    joined, counts = served.join(logged, *sent)
    joined = joined[joined["version"].isin(of_version["version"].unique())]
    responses = served.parsed(joined["output"].tolist())
    if responses is not None:
        pairs = zip(joined["truth"], responses, strict=True)
        usable = [module.is_truth(truth, response) for truth, response in pairs]
        counts["unusable"] = len(usable) - sum(usable)
        counts["joined"] -= counts["unusable"]
        joined = joined[np.array(usable, bool)]
    by_data = found_in_data(study, data, reference, of_version, joined)
    counts["from data"] = len(by_data)
    return pd.concat([joined, by_data]) if len(by_data) else joined, counts


def found_in_data(
    study: Study,
    data: str,
    reference: Reference,
    answers: pd.DataFrame,
    labelled: pd.DataFrame,
) -> pd.DataFrame:
    """Answers without a label whose truth the raw data of the checkout have, as of forecasts."""
    keys = pd.MultiIndex.from_frame(labelled[served.KEYS])
    rest = answers[~pd.MultiIndex.from_frame(answers[served.KEYS]).isin(keys)]
    inputs = served.parsed(rest["input"].tolist())
    responses = served.parsed(rest["output"].tolist())
    raw = study.raw_folder(data)
    if not len(rest) or inputs is None or responses is None or not raw.is_dir():
        return rest.iloc[:0]
    manifest = Manifest.read(reference.folder / "manifest.json")
    truths = reference.module.find_truths(inputs, responses, raw, manifest)
    known = [truth is not None for truth in truths]
    return rest[known].assign(truth=[truth for truth in truths if truth is not None])


def decide(
    report: MonitoringReport,
    earlier: list[MonitoringReport],
    start_retrain: bool,
    retrain_after_days: float,
) -> MonitoringReport:
    """Whether a report starts a retraining: a threshold is exceeded, and none has just begun."""
    if not start_retrain or not any(each.exceeded for each in report.metrics):
        return report
    now = datetime.fromisoformat(report.time)
    for former in earlier:
        ago = now - datetime.fromisoformat(former.time)
        if former.status == "retrain" and ago < timedelta(days=retrain_after_days):
            note = (
                f"not retrained: the last retraining was started {former.time[:16]} UTC, less than "
                f"{retrain_after_days:g} days ago"
            )
            return replace(report, reasons=(*report.reasons, note))
    return replace(report, status="retrain")


def retrain_now(data: str, study: str) -> None:
    """Start `retrain`: the deployment if the server has one, else the flow in this process."""
    parameters: dict[str, Any] = {"data": [data], "force": True, "study": study}
    try:
        run: Any = run_deployment(RETRAIN, parameters=parameters, timeout=0, as_subflow=False)
        get_run_logger().info(f"{data}: started {RETRAIN}, flow run {run.name}")
    except ObjectNotFound:  # an API of this process alone has no deployments
        get_run_logger().info(f"{data}: there is no deployment {RETRAIN}; retraining here")
        retrain(**parameters)


# The report


def publish(
    study: Study,
    data: str,
    findings: Findings,
    earlier: list[MonitoringReport],
    folder: Path,
    thresholds: Thresholds,
) -> MonitoringReport:
    """Write the report with its figures; publish it in Prefect and, where it answers, in MLflow."""
    from ostinato.monitoring import figures

    measures = thresholds.drift["psi_threshold"], thresholds.drift["ks_threshold"]
    drawn = figures.draw(findings, earlier, *measures)
    pngs = {}
    for name, (_, figure) in drawn.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi="figure", metadata={"Software": None})
        pngs[name] = buffer.getvalue()
    titles = {name: title for name, (title, _) in drawn.items()}
    report = replace(findings.report, figures=titles)
    place = reports.write(folder, report, pngs)
    level = get_run_logger().info if report.status == "ok" else get_run_logger().warning
    level(f"{data}: {report.status}: {report.summary} ({place})")
    text = report.to_markdown()
    try:
        run = record(study, data, report, place)
        text += f"\nMLflow: experiment {runs.experiment_name(study, data)}, run {run}.\n"
    except (RegistryError, TrackingError) as error:
        get_run_logger().warning(f"The report is not in MLflow: {error}")
    for name, title in titles.items():
        address = f"data:image/png;base64,{b64encode(pngs[name]).decode()}"
        text += f"\n![{title}]({address})\n"
    create_markdown_artifact(
        key=artifact_key("monitor", report.model),
        markdown=text,
        description=f"{report.model}, version {report.model_version}: {report.status}",
    )
    return report


def record(study: Study, data: str, report: MonitoringReport, place: Path) -> str:
    """Log a report in MLflow; returns the run's id.

    All reports on a version are one run, so its metrics have a point for each report.
    """
    from mlflow.entities import Metric

    time = int(datetime.fromisoformat(report.time).timestamp() * 1000)
    identity = {"stage": "monitor", "model": report.model, "version": report.model_version}
    tags = {
        "status": report.status,
        "outcome": report.summary[:MAX_TEXT_CHARS],
        "flow_run": str(runtime.flow_run.name),
        "mlflow.note.content": report.to_markdown()[:MAX_TEXT_CHARS],
    }
    numbers = {"requests": float(report.requests)}
    for each in report.metrics:
        values = {"": each.value, "_low": each.low, "_high": each.high}
        numbers |= {each.name + end: x for end, x in values.items() if x is not None}
    for row in report.drift:
        for measure in ("psi", "ks"):
            if row[measure] is not None:
                name = runs.metric_name(f"{measure}/{row['of']}/{row['feature']}")
                numbers[name] = row[measure]
    with registry.connected() as client:
        where = experiment(client, runs.experiment_name(study, data))
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in identity.items())
        if found := client.search_runs([where], query, max_results=1):
            run = found[0]
            step = 1 + int(run.data.metrics.get("reports", 0))
        else:
            name = f"monitor {report.model} version {report.model_version}"
            run, step = client.create_run(where, run_name=name, tags=identity), 1
        key = run.info.run_id
        numbers["reports"] = float(step)
        client.log_batch(key, [Metric(name, x, time, step) for name, x in numbers.items()])
        for name, value in tags.items():
            client.set_tag(key, name, value)
        client.log_artifacts(key, str(place), place.name)
        client.set_terminated(key)
    return cast(str, key)


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.monitor", description=__doc__)
    parser.add_argument("data", nargs="*", help="data sets; none: all that have a gate")
    parser.add_argument("--study", default="params.yaml", metavar="PARAMS", help="params file")
    parser.add_argument("--log-folder", default="log", metavar="FOLDER", help="of the server")
    parser.add_argument("--days", type=float, default=1.0, help="length of the period")
    parser.add_argument("--labels", metavar="FILE", help="a CSV or ndjson of labels")
    parser.add_argument("--no-retrain", action="store_true", help="only report")
    arguments = vars(parser.parse_args())
    arguments["start_retrain"] = not arguments.pop("no_retrain")
    state: Any = monitor(**arguments, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
