"""Screenshots of MLflow's page: ``python docs/screenshots_mlflow.py [--uri URI] [FOLDER]``.

Starts ``mlflow ui`` on a free port of 127.0.0.1, photographs the list of experiments, and of one
data set the runs, the charts, a run's figures and the registered model, and ends the server. It
needs Chromium and ``pip install playwright``. The database is that of the checkout by default.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

START_S = 120  # longest wait for the server
SETTLE_MS = 3000  # MLflow draws charts after the page has loaded
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def server(uri: str) -> Iterator[str]:
    """Start MLflow's page on a database; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--port",
        str(port),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    sys.exit(f"mlflow ui has not answered at {address}")
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def photograph(page: Page, address: str, text: str, file: Path) -> None:
    """Open a page, wait until it has a text and has settled, and save what is shown."""
    page.goto(address, timeout=60_000)
    page.get_by_text(text).first.wait_for(timeout=60_000)
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=file, timeout=120_000, animations="disabled")
    print(file)


def main() -> None:
    """Take all screenshots of a database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--uri", default=f"sqlite:///{Path('mlflow.db').resolve()}")
    parser.add_argument("--experiment", default="default/sketches")
    parsed = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} in PATH; install one")
    client = MlflowClient(parsed.uri)
    experiment = client.get_experiment_by_name(parsed.experiment)
    if experiment is None:
        sys.exit(f"{parsed.experiment}: no such experiment; `python -m ostinato.tracking` logs all")
    key = experiment.experiment_id
    run = client.search_runs([key], "tags.model != ''", max_results=1)[0].info.run_id
    model = parsed.experiment.removeprefix("default/").replace("/", ".")
    parsed.folder.mkdir(parents=True, exist_ok=True)
    with server(parsed.uri) as address, sync_playwright() as play:
        chrome = play.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chrome.new_page(viewport={"width": 1500, "height": 950})
        runs, mode = f"{address}/#/experiments/{key}/runs", "workflowType=machine_learning"
        charts = f"{runs}?{mode}&compareRunsMode=CHART&viewStateShareKey="
        figure = f"{runs}/{run}/artifacts/figures/01-confusion.png?{mode}"
        shots = {  # address, and a text that the page has when it is complete
            "experiments": (f"{address}/#/experiments?{mode}", parsed.experiment),
            "experiment": (f"{address}/#/experiments/{key}?{mode}", "matching run"),
            "runs": (f"{runs}?{mode}&viewStateShareKey=scores", "matching run"),
            "charts": (f"{charts}scores", "Learning curves"),
            "models": (f"{address}/#/experiments/{key}/models?{mode}", "Ready"),
            "figures": (figure, "01-confusion.png"),
        }
        if client.search_registered_models(f"name = '{model}'"):
            shots["champions"] = (f"{charts}champions", "champion/version")
            shots["model"] = (f"{address}/#/models/{model}?{mode}", "Version 1")
        page.goto(shots["experiments"][0], timeout=60_000)
        page.get_by_label("Close").last.click(timeout=60_000)  # MLflow's assistant; it stays closed
        for name, (where, text) in shots.items():
            photograph(page, where, text, parsed.folder / f"mlflow-{name}.png")
        chrome.close()


if __name__ == "__main__":
    main()
