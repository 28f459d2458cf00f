"""The code of a registered model, which MLflow runs where the model is loaded.

The model's configuration names the domain; ``ostinato/<domain>/serving.py`` of the code that the
version carries answers the requests.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

with suppress(ModuleNotFoundError):
    import ostinato_code  # type: ignore[import-not-found]  # noqa: F401 - unpacks the version's code

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext, scoring_server

from ostinato import params
from ostinato.errors import RequestError
from ostinato.serving import requests

serving = params.module(mlflow.models.ModelConfig().get("domain"), "serving")
Input, Response = serving.Input, serving.Response


class RefusedRequest(MlflowException):
    """A request that cannot be answered: status 400.

    MLflow's server would put all of the request before the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, INVALID_PARAMETER_VALUE)
        self.reason = message

    @property
    def message(self) -> str:
        """The reason alone."""
        return self.reason

    @message.setter
    def message(self, longer: str) -> None:
        self.reason = getattr(self, "reason", longer)


class RegisteredModel(PythonModel):
    """Answers raw inputs; the preprocessing is that of the training data."""

    _skip_type_hint_validation = True  # of MLflow, whose error repeats the inputs

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model."""
        self.service = serving.load(Path(context.artifacts["about.json"]).parent)

    def predict(
        self,
        context: PythonModelContext,
        model_input: list[Input],  # type: ignore[valid-type]
        params: Mapping[str, Any] | None = None,
    ) -> list[Response]:  # type: ignore[valid-type]
        """Return a response for each input.

        Args:
            context: of MLflow.
            model_input: the inputs.
            params: options of the request, such as ``top_k``; see the domain's ``SERVING``.

        Raises:
            RefusedRequest: an input cannot be answered; a server replies with status 400.
        """
        try:
            options = requests.check_options(params, serving.SERVING.options)
            inputs = requests.read_inputs(model_input, Input)
            responses = list(self.service.predict(inputs, options))
            requests.check_finite(responses)
        except RequestError as error:
            raise RefusedRequest(str(error)) from None
        return responses

    predict._is_pyfunc = True  # type: ignore[attr-defined]  # else MLflow warns of no validation


def decode_json(body: str | bytes) -> dict[str, Any]:
    """Parse a request to MLflow's server, within the limits of `ostinato.serving.requests`."""
    try:
        return requests.decode(body, serving.SERVING.options)
    except RequestError as error:
        raise RefusedRequest(str(error)) from None


scoring_server._decode_json_input = decode_json  # MLflow has no setting for the limits
mlflow.models.set_model(RegisteredModel())
