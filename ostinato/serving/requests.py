"""Requests to a registered model: their limits, and errors that name the field.

MLflow repeats a refused request in its error message, answers nested JSON with status 500, and
ignores an unknown option. Here each limit is checked before any work, and a message has at most
`MAX_VALUE_CHARS` characters of the request.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ostinato import params
from ostinato.errors import RequestError

MAX_BYTES = 100 << 20  # of a request to a server
MAX_DEPTH = 64  # of lists and objects within each other
MAX_OPTION = 2**31 - 1
MAX_VALUE_CHARS = 60  # of a value that a message repeats


def decode(body: str | bytes, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a request, and check its options.

    Args:
        body: JSON: bytes of a request to a server, text of a file (`mlflow models predict`).
        options: of the model, with their defaults.

    Raises:
        RequestError: the body is too long, no JSON object, nested too deeply, or an option is
            unknown or invalid.
    """
    if isinstance(body, bytes) and len(body) > MAX_BYTES:
        raise RequestError(
            f"the request has {len(body):,} bytes; at most {MAX_BYTES:,} are read: send fewer "
            "inputs in each request"
        )
    try:
        content = json.loads(body)
    except RecursionError:
        raise RequestError(_too_deep()) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is not JSON in UTF-8: {_short(str(error), 120)}") from None
    if not isinstance(content, dict):
        raise RequestError(f"expected an object with the key 'inputs', found {_short(content)}")
    if _depth(content) > MAX_DEPTH:
        raise RequestError(_too_deep())
    check_options(content.get("params"), options)
    return content


def check_options(given: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request, with the defaults of those that are not given.

    Args:
        given: by the request; None where there are none.
        options: of the model, with their defaults; each is a number from 0, or
            true or false.

    Raises:
        RequestError: names the option that is unknown or invalid.
    """
    if given is None:
        return dict(options)
    if not isinstance(given, Mapping):
        raise RequestError(f"params: expected an object, found {_short(given)}")
    for name, value in given.items():
        if name not in options:
            raise RequestError(f"params.{_short(name)}: unknown; {params.near(str(name), options)}")
        if isinstance(options[name], bool):
            if not isinstance(value, bool):
                raise RequestError(f"params.{name}: expected true or false, found {_short(value)}")
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value <= MAX_OPTION:
            raise RequestError(
                f"params.{name}: expected a whole number from 0 to {MAX_OPTION}, found "
                f"{_short(value)}"
            )
    return {**options, **given}


def read_inputs(inputs: Any, model: type[BaseModel]) -> list[Any]:
    """The inputs of a request as objects.

    Args:
        inputs: a list of objects, as JSON or of the class ``model``.
        model: the class of an input.

    Raises:
        RequestError: names the field that is wrong.
    """
    if hasattr(inputs, "to_dict"):  # a data frame
        inputs = inputs.to_dict(orient="records")
    if not isinstance(inputs, list):
        raise RequestError(f"inputs: expected a list, found {_short(inputs)}")
    try:
        return list(TypeAdapter(list[model]).validate_python(inputs))  # type: ignore[valid-type]
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False)
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise RequestError(
            f"inputs{place}: {first['msg']}, found {_short(first['input'])}{more}"
        ) from None


def check_finite(responses: Sequence[BaseModel]) -> None:
    """Check that the responses are JSON, which has no infinite number.

    Raises:
        RequestError: names the input whose response has such a number.
    """
    for number, response in enumerate(responses):
        if _is_finite(response):
            continue
        for place, value in _numbers(response.model_dump(), ""):
            if not math.isfinite(value):
                raise RequestError(
                    f"inputs[{number}]: its response has no finite {place.lstrip('.')}; the values "
                    "of the input are too large for the model"
                )


def _is_finite(value: Any) -> bool:
    """Whether no number is infinite or NaN; False also where a sum of large numbers is infinite."""
    if isinstance(value, BaseModel):
        value = vars(value).values()
    elif isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return not isinstance(value, float) or math.isfinite(value)
    try:
        return math.isfinite(sum(value))  # numbers alone: one loop in C
    except TypeError:
        return all(map(_is_finite, value))


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, place)


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested; one level more than `MAX_DEPTH` at most."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth


def _too_deep() -> str:
    return f"the request has lists or objects nested more than {MAX_DEPTH} deep"


def _short(value: Any, chars: int = MAX_VALUE_CHARS) -> str:
    """The beginning of a value, without writing all of a long one."""
    if isinstance(value, str):
        text = value if chars > MAX_VALUE_CHARS else repr(value[: chars + 1])
    elif isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} of {len(value):,}"
    elif isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    else:
        text = repr(value)
    return text if len(text) <= chars else f"{text[:chars]}..."
