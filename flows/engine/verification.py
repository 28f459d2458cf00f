"""Predictions of a version in a fresh process, and their check against its evaluation."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Shaped
from prefect.logging import get_run_logger

from flows.engine import commands
from ostinato import params, store
from ostinato.errors import OstinatoError
from ostinato.task import Json
from ostinato.tracking import registry
from ostinato.tracking.registry import Examples

TOLERANCE = 0.005  # of the largest value: some arrays have half precision, and machines round
MAX_DIFFERENT_TEXTS = 0.1  # fraction: between equally likely texts, machines choose differently


class PromoteError(OstinatoError):
    """A version cannot be promoted; the aliases are unchanged."""


def verify(domain: str, version: Any) -> None:
    """Check in a fresh process that a version reproduces the predictions of its evaluation.

    Args:
        domain: of the model.
        version: in the registry.

    Raises:
        PromoteError: it does not; the version has the reason as its tag ``check``.
    """
    name, failure = f"version {version.version}", None
    try:
        with TemporaryDirectory() as temporary:
            with registry.connected() as client:
                folder = registry.download(client, version, Path(temporary))
            artifacts = folder / "artifacts"
            if store.digest(artifacts / "model") != version.tags.get("content"):
                raise PromoteError(f"{name}: the model is not the one that was registered")
            examples = Examples(**store.read_json(artifacts / "examples.json"))
            responses = predict(folder, examples.inputs, name)
        serving = params.module(domain, "serving")
        arrays = serving.from_responses(responses, examples.truth, examples.classes)
        deviation = check_deviation(name, arrays, examples)
        check = f"passed: {len(responses)} examples as in evaluation{deviation}"
    except PromoteError as error:
        failure, check = error, f"failed: {error}"
    with registry.connected() as client:
        client.set_model_version_tag(version.name, version.version, "check", check)
    if failure:
        raise failure


def check_deviation(
    name: str, arrays: Mapping[str, Shaped[np.ndarray, "example ..."]], examples: Examples
) -> str:
    """Compare predictions with those of the evaluation: numbers and texts of the same name.

    Args:
        name: of the version.
        arrays: its predictions.
        examples: with the predictions of the evaluation.

    Returns:
        The largest deviation of a number, in words.

    Raises:
        PromoteError: the predictions differ, or no array can be compared.
    """
    expected = {key: values for key, values in examples.arrays.items() if key in arrays}
    numbers, texts = [], []
    for key, values in expected.items():
        if arrays[key].dtype.kind == "f":
            then = np.array(values, np.float64)
            size = np.nanmax(np.abs(then), initial=0.0) or 1.0
            numbers.append(float(np.max(np.abs(arrays[key] - then)) / size))
        else:
            texts.append(float(np.mean(arrays[key] != np.array(values))))
    if not expected:
        raise PromoteError(f"{name}: its responses have no array of its evaluation")
    if numbers and not max(numbers) <= TOLERANCE:
        raise PromoteError(
            f"{name}: its predictions differ from its evaluation, by up to {max(numbers):.3g} of "
            "the largest value"
        )
    if texts and max(texts) > MAX_DIFFERENT_TEXTS:
        raise PromoteError(
            f"{name}: {max(texts):.0%} of its predictions differ from its evaluation"
        )
    return f", to {max(numbers):.2g}" if numbers else ""


def predict(folder: Path, inputs: Sequence[Json], model: str) -> list[dict[str, Json]]:
    """The responses of a registered model, in a process that has the model's code alone.

    Args:
        folder: of the downloaded version.
        inputs: of the requests.
        model: as the error names it.

    Raises:
        PromoteError: the process failed.
    """
    with store.temporary_folder() as temporary:
        requests, responses = temporary / "requests.json", temporary / "responses.json"
        store.write_text(requests, json.dumps({"inputs": inputs}))
        run_command(
            *(sys.executable, "-I", "-m", "mlflow", "models", "predict", "-m", str(folder)),
            *("-i", str(requests), "-o", str(responses), "-t", "json", "--env-manager", "local"),
            failure=f"the {model} does not respond",
            env={
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "CUDA_VISIBLE_DEVICES": "-1",  # a training may occupy the memory of the GPU
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        )
        return list(store.read_json(responses)["predictions"])


def run_command(
    *argv: str, failure: str | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command.

    Raises:
        PromoteError: it failed; the message begins with ``failure``.
    """
    output = commands.run(*argv, on_line=get_run_logger().debug, env=env)
    if output.code:
        last = "\n".join(output.lines[-5:])
        raise PromoteError(f"{failure or ' '.join(argv[1:4])} (exit code {output.code}): {last}")
