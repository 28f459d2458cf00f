"""A generator through the real stages: killed and resumed, promoted, and served."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ostinato import params, store
from tests.workspace import Values, Workspace, served

pytestmark = pytest.mark.slow
NETWORK, BASELINE = "drawn", "copied"


def study(values: Values) -> None:
    """The recipe `generation` with small data and models; its other parameters are unchanged."""
    recipe = params.load(Path(__file__).parents[1] / "recipes/generation/params.yaml")
    data = recipe["data"]["generation"]
    source = {"categories": ["circle", "fish", "house"], "per_class": 60}
    data["fetch"] = {"source": "doodles", "doodles": source}
    data["prepare"] |= {
        "classifier_filters": [8, 8, 8],
        "classifier_units": 8,
        "classifier_epochs": 1,
    }
    evaluation = recipe["evaluation"]["generation"] | {
        "resamples": 100,
        "temperatures": [0.1, 0.5],
        "samples_per_class": 2,
        "max_examples": 12,
        "completion_fractions": [0.5],
        "num_plots": 2,
        "timed_requests": 2,
    }
    network = recipe["runs"]["generation-sketch-rnn"]
    network["build"] |= {"encoder_units": 8, "decoder_units": 16, "latent_size": 2, "mixtures": 2}
    network["fit"] |= {"epochs": 4, "batch_size": 8}
    values["data"] = {"generation": data}
    values["evaluation"] = {"generation": evaluation}
    gate = {"metric": "reconstruction_loss", "at_most": 10.0, "margin": 0.0, "max_examples": 12}
    values["gates"] = {"generation": values["gates"]["sketches"] | gate}
    del values["gates"]["generation"]["at_least"]
    values["runs"] = {NETWORK: network, BASELINE: recipe["runs"]["generation-nearest"]}


def killed_after_an_epoch(workspace: Workspace) -> None:
    """Train the network, and kill the process as soon as it has a checkpoint."""
    command = [sys.executable, "-m", "stages.train", "params.yaml", f"train@{NETWORK}"]
    process = subprocess.Popen(
        command, cwd=workspace.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 200
        while not list(workspace.folder.glob(f"scratch/train/{NETWORK}/*/epoch.npz")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


REQUESTS: list[Values] = [
    {"class": "fish", "count": 2, "seed": 1},
    {"class": "house", "strokes": [[[10, 60], [10, 12]]], "seed": 2, "temperature": 0.3},
    {
        "class": "circle",
        "strokes": [[[0, 60, 60, 0], [0, 0, 60, 60]]],
        "other": [[[0, 90], [0, 30]], [[20, 40], [80, 90]]],
        "count": 3,
        "seed": 3,
    },
]
ALONE = f"""
import json, sys
from pathlib import Path
from ostinato import store
from ostinato.serving.packaging import pack
from ostinato.study import Study
from ostinato.training.imports import import_keras_quietly
import_keras_quietly()
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
from ostinato.generation import serving
inputs = [serving.Input.model_validate(one) for one in json.load(sys.stdin)]
with store.private_folder() as folder:
    pack(Study.load(Path("params.yaml")), {NETWORK!r}, None, folder)
    service = serving.load(folder)
print(json.dumps([service.predict([one], {{}})[0].model_dump() for one in inputs]))
"""


def test_a_generator_is_killed_resumed_promoted_and_served(
    tmp_path: Path, dvc_cache: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    workspace = Workspace(tmp_path / "checkout", dvc_cache)
    workspace.edit(study)
    workspace("dvc", "repro", "-q", "prepare@generation")
    killed_after_an_epoch(workspace)
    workspace("dvc", "repro", "-q")  # resumes
    model = workspace.folder / "results" / NETWORK / "model"
    resumed = {file.name: store.digest(file) for file in model.iterdir()}

    workspace(sys.executable, "-m", "flows.promote")
    code = """
import json
from mlflow import MlflowClient
version = MlflowClient("sqlite:///mlflow.db").get_model_version_by_alias("generation", "champion")
print(json.dumps(dict(version.tags)))
"""
    tags = json.loads(workspace(sys.executable, "-c", code).splitlines()[-1])
    assert tags["run"] == NETWORK  # the baseline has no loss
    assert tags["check"].startswith("passed: ")

    alone = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=workspace.folder,
        input=json.dumps(REQUESTS),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(alone.stdout.splitlines()[-1])
    with served(workspace, "generation@champion", f"results/{BASELINE}") as http:
        sent = http.post("/v1/models/generation:predict", json={"inputs": REQUESTS})
        assert drawings(sent.json()["responses"]) == drawings(expected)
        one = {"inputs": [REQUESTS[0]]}
        (copied,) = http.post(f"/v1/models/{BASELINE}:predict", json=one).json()["responses"]
        assert len(copied["drawings"]) == 2
        refused = http.post(f"/v1/models/{BASELINE}:predict", json={"inputs": [REQUESTS[2]]})
        assert refused.status_code == 422
        assert "other" in refused.text

    workspace(sys.executable, "-m", "stages.train", "params.yaml", f"train@{NETWORK}")
    assert {file.name: store.digest(file) for file in model.iterdir()} == resumed
    assert len(resumed) > 1


def drawings(responses: list[Any]) -> list[Any]:
    return [[each["strokes"] for each in response["drawings"]] for response in responses]
