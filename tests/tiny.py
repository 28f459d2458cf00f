"""Real runs made tiny: the entries of params.yaml, shrunk by the types of their parameters."""

import typing
from collections.abc import Callable
from typing import Any

from ostinato import params
from ostinato.units import Shrunk


def shrunk(function: Callable[..., Any], block: dict[str, Any]) -> dict[str, Any]:
    """``block`` with each value no larger than its type's ``Shrunk`` value."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {key: _least(value, hints.get(key)) for key, value in block.items()}


def shrunk_run(run: dict[str, Any]) -> dict[str, Any]:
    """A run's entry with its ``build`` and ``fit`` shrunk."""
    model = params.model_module(run["domain"], run["model"])
    return {
        **run,
        "build": shrunk(model.build, run["build"]),
        "fit": shrunk(model.fit, run["fit"]),
    }


def _least(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_args(hint) else None
        return [_least(item, inner) for item in value]
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Shrunk):
            return min(value, mark.to)
    return value
