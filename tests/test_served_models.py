"""Real models behind the server: results without a registry, and a champion that changes."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ostinato.serving.packaging import pack
from ostinato.study import Study
from tests.workspace import Workspace, served

RUNS = ("sketches-gru", "sketches-nearest")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, dvc_cache: Path) -> Workspace:
    """A checkout with two trained runs."""
    made = Workspace(tmp_path_factory.mktemp("workspace"), dvc_cache)
    made("dvc", "repro", *(f"evaluate@{run}" for run in RUNS))
    return made


@pytest.fixture(scope="module")
def requests(workspace: Workspace) -> list[Any]:
    """Drawings of the test split."""
    file = workspace.folder / "scratch" / "requests.json"
    command = ("-m", "stages.sample_requests", "params.yaml", RUNS[0], "30")
    workspace(sys.executable, *command, str(file.relative_to(workspace.folder)))
    return list(json.loads(file.read_text())["inputs"])


@pytest.fixture(scope="module")
def own(workspace: Workspace, requests: list[Any]) -> dict[str, list[Mapping[str, float]]]:
    """The answers of each result, from a process without a server."""
    code = f"""
import json, sys
from pathlib import Path
from ostinato import store
from ostinato.serving.packaging import pack
from ostinato.study import Study
from ostinato.training.imports import import_keras_quietly
import_keras_quietly()
from ostinato.sketches import serving
inputs = [serving.Input.model_validate(one) for one in json.load(sys.stdin)]
answers = {{}}
for run in {RUNS!r}:
    with store.private_folder() as folder:
        pack(Study.load(Path("params.yaml")), run, None, folder)
        service = serving.load(folder)
    answers[run] = [service.predict([one], {{}})[0].probabilities for one in inputs]
print(json.dumps(answers))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workspace.folder,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def same(found: Mapping[str, float], own: Mapping[str, float]) -> bool:
    return found.keys() == own.keys() and all(abs(found[k] - own[k]) < 1e-5 for k in own)


def test_a_result_is_served_without_a_registry(
    workspace: Workspace, requests: list[Any], own: Mapping[str, list[Mapping[str, float]]]
) -> None:
    with served(workspace, *(f"results/{run}" for run in RUNS), "--log-folder", "log") as http:
        assert [each["name"] for each in http.get("/v1/models").json()] == list(RUNS)
        for run in RUNS:
            sent = http.post(f"/v1/models/{run}:predict", json={"inputs": requests})
            found = [each["probabilities"] for each in sent.json()["responses"]]
            assert all(map(same, found, own[run]))
    assert not (workspace.folder / "mlflow.db").exists()
    assert list(workspace.folder.glob("log/requests/day=*/*.parquet"))


def register(workspace: Workspace) -> None:
    """Register both results as versions 1 and 2 of a model, the first with the alias."""
    code = f"""
from pathlib import Path
from mlflow import MlflowClient
from mlflow.models import Model
from ostinato import store
from ostinato.serving.packaging import pack
from ostinato.sketches.serving import SERVING
from ostinato.study import Study
from ostinato.tracking import client as mlflow_store, registry
with mlflow_store.connected() as client:
    client.create_registered_model("sketches", {{"domain": "sketches"}})
    for run in {RUNS!r}:
        with store.private_folder() as parts:
            pack(Study.load(Path("params.yaml")), run, SERVING.example, parts)
            folder = Path("scratch", run).resolve()
            registry.save("sketches", parts, folder, Model())
        tags = {{"run": run, "serving": registry.code_digest()}}
        client.create_model_version("sketches", folder.as_uri(), tags=tags)
    client.set_registered_model_alias("sketches", "champion", "1")
"""
    workspace(sys.executable, "-c", code)


def test_a_champion_is_replaced_while_clients_ask(
    workspace: Workspace, requests: list[Any], own: Mapping[str, list[Mapping[str, float]]]
) -> None:
    register(workspace)
    move = (
        "from ostinato.tracking import client\n"
        "with client.connected() as each:\n"
        "    each.set_registered_model_alias('sketches', 'champion', '2')"
    )
    seen: list[str] = []
    with served(workspace, "sketches", "--poll-s", "0.2") as http:
        end = time.monotonic() + 200
        while seen.count("2") < 50:
            assert time.monotonic() < end, http.get("/v1/models").text
            if len(seen) == 50:
                workspace(sys.executable, "-c", move)
            number = len(seen) % len(requests)
            sent = http.post("/v1/models/sketches:predict", json={"inputs": [requests[number]]})
            answer = sent.json()
            found = answer["responses"][0]["probabilities"]
            assert same(found, own[RUNS[int(answer["version"]) - 1]][number])
            seen.append(answer["version"])
        assert seen == sorted(seen)
        (model,) = http.get("/v1/models").json()
        assert model["lineage"] == {
            "run": RUNS[1], "alias": "champion", "code": "that of the server",
        }  # fmt: skip


def test_several_processes_serve_one_port_and_add_up_their_metrics(
    workspace: Workspace, requests: list[Any]
) -> None:
    with served(workspace, f"results/{RUNS[1]}", "--workers", "2") as http:
        path = f"/v1/models/{RUNS[1]}:predict"
        end = time.monotonic() + 100
        while "} 2.0" not in http.get("/metrics").text.partition("ostinato_model_version{")[2]:
            assert time.monotonic() < end, http.get("/metrics").text
            time.sleep(0.2)
        for _ in range(10):  # each on a connection of its own
            url = f"{http.base_url}{path}"
            assert httpx.post(url, json={"inputs": requests[:1]}, timeout=60).status_code == 200
        text = http.get("/metrics").text
        assert f'ostinato_requests_total{{route="{path}",status="200"}} 10.0' in text


def test_fused_lstms_have_the_outputs_of_the_loop() -> None:
    import keras

    from ostinato.layers import LSTM
    from ostinato.serving.fused import fused_lstm
    from ostinato.training.keras_model import KerasModel

    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, 3))
    x = keras.layers.Masking()(inputs)
    x = keras.layers.Bidirectional(LSTM(7, return_sequences=True))(x)
    x = LSTM(5, go_backwards=True)(x)
    model = keras.Model(inputs, x)
    values = np.random.default_rng(1).normal(size=(4, 9, 3)).astype(np.float32)
    for row, length in enumerate([9, 1, 4, 7]):
        values[row, length:] = 0
    loop, fused = KerasModel(model), KerasModel(model)
    expected = loop(values)
    with fused_lstm():
        found = fused(values)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(loop(values), expected)
    np.testing.assert_allclose(fused(values[1:3, :4]), expected[1:3], atol=1e-6)


def test_a_result_without_its_files_is_an_error_that_says_what_to_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ostinato.errors import DataError

    monkeypatch.chdir(workspace.folder)
    study = Study.load(Path("params.yaml"))
    model = workspace.folder / "results" / RUNS[1] / "model"
    model.rename(tmp_path / "model")
    try:
        with pytest.raises(DataError, match="dvc repro"):
            pack(study, RUNS[1], None, tmp_path / "package")
    finally:
        (tmp_path / "model").rename(model)
