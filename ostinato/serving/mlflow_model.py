"""The code of a registered model, which MLflow runs where the model is loaded.

The model's configuration names the domain; ``ostinato/<domain>/serving.py`` of the code folder that
the version carries answers the requests.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from ostinato import params
from ostinato.errors import RequestError

serving = params.module(mlflow.models.ModelConfig().get("domain"), "serving")
Input, Response = serving.Input, serving.Response


class RegisteredModel(PythonModel):
    """Answers raw inputs; the preprocessing is that of the training data."""

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
            MlflowException: an input cannot be answered; a server replies with status 400.
        """
        options = {**serving.SERVING.options, **(params or {})}
        try:
            return list(self.service.predict(model_input, options))
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


mlflow.models.set_model(RegisteredModel())
