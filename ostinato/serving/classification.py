"""Responses of classifiers, shared by all domains that classify."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from pydantic import BaseModel, Field

from ostinato.errors import RequestError
from ostinato.evaluation import classification


class Response(BaseModel):
    """The predicted class of an input, with probabilities."""

    label: str = Field(description="the most probable class")
    probability: float = Field(description="of `label`, 0 to 1")
    probabilities: dict[str, float] = Field(
        description="of the `top_k` most probable classes, the most probable first"
    )


def read_top_k(options: Mapping[str, Any]) -> int:
    """The option ``top_k`` of a request: number of ranked predictions to return; 0 returns all.

    Raises:
        RequestError: it is not such a number.
    """
    top_k = options.get("top_k", 0)
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 0:
        raise RequestError(
            f"top_k: found {top_k!r}; expected the number of classes to return, or 0 for all"
        )
    return int(top_k)


def response(
    probabilities: Float[np.ndarray, " class"], classes: Sequence[str], top_k: int
) -> Response:
    """The response to one input.

    Args:
        probabilities: of the classes.
        classes: their names.
        top_k: number of ranked predictions to return; 0 returns all.
    """
    order = np.argsort(-probabilities, kind="stable")[: top_k or None]
    names = [classes[i] for i in order.tolist()]
    ranked = dict(zip(names, probabilities[order].tolist(), strict=True))
    # The types are right by construction: validation takes longer than all of the above.
    return Response.model_construct(
        label=names[0], probability=ranked[names[0]], probabilities=ranked
    )


def from_responses(
    responses: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses as the arrays of an evaluation (`classification.Predictions.arrays`).

    Args:
        responses: as JSON, with the probabilities of all classes that the model knows. They may
            differ from ``classes``.
        truth: true class of each example.
        classes: in the order of the labels. A class that the model does not know has
            probability 0; if it is the true class, its rank is the last.
    """
    known = sorted(responses[0]["probabilities"])
    columns = {name: i for i, name in enumerate(known)}
    unknown = len(known)  # the last column, probability 0: any class that the model does not know
    p = np.zeros((len(responses), len(known) + 1))
    p[:, :-1] = [[one["probabilities"][name] for name in known] for one in responses]
    column = np.array([columns.get(name, unknown) for name in truth])
    index = {name: i for i, name in enumerate(classes)}
    return {
        "truth": np.array([index[name] for name in truth]),
        "rank": classification.ranks(p, column),
        "likelihood": classification.likelihoods(p, column),
        "probabilities": p[:, [columns.get(name, unknown) for name in classes]],
    }
