"""Errors of the project end a flow or a command in one message, without a traceback.

Any other error is a bug and keeps its traceback.
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from prefect.states import Failed

from ostinato.errors import OstinatoError
from ostinato.tracking.client import masked

P = ParamSpec("P")
T = TypeVar("T")


def fails_with_message(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate the function of a flow or a task: an error of the project becomes its final state.

    Prefect would log the traceback of an exception. A caller of the flow still gets the error.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except OstinatoError as error:
            return cast(T, Failed(message=message_of(error), data=error))

    return run


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate the function of a command line: an error of the project is printed, and ends it."""

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except OstinatoError as error:
            sys.exit(message_of(error))

    return run


def message_of(error: OstinatoError) -> str:
    """The kind of an error and its text, without passwords."""
    return masked(f"{type(error).__name__}: {error}")
