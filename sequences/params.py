"""params.yaml as a table of function calls: load it, find the module, bind the arguments.

A value is written once, in params.yaml; its type, unit and bound once, in the signature of the
function that receives it. Positional arguments are data, keyword-only arguments are parameters.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

T = TypeVar("T")

PACKAGE = "sequences"


class ParamsError(ValueError):
    """A value of params.yaml that does not fit what receives it; the message says which and how."""


def near(name: str, names: Iterable[str]) -> str:
    """A hint with the names close to ``name``, or all of them where none is close."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"there is {', '.join(known)}" if known else "there is none"


def load(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read a params file as DVC does (YAML 1.2: ``1e-3`` is a number, ``no`` a string)."""
    path = Path(path)
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that holds it") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected a mapping at the top, found {type(values).__name__}")
    return values


def entry(values: Mapping[str, Any], *keys: str) -> Any:
    """The value under ``keys``, one level each, or an error that names the key and near misses."""
    value: Any = values
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth]) or "params.yaml"
        if not isinstance(value, Mapping):
            raise ParamsError(f"{where}: expected a mapping, found {type(value).__name__}")
        if key not in value:
            raise ParamsError(f"{where}: no entry {key!r}; {near(key, map(str, value))}")
        value = value[key]
    return value


def module(*path: str) -> ModuleType:
    """Import the module that a value of params.yaml names: ``module("sketches", "stacked")``.

    The path is the name: ``sketches/stacked`` is ``sequences/sketches/stacked.py``.

    Raises:
        ParamsError: there is no such file; names the near misses in its folder.
    """
    parts = [part for piece in path for part in piece.split("/")]
    folder = Path(__file__).parent
    for part in parts:
        found = {p.stem for p in folder.glob("[!_]*.py")}
        found |= {p.parent.name for p in folder.glob("[!_]*/__init__.py")}
        if part not in found:
            where = ".".join([PACKAGE, *folder.relative_to(Path(__file__).parent).parts])
            raise ParamsError(f"{where}: no module {part!r}; {near(part, found)}")
        folder /= part
    return importlib.import_module(".".join([PACKAGE, *parts]))


def function(module: ModuleType, name: str) -> Callable[..., Any]:
    """The public function ``name`` of a module, or an error that names the near misses."""
    known = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
    }
    if name not in known:
        raise ParamsError(f"{module.__name__}: no function {name!r}; {near(name, known)}")
    return known[name]


def bind(function: Callable[..., T], block: Mapping[str, Any] | None) -> Callable[..., T]:
    """``function`` with its keyword-only arguments taken from ``block``, checked strictly.

    The schema is the signature: every keyword-only argument must stand in the block (unless the
    signature gives it a default), nothing else may, and each value must have the annotated type
    within its bounds; an int serves as a float, nothing else is converted.

    Raises:
        ParamsError: lists every key that is unknown, missing, of a wrong type or out of bounds,
            with the module and the function.
    """
    name = f"{function.__module__}.{function.__name__}"
    values = {} if block is None else block
    if not isinstance(values, Mapping):
        raise ParamsError(f"{name}: expected a mapping, found {type(values).__name__} {values!r}")
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            if argument.name not in hints:
                raise TypeError(f"{name}: the keyword-only argument {argument.name!r} has no type")
            default = ... if argument.default is inspect.Parameter.empty else argument.default
            # An alias keeps names such as `copy` from clashing with the schema class's own.
            fields[f"p_{argument.name}"] = (hints[argument.name], default)
    schema = create_model(
        function.__name__,
        __config__=ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=False),
        **fields,
    )
    try:
        bound = schema.model_validate({f"p_{key}": value for key, value in values.items()})
    except ValidationError as error:
        known = [field.removeprefix("p_") for field in fields]
        problems = [_problem(e, known) for e in error.errors()]
        raise ParamsError("\n  ".join([f"{name}: {len(problems)} wrong", *problems])) from None
    return partial(function, **{f.removeprefix("p_"): getattr(bound, f) for f in fields})


def _problem(error: Any, known: list[str]) -> str:
    key = str(error["loc"][0]).removeprefix("p_")
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown; {near(key, known)}"
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return f"{key}: missing"
    inner = "".join(f"[{part}]" for part in error["loc"][1:])
    return f"{key}{inner}: {error['msg']}, found {error['input']!r}"
