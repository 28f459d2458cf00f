"""The flow `monitor`: it reports on champions that are served, and starts `retrain` beyond limits.

The registry, the store and Prefect are real; the version is made by hand, and `retrain` is
replaced.
"""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import monitor as module
from flows.engine import dvc_graph
from flows.monitor import monitor
from ostinato import store
from ostinato.monitoring import report as reports
from ostinato.monitoring.reference import write_answers
from ostinato.sketches import monitoring
from ostinato.study import Study
from ostinato.task import Manifest
from ostinato.tracking.client import connected, experiment
from tests import served_log
from tests.test_monitoring import CLASSES, drawings, usual

PARAMS = """\
root: .
at: ""
seed: 1
runtime: {precision: float32}
data:
  drawings: {domain: sketches, fetch: {source: doodles}, prepare: {}}
  others: {domain: sketches, fetch: {source: doodles}, prepare: {}}
evaluation: {}
drift: {psi_threshold: 0.2, ks_threshold: 0.15, significance: 0.01, bins: 10}
gates: {drawings: {}, others: {}}
runs: {}
ensembles: {}
"""


class Watched:
    """A checkout with a champion and its log, and the calls of `retrain`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.retrained: list[dict[str, Any]] = []

    def serve(
        self, count: int = 200, *, hours: float = 1, stretch: float = 1.0, **more: Any
    ) -> Any:
        """Log answers; returns their rows."""
        time = datetime.now(UTC) - timedelta(hours=hours)
        inputs = drawings(count, 2, stretch)
        rows = served_log.answers("drawings", time, inputs, usual(count), **more)
        served_log.write(self.folder / "log", "requests", rows)
        return rows

    def __call__(self, **changed: Any) -> Any:
        return monitor(["drawings"], **changed, return_state=True)

    def report(self) -> reports.MonitoringReport:
        return reports.read_all(self.folder / "monitoring")["drawings"][0]

    def mlflow(self) -> Any:
        with connected() as client:
            (run,) = client.search_runs([experiment(client, "default/drawings")])
            history = client.get_metric_history(run.info.run_id, "inputs_drift")
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        return run, [point.value for point in history], files


@pytest.fixture
def watched(
    tmp_path: Path, mlflow_tables: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> Watched:
    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_tables, tmp_path)
    Path("params.yaml").write_text(PARAMS)
    files = tmp_path / "version" / "artifacts"
    about = {"domain": "sketches", "run": "a", "model": "rnn", "prepare": {"max_points": 100}}
    store.write_json(files / "about.json", about)
    store.write_json(files / "manifest.json", Manifest("d", "drawings", {}, CLASSES).to_json())
    profile = monitoring.input_profile(drawings(300, 1), files)
    store.write_json(files / "profile.json", profile.to_json())
    right = np.arange(500) < 450
    confidence = np.full(500, 0.9)
    store.write_arrays(
        files / "serving.npz", {"validation_confidence": confidence, "validation_correct": right}
    )
    likely = np.tile([[0.9, 0.1], [0.1, 0.9]], (200, 1))
    write_answers(
        "sketches", {"probabilities": likely}, Manifest("d", "drawings", {}, CLASSES), files
    )
    with connected() as client:
        client.create_registered_model("drawings", {"domain": "sketches"})
        tags = {"run": "a", "scores": json.dumps({"top1": 0.9})}
        client.create_model_version("drawings", files.parent.as_uri(), tags=tags)
        client.set_registered_model_alias("drawings", "champion", "1")
    found = Watched(tmp_path)
    monkeypatch.setattr(dvc_graph, "check_study", Study.load)
    # Other tests deploy `retrain` on the same server.
    monkeypatch.setattr(module, "RETRAIN", "retrain/not-deployed")
    monkeypatch.setattr(module, "retrain", lambda **given: found.retrained.append(given))
    return found


def artifact() -> str:
    key = ArtifactFilter(key=ArtifactFilterKey(any_=["monitor-drawings"]))
    with get_client(sync_client=True) as client:
        return str(client.read_artifacts(artifact_filter=key)[-1].data)


def test_a_calm_day_is_reported_and_nothing_is_retrained(watched: Watched) -> None:
    rows = watched.serve()
    watched.serve(50, version="0")  # of an earlier champion
    sent = served_log.truths(rows[:60], [*(CLASSES * 30)[:59], 7], datetime.now(UTC))
    served_log.write(watched.folder / "log", "feedback", sent)
    state = watched()
    assert state.is_completed(), state.message
    assert state.message.startswith("drawings: ok: No threshold is exceeded: estimated top1 0.9")
    report = watched.report()
    assert (report.requests, report.model_version, report.status) == (200, "1", "ok")
    assert report.labels == {
        "joined": 59, "unknown": 0, "doubled": 0, "contradicting": 0, "unusable": 1, "from data": 0,
    }  # fmt: skip
    place = watched.folder / "monitoring" / "drawings" / report.folder_name
    assert {path.name for path in (place / "figures").iterdir()} == report.figures.keys()
    assert "data:image/png;base64" in artifact()
    run, drift, files = watched.mlflow()
    assert (run.info.status, run.data.tags["stage"], drift) == ("FINISHED", "monitor", [0.0])
    assert run.data.metrics["top1"] == 1
    assert f"{report.folder_name}/report.json" in files
    assert watched.retrained == []


def test_drift_starts_one_retraining_and_not_another_one_soon(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.serve(stretch=2.5)
    assert watched().is_completed()
    assert watched.report().status == "retrain"
    expected = {"data": ["drawings"], "force": True, "study": "params.yaml"}
    assert watched.retrained == [expected]
    (earlier,) = reports.read_all(watched.folder / "monitoring").values()
    monkeypatch.setattr(module, "datetime", later(timedelta(hours=2)))
    assert watched().is_completed()
    assert watched.report().status == "warning"
    assert "not retrained: the last retraining was started" in watched.report().reasons[-1]
    assert watched.retrained == [expected]
    _, drift, _ = watched.mlflow()
    assert len(drift) == 2
    assert min(drift) > 0
    assert len(earlier) == 1


def later(by: timedelta) -> Any:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    return Clock


def test_without_enough_requests_nothing_is_decided(watched: Watched) -> None:
    watched.serve(30, stretch=2.5)
    watched.serve(300, stretch=2.5, hours=40)  # before the period
    assert watched().is_completed()
    assert watched.report().status == "ok"
    assert watched.report().summary.startswith("30 requests are too few")
    assert watched.retrained == []


def test_without_a_log_or_a_champion_there_is_nothing_to_watch(watched: Watched) -> None:
    state: Any = watched()
    assert state.is_completed()
    assert "nothing to watch: log is no log of `ostinato serve --log-folder`" in state.message
    watched.serve(30)
    state = cast(Any, monitor(return_state=True))
    assert state.is_completed()
    assert "others: has no champion yet" in state.message
    state = cast(Any, monitor(["nothing"], return_state=True))
    assert state.is_failed()


def test_a_file_of_labels_that_is_wrong_fails_with_its_line(watched: Watched) -> None:
    watched.serve()
    (watched.folder / "labels.csv").write_text("id,truth\n")
    state = watched(labels="labels.csv")
    assert state.is_failed()
    assert "labels.csv, line 1: found the columns ['id', 'truth']" in state.message
