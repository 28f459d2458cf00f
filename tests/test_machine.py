"""Devices and threads come from the environment, are recorded, and a missing GPU is an error."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine import devices
from ostinato import params, store
from ostinato.errors import DataError, ParamsError, SettingError
from ostinato.policies import RetryPolicy
from ostinato.study import studies
from ostinato.training import machine
from ostinato.training.machine import DeviceRecord, Machine, this_machine

ROOT = Path(__file__).parent.parent
CPU = DeviceRecord("CPU", (), 2, 1, 2, "float32", "2.21.0")
GPUS = DeviceRecord("GPU", ("NVIDIA A100", "NVIDIA A100"), 64, None, None, "float32", "2.21.0")

# Packages that stand for TensorFlow and Keras: they log as TensorFlow does on such a machine.
TENSORFLOW = """
import os, sys, types
say = lambda text: os.write(2, text.encode() + b"\\n")
say("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR")
say("I0000 00:00:1796030724.497356    8020 port.cc:153] oneDNN custom operations are on.")
def list_physical_devices(kind):
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        say("W0000 00:00:1796030728.278478    8020 gpu_device.cc:2342] Cannot dlopen some GPU "
            "libraries. Skipping registering GPU devices...")
    say("2026-11-30 02:00:00.123456: E cuda_dnn.cc:9] CUDNN_STATUS_NOT_INITIALIZED")
    return ["GPU:0"] * int(os.environ.get("FAKE_GPUS", "0"))
config = types.SimpleNamespace(list_physical_devices=list_physical_devices)
"""


@pytest.mark.parametrize(
    ("variables", "cores", "expected"),
    [
        ({}, 1, Machine(1, 1, 1)),
        ({}, 2, Machine(1, 1, 2)),
        ({}, 3, Machine(1, None, None)),
        ({}, 64, Machine(1, None, None)),
        ({"TF_NUM_INTRAOP_THREADS": "8"}, 64, Machine(1, 8, None)),
        ({"TF_NUM_INTEROP_THREADS": "4"}, 2, Machine(1, 1, 4)),
        ({"TF_NUM_INTEROP_THREADS": ""}, 2, Machine(1, 1, 2)),
        ({"OSTINATO_DEVICES": " 4 "}, 64, Machine(4, None, None)),
    ],
)
def test_threads_are_those_of_the_machine_unless_variables_set_them(
    variables: dict[str, str], cores: int, expected: Machine
) -> None:
    assert this_machine(variables, cores=cores) == expected


@pytest.mark.parametrize("name", [machine.DEVICES, machine.INTRA_OP, machine.INTER_OP])
@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5", "²", "all"])
def test_a_variable_that_is_no_number_is_an_error_that_names_it(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=rf"{name}: found '{text}'; expected an integer from 1"):
        this_machine({name: text}, cores=2)


def test_no_study_describes_the_computer() -> None:
    for path in studies(ROOT):
        assert set(params.load(ROOT / path)["runtime"]) == {"precision"}, path


def test_the_record_of_a_training_is_read_as_it_was_written(tmp_path: Path) -> None:
    for record in (CPU, GPUS, replace(CPU, ranks=2)):
        record.write(tmp_path / "training.json")
        assert DeviceRecord.read(tmp_path / "training.json") == record
        written = {**asdict(record), "names": list(record.names)}
        if record.ranks == 1:
            del written["ranks"]
        assert store.read_json(tmp_path / "training.json") == written
    assert replace(CPU, ranks=2).title() == "2 ranks of CPU (cores 2, intra_op 1, inter_op 2)"
    assert str(CPU) == "CPU (cores 2, intra_op 1, inter_op 2), float32, TensorFlow 2.21.0"
    assert GPUS.tags() == {"device": "2 GPU (NVIDIA A100, NVIDIA A100)", "tensorflow": "2.21.0"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"names": 3}', '{"names": [], "device": "CPU"}'])
def test_a_broken_record_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "training.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"training\.json: no record of a training"):
        DeviceRecord.read(file)


# A GPU that must be there


def import_keras(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Import the stand-ins of TensorFlow and Keras in a process of its own."""
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)
    (tmp_path / "keras.py").write_text("")
    code = (
        "import sys; sys.argv = ['stages/x.py']\n"
        "from ostinato.training.imports import import_keras_quietly\n"
        "from stages.entry import command\n"
        "command(import_keras_quietly)\n"
        "print('imported')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_required_gpu_that_is_missing_is_an_error_with_the_log_of_tensorflow(
    tmp_path: Path,
) -> None:
    done = import_keras(tmp_path, OSTINATO_GPU="required")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "TrainingError: TensorFlow sees no GPU, and this process needs one "
        "(OSTINATO_GPU=required). TensorFlow's log:",
        "  gpu_device.cc:2342] Cannot dlopen some GPU libraries. Skipping registering GPU "
        "devices...",
        "  cuda_dnn.cc:9] CUDNN_STATUS_NOT_INITIALIZED",
        "Install the driver and `pip install 'tensorflow[and-cuda]'`, or allow the CPU: set "
        "`gpu: preferred` for the stage in flows.stages of params.yaml",
    ]


@pytest.mark.parametrize(
    "variables", [{}, {"OSTINATO_GPU": ""}, {"OSTINATO_GPU": "required", "FAKE_GPUS": "1"}]
)
def test_a_gpu_that_is_there_or_not_required_is_no_error(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    done = import_keras(tmp_path, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")


def test_another_value_of_the_variable_is_an_error(tmp_path: Path) -> None:
    done = import_keras(tmp_path, OSTINATO_GPU="yes")
    assert done.stderr == (
        "SettingError: OSTINATO_GPU: found 'yes'; expected 'required', or no such variable\n"
    )


def policy(gpu: Any) -> RetryPolicy:
    block = {"retries": 0, "delay": 0.0, "timeout": None, "gpu": gpu}
    return params.bind(RetryPolicy, block)()


@pytest.mark.parametrize(
    ("gpu", "pool", "visible", "expected"),
    [
        (True, "gpu", "", {"OSTINATO_GPU": "required"}),
        (True, "gpu", "3", {"OSTINATO_GPU": "required", "CUDA_VISIBLE_DEVICES": "3"}),
        (True, "cpu", "", {}),
        (True, "cpu", "3", {"CUDA_VISIBLE_DEVICES": "3"}),
        (True, None, "", {}),
        ("preferred", "gpu", "", {}),
        ("preferred", "gpu", "3", {"CUDA_VISIBLE_DEVICES": "3"}),
        (False, "gpu", "3", {}),
    ],
)
def test_a_worker_of_the_pool_gpu_needs_a_gpu_unless_the_policy_allows_the_cpu(
    gpu: Any,
    pool: str | None,
    visible: str,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    @contextmanager
    def nothing(*_: Any, **__: Any) -> Any:
        yield

    class Client:
        def read_flow_run(self, key: Any) -> Any:
            return type("FlowRun", (), {"work_pool_name": pool})

    @contextmanager
    def client(**_: Any) -> Any:
        yield Client()

    monkeypatch.setattr(devices, "get_client", client)
    monkeypatch.setattr(devices, "concurrency", nothing)
    monkeypatch.setenv(devices.LOCK_FOLDER, str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    if pool:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    with devices.reserve_for(policy(gpu)) as env:
        assert env == expected


@pytest.mark.parametrize("gpu", ["never", 1, None, "true"])
def test_another_policy_is_an_error_with_the_values(gpu: Any) -> None:
    with pytest.raises(
        ParamsError, match=r"(?s)gpu\[bool\]: .*gpu\[.*: Input should be 'preferred'"
    ):
        policy(gpu)


def test_the_number_of_gpus_is_that_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefect_server: str
) -> None:
    monkeypatch.setattr(devices, "LIMIT", "none")  # other tests limit `gpu` on the same server
    monkeypatch.setenv(devices.LOCK_FOLDER, str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("OSTINATO_DEVICES", "2")
    with devices.reserve_for(policy(True)) as one, devices.reserve_for(policy(True)) as other:
        assert one == {"CUDA_VISIBLE_DEVICES": "4,5"}
        assert other == {"CUDA_VISIBLE_DEVICES": "6,7"}
