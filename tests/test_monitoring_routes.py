"""GET /v1/monitoring: the reports of a folder, and no file outside of it."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ostinato.errors import DataError
from ostinato.monitoring import report as reports
from ostinato.monitoring.report import Measure, MonitoringReport
from ostinato.serving import monitoring

PNG = b"\x89PNG\r\n\x1a\n"
START = datetime(2026, 11, 30, 2, tzinfo=UTC)


def a_report(model: str = "sketches", hours: int = 0, **more: Any) -> MonitoringReport:
    time = START + timedelta(hours=hours)
    values: dict[str, Any] = {
        "model": model,
        "model_version": "3",
        "time": time.isoformat(),
        "since": (time - timedelta(days=1)).isoformat(),
        "until": time.isoformat(),
        "requests": 1000 + hours,
        "status": "warning",
        "summary": "1 of 5 features of the inputs drifted.",
        "metrics": (
            Measure("accuracy", 0.9 - hours / 100, "from labels", 0.8, 0.95, 0.85),
            Measure("drift", float("nan"), "not measured"),
        ),
        "drift": (
            {"feature": "points", "kind": "numbers", "psi": 0.3, "ks": 0.2, "p": 0.001,
             "drifted": True, "why": "PSI 0.300 (at least 0.2)"},
        ),
        "labels": {"joined": 40, "unknown": 2},
        "reasons": ("points: PSI 0.300",),
        "figures": {"drift.png": "Drift by feature"},
        **more,
    }  # fmt: skip
    return MonitoringReport(**values)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for hours in range(3):
        for model in ("sketches", "m4.daily@challenger"):
            reports.write(Path("monitoring"), a_report(model, hours), {"drift.png": PNG})
    return tmp_path / "monitoring"


def get(folder: Path, path: str = "") -> httpx.Response:
    app = FastAPI()
    monitoring.add_routes(app, folder)

    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get(f"/v1/monitoring{path}")

    return asyncio.run(answer())


def test_a_report_is_read_as_it_was_written(folder: Path) -> None:
    place = folder / "sketches" / "20261130T020000Z"
    assert MonitoringReport.read(place / "report.json") == a_report()
    text = (place / "report.md").read_text(encoding="utf-8")
    assert "| accuracy | 0.9 | 0.8 to 0.95 | 0.85 | from labels |" in text
    assert "| drift | n/a |" in text
    assert "40 joined, 2 unknown" in text
    assert "![Drift by feature](figures/drift.png)" in text
    with pytest.raises(DataError, match="a report of this second"):
        reports.write(folder, a_report(), {})
    with pytest.raises(DataError, match="cannot be the name"):
        reports.write(folder, a_report("../x"), {})


def test_the_newest_report_of_each_model_comes_first(folder: Path) -> None:
    found = get(folder).json()["reports"]
    assert [each["requests"] for each in found] == [1002, 1002, 1001, 1001, 1000, 1000]
    newest = next(each for each in found if each["model"] == "sketches")
    assert newest["time"] == "2026-11-30T04:00:00+00:00"
    assert (newest["version"], newest["status"]) == ("3", "warning")
    assert newest["metrics"][0] == {
        "name": "accuracy", "value": 0.88, "low": 0.8, "high": 0.95, "threshold": 0.85,
        "unit": "", "text": "from labels",
    }  # fmt: skip
    assert newest["series"] == [
        {
            "name": "accuracy",
            "points": [[f"2026-11-30T0{2 + h}:00:00+00:00", 0.9 - h / 100] for h in range(3)],
        }
    ]
    assert found[-1]["series"] == []


def test_a_figure_is_sent_and_nothing_outside_the_folder(folder: Path) -> None:
    (newest, *_) = get(folder).json()["reports"]
    (figure,) = newest["figures"]
    assert figure["title"] == "Drift by feature"
    answer = get(folder, figure["url"].removeprefix("/v1/monitoring"))
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")
    (folder.parent / "secret.png").write_bytes(PNG)
    (folder / "sketches" / "secret.png").write_bytes(PNG)
    for path in (
        "sketches/20261130T020000Z/other.png",
        "sketches/20261130T020000Z/..%2Freport.json",
        "sketches/20261130T020000Z/..%2F..%2Fsecret.png",
        "sketches/..%2F..%2F../secret.png",
        "..%2F../20261130T020000Z/drift.png",
        "%2e%2e/x/secret.png",
        "sketches/20261130T020000Z/drift.png%00",
    ):
        assert get(folder, f"/{path}").status_code == 404, path


def test_no_folder_means_no_reports_and_a_broken_one_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(folder / "none").json() == {"reports": []}
    broken = folder / "sketches" / "20261130T040000Z" / "report.json"
    broken.write_text("{")
    (folder / "sketches" / "notes").mkdir()
    with caplog.at_level(logging.WARNING):
        found = get(folder).json()["reports"]
    assert len(found) == 5
    assert str(broken) in caplog.text


def test_the_list_is_bounded_and_old_reports_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MAX_REPORTS", 2)
    found = get(folder).json()["reports"]
    assert [each["requests"] for each in found] == [1002, 1002]
    assert len(found[0]["series"][0]["points"]) == 2
    assert reports.prune(folder, "sketches", 1) == 2
    assert [each.requests for each in reports.read_all(folder)["sketches"]] == [1002]
