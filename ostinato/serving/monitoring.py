"""The reports of the monitor over HTTP.

GET /v1/monitoring                            the last reports, with their numbers over time
GET /v1/monitoring/{model}/{time}/{figure}    a figure of a report
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from ostinato.monitoring import report as reports
from ostinato.monitoring.report import MonitoringReport
from ostinato.serving import access

PATH = "/v1/monitoring"


def add_routes(app: FastAPI, folder: Path) -> None:
    """Add the routes.

    Args:
        app: of the server.
        folder: of the reports; it may appear later.
    """

    async def listed() -> dict[str, list[dict[str, Any]]]:
        """The last reports: the newest of each model first."""
        return {"reports": await run_in_threadpool(overview, folder)}

    async def figure(model: str, time: str, name: str) -> Response:
        """A figure of a report."""
        path = await run_in_threadpool(reports.figure_path, folder, model, time, name)
        if path is None:
            return access.error_response(404, "no_figure", "there is no such figure")
        # The content of a report never changes.
        cached = {"Cache-Control": "private, max-age=31536000, immutable"}
        return FileResponse(path, media_type="image/png", headers=cached)

    app.add_api_route(PATH, listed)
    app.add_api_route(f"{PATH}/{{model}}/{{time}}/{{name}}", figure, response_class=Response)


def overview(folder: Path) -> list[dict[str, Any]]:
    """The last reports as JSON: the newest of each model, then the older ones by time."""
    found = reports.read_all(folder)
    newest = [_to_json(each[0], reports.series(each)) for each in found.values()]
    older = [_to_json(report, []) for each in found.values() for report in each[1:]]
    newest.sort(key=lambda report: report["time"], reverse=True)
    older.sort(key=lambda report: report["time"], reverse=True)
    return [*newest, *older][: reports.MAX_REPORTS]


def _to_json(report: MonitoringReport, series: list[dict[str, Any]]) -> dict[str, Any]:
    shown = ("name", "value", "low", "high", "threshold", "unit", "text")
    place = f"{PATH}/{report.model}/{report.folder_name}"
    return {
        "model": report.model,
        "time": report.time,
        "version": report.model_version,
        "requests": report.requests,
        "status": report.status,
        "summary": report.summary,
        "metrics": [{name: getattr(each, name) for name in shown} for each in report.metrics],
        "series": series,
        "figures": [
            {"title": title, "url": f"{place}/{name}"} for name, title in report.figures.items()
        ],
    }
