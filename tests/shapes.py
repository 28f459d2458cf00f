"""Check the named shapes of signatures: ``pytest --jaxtyping-packages=ostinato,tests.checked``.

jaxtyping applies `checked` to every function and dataclass of the library. It checks the arguments
and results that are annotated with a jaxtyping type, and leaves all other types to mypy.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import AbstractArray


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with its array arguments and its array result checked for dtype and shape."""
    if not inspect.isfunction(function):
        return function
    hints = {name: hint for name, hint in function.__annotations__.items() if _is_array(hint)}
    if not hints:
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs).arguments
        for name, hint in hints.items():
            if name in bound:
                _check(function, name, bound[name], hint)
        result = function(*args, **kwargs)
        if "return" in hints:
            _check(function, "the result", result, hints["return"])
        return result

    return wrapper


def _is_array(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def _check(function: Callable[..., Any], name: str, value: Any, hint: Any) -> None:
    if not isinstance(value, hint):
        found = f"{getattr(value, 'dtype', type(value).__name__)} {getattr(value, 'shape', '')}"
        raise TypeError(f"{function.__qualname__}: {name} is {found}, not {hint.__name__}")
