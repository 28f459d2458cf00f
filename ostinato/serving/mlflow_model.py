"""The script that a registered model consists of; MLflow runs it wherever the model is loaded.

It finds what its domain serves by the model's configuration: ostinato/<domain>/served.py, from
the code folder that the version carries.
"""

from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from ostinato import params

served = params.module(mlflow.models.ModelConfig().get("domain"), "served")
Input, Answer = served.Input, served.Answer


class Served(PythonModel):
    """Raw input in, answers out; all preprocessing is inside."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model once."""
        self.answer = served.load(Path(context.artifacts["about.json"]).parent)

    def predict(
        self,
        context: PythonModelContext,
        model_input: list[Input],  # type: ignore[valid-type]
        params: dict[str, Any] | None = None,
    ) -> list[Answer]:  # type: ignore[valid-type]
        """Answer each input; ``best`` of the params: how many classes are told, 0 for all."""
        try:
            told: list[Any] = self.answer(model_input, (params or {}).get("best", 0))
            return told
        except served.ServedError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


mlflow.models.set_model(Served())
