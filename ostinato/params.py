"""params.yaml as a table of function calls: load it, find the module, bind the arguments.

A value is written once, in params.yaml; its type, unit and bound once, in the signature of the
function that receives it. Positional arguments are data, keyword-only arguments are parameters.
The check of the whole file is in ostinato/study.py.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import ostinato
from ostinato.errors import ParamsError

T = TypeVar("T")
Block = Mapping[str, Any]  # of params.yaml: the arguments of a function

NAMED = ("data", "runs", "ensembles", "gates")  # the tables of params.yaml whose keys are names
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"

# Keys of version 0.1 and their present names. A key with several present names has one in each
# function. CHANGELOG.md lists the block of each.
OLD_NAMES: Mapping[str, tuple[str, ...]] = {
    "at_once": ("max_concurrency",),
    "averaged": ("average_checkpoints",),
    "bands": ("length_bins",),
    "batch": ("batch_size",),
    "blank": ("word_dropout",),
    "clip": ("clip_norm",),
    "coverage": ("character_coverage", "coverage_penalty"),
    "decay": ("weight_decay",),
    "forcing": ("scheduled_sampling",),
    "foreign": ("language_margin",),
    "frozen": ("frozen_epochs",),
    "frozen_rate": ("frozen_learning_rate",),
    "gallery": ("num_plots",),
    "head": ("head_units",),
    "heads": ("num_heads",),
    "joint": ("shared_vocabulary",),
    "kernel": ("kernel_size",),
    "kernels": ("kernel_sizes",),
    "known": ("future_covariates", "max_counted_pairs"),
    "ks": ("ks_threshold",),
    "largest": ("max_pixels",),
    "layers": ("num_layers",),
    "length": ("length_penalty",),
    "level": ("significance",),
    "limit": ("max_examples",),
    "listed": ("num_examples",),
    "longer": ("max_length_ratio",),
    "longest": ("max_length",),
    "machine": ("runtime",),
    "ngram": ("no_repeat_ngram_size",),
    "past": ("past_covariates",),
    "pieces": ("tokenizer",),
    "points": ("max_points",),
    "pool": ("pooling",),
    "psi": ("psi_threshold",),
    "rare": ("rare_word_count",),
    "rate": ("learning_rate", "frame_rate"),
    "ratio": ("max_length_ratio",),
    "recent": ("calibration_window",),
    "sample": ("tokenizer_sample", "frame_sampling"),
    "sampled": ("scheduled_sampling",),
    "sampling": ("scheduled_sampling_epochs",),
    "scores": ("evaluation", "attention_score"),
    "seen": ("prefix_frames",),
    "shard": ("shard_size",),
    "shares": ("prefix_fractions",),
    "shown": ("num_plots",),
    "smoothing": ("label_smoothing", "prior_votes"),
    "static": ("static_covariates",),
    "step": ("stride",),
    "timings": ("timed_requests",),
    "vocabulary": ("vocab_size",),
    "warmup": ("warmup_fraction",),
    "wide": ("feedforward_units",),
    "width": ("beam_size",),
}
# Keys that describe the computer, and their present environment variables
# (ostinato/training/machine.py).
NOW_VARIABLES: Mapping[str, str] = {
    "devices": "OSTINATO_DEVICES",
    "intra_op": "TF_NUM_INTRAOP_THREADS",
    "inter_op": "TF_NUM_INTEROP_THREADS",
}
OLD_MODELS: Mapping[str, str] = {"stacked": "rnn", "cnn3d": "c3d", "factorised3d": "r2plus1d"}


def near(name: str, names: Iterable[str]) -> str:
    """A hint with the names close to ``name``, or all of them where none is close."""
    available = sorted(names)
    close = difflib.get_close_matches(name, available, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"there is {', '.join(available)}" if available else "there is none"


def present_name(old: str, names: Iterable[str]) -> str | None:
    """The present name among ``names`` of a key that was renamed; None where there is none."""
    available = set(names)
    return next((name for name in OLD_NAMES.get(old, ()) if name in available), None)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file as DVC does (YAML 1.2: ``1e-3`` is a number, ``no`` a string).

    Raises:
        ParamsError: there is no such file, or it is not a YAML mapping in UTF-8.
    """
    path = Path(path)
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that holds it") from None
    except (YAMLError, ValueError) as error:  # ruamel raises ValueError for 2014-02-31
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected a mapping at the top, found {type(values).__name__}")
    return values


def load(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read a params file and check the names in it, which become paths and arguments of commands.

    Raises:
        ParamsError: the file cannot be read, or a name in it is not valid (`check_name`).
    """
    values = read_yaml(path)
    problems = []
    for table in NAMED:
        entries = values.get(table)
        for name in entries if isinstance(entries, Mapping) else ():
            try:
                check_name(name)
                if (table, name) == ("data", "raw"):
                    raise ParamsError("'raw' is the folder of all raw data; choose another name")
            except ParamsError as error:
                problems.append(f"{table}: {error}")
    if problems:
        raise ParamsError("\n  ".join([f"{path}: {len(problems)} wrong", *problems]))
    return values


def check_name(name: object) -> str:
    """Return ``name`` if it can name a data set, run, ensemble, gate or study.

    A name is part of paths, commands and URLs: a letter or digit, then letters, digits, ``_`` and
    ``-``, at most 64 characters, all ASCII.

    Raises:
        ParamsError: it is not such a name.
    """
    if not isinstance(name, str):
        raise ParamsError(f"{name!r} is not text, as a name must be; put it in quotes")
    if not re.fullmatch(NAME, name):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise ParamsError(
            f"{shown!r} is not a valid name: use 1 to 64 of the letters A to Z and a to z, digits, "
            "'_' and '-', with a letter or digit first"
        )
    return name


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
    """Import the module that a value of params.yaml names.

    The path is the name: ``module("sketches", "evaluation")`` is ostinato/sketches/evaluation.py.

    Raises:
        ParamsError: there is no such file; names the near misses in its folder.
    """
    parents: list[Path] = [Path(folder) for folder in ostinato.__path__]
    for depth, part in enumerate(path):
        available = {p.stem for folder in parents for p in folder.glob("[!_]*.py")}
        available |= {p.parent.name for folder in parents for p in folder.glob("[!_]*/__init__.py")}
        if part not in available:
            where = ".".join([ostinato.__name__, *path[:depth]])
            present = OLD_MODELS.get(part) if path[:depth][-1:] == ("models",) else None
            hint = f"it is called {present} now" if present in available else near(part, available)
            raise ParamsError(f"{where}: no module {part!r}; {hint}")
        parents = [folder / part for folder in parents]
    return importlib.import_module(".".join([ostinato.__name__, *path]))


def model_module(domain: str, name: str) -> ModuleType:
    """Import a model's module: ("sketches", "rnn") is ostinato/sketches/models/rnn.py.

    Raises:
        ParamsError: there is no such file; names the near misses in its folder.
    """
    return module(domain, "models", name)


def training_code(domain: str, name: str) -> list[Path]:
    """The files of code that determine the result of a model's training."""
    library = Path(__file__).parent
    dataset = Path(str(module(domain, "dataset").__file__)).parent
    reservoirs = library / "memory" / "formats"  # of memory, and of a model of forecasting
    folders = {library / "training", dataset, dataset.parent / "formats", reservoirs}
    return [
        library / "layers.py",
        library / "data" / "batches.py",
        library / "data" / "tfrecords.py",
        *(file for folder in sorted(folders) for file in sorted(folder.rglob("*.py"))),
        dataset.parent / "layers.py",
        Path(str(model_module(domain, name).__file__)),
    ]


def preparing_code(domain: str) -> list[Path]:
    """The files of code that determine what a domain's `prepare` writes, besides the libraries."""
    dataset = Path(str(module(domain, "dataset").__file__)).parent
    folders = (dataset, dataset.parent / "formats")
    return [file for folder in folders for file in sorted(folder.rglob("*.py"))]


def domains() -> list[str]:
    """The names of the domains: the folders of this package that have sources of data."""
    folders = (Path(folder) for folder in ostinato.__path__)
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/sources"))


def function(module: ModuleType, name: str) -> Callable[..., Any]:
    """The public function ``name`` of a module, or an error that names the near misses."""
    available = functions(module)
    if name not in available:
        raise ParamsError(f"{module.__name__}: no function {name!r}; {near(name, available)}")
    return available[name]


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions of a module by name: those of ``__all__``, else all that it defines."""
    exported = getattr(module, "__all__", None)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and (
            name in exported
            if exported is not None
            else value.__module__ == module.__name__ and not name.startswith("_")
        )
    }


class Problem(NamedTuple):
    """A key of a block that does not fit the signature that receives the block."""

    key: str
    kind: Literal["unknown", "renamed", "missing", "invalid"]
    message: str


def unknown_key(key: str, available: Iterable[str], *, within: Iterable[str] = ()) -> Problem:
    """The problem of a key that a block may not have, with its present name or the near misses.

    Args:
        key: the unknown key.
        available: the keys that the block may have.
        within: the keys of the blocks around it, from the outermost.
    """
    available, dotted = list(available), ".".join([*within, key])
    if present := present_name(key, available):
        return Problem(dotted, "renamed", f"unknown; it is called {present} now")
    if key in NOW_VARIABLES:
        message = (
            "no parameter any more, as it describes the computer; delete it. To set it, use the "
            f"environment variable {NOW_VARIABLES[key]}"
        )
        return Problem(dotted, "renamed", message)
    return Problem(dotted, "unknown", f"unknown; {near(key, available)}")


def without_renamed(problems: Iterable[Problem]) -> list[Problem]:
    """Leave out each missing key of which the block has the old name: the two are one problem."""
    problems = list(problems)
    old = (problem.key for problem in problems if problem.kind == "renamed")
    renamed = {name for key in old for name in OLD_NAMES.get(key, ())}
    return [p for p in problems if p.kind != "missing" or p.key not in renamed]


def bind(function: Callable[..., T], block: Mapping[str, Any] | None) -> Callable[..., T]:
    """``function`` with its keyword-only arguments taken from ``block``, checked strictly.

    The schema is the signature: every keyword-only argument must stand in the block (unless the
    signature gives it a default), nothing else may, and each value must have the annotated type
    within its bounds; an int serves as a float, nothing else is converted.

    Raises:
        ParamsError: lists every key that is unknown, missing, of a wrong type or out of bounds,
            with the module and the function.
    """
    values, problems = validate(function, block)
    if problems:
        name = f"{function.__module__}.{function.__name__}"
        lines = [f"{problem.key}: {problem.message}" for problem in problems]
        raise ParamsError("\n  ".join([f"{name}: {len(problems)} wrong", *lines]))
    return partial(function, **values)


def validate(
    function: Callable[..., Any], block: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[Problem]]:
    """Check a block against a signature, as `bind` does.

    Returns:
        The arguments by name, and the problems of the block; one of the two is empty.

    Raises:
        ParamsError: the block is no mapping.
    """
    name = f"{function.__module__}.{function.__name__}"
    values = {} if block is None else block
    if not isinstance(values, Mapping):
        raise ParamsError(f"{name}: expected a mapping, found {type(values).__name__} {values!r}")
    # An alias keeps names such as `copy` from clashing with the schema class's own.
    fields: dict[str, Any] = {
        f"p_{argument}": declared for argument, declared in arguments(function).items()
    }
    schema = create_model(
        function.__name__,
        __config__=ConfigDict(
            strict=True, extra="forbid", arbitrary_types_allowed=False, allow_inf_nan=False
        ),
        **fields,
    )
    try:
        bound = schema.model_validate({f"p_{key}": value for key, value in values.items()})
    except ValidationError as error:
        types = {field.removeprefix("p_"): declared for field, (declared, _) in fields.items()}
        return {}, without_renamed(_problem(e, types) for e in error.errors())
    return {field.removeprefix("p_"): getattr(bound, field) for field in fields}, []


def arguments(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The keyword-only arguments of a function: name -> (type, default or ``...`` for none)."""
    hints = get_type_hints(function, include_extras=True)
    found: dict[str, tuple[Any, Any]] = {}
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            if argument.name not in hints:
                name = f"{function.__module__}.{function.__name__}"
                raise TypeError(f"{name}: the keyword-only argument {argument.name!r} has no type")
            default = ... if argument.default is inspect.Parameter.empty else argument.default
            found[argument.name] = (hints[argument.name], default)
    return found


def _problem(error: Any, types: Mapping[str, Any]) -> Problem:
    key = str(error["loc"][0]).removeprefix("p_")
    if error["type"] == "extra_forbidden":
        *outer, name = (str(part).removeprefix("p_") for part in error["loc"])
        available = getattr(types[key], "__annotations__", {}) if outer else types
        return unknown_key(name, available, within=outer)
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return Problem(key, "missing", "missing")
    inner = "".join(f"[{part}]" for part in error["loc"][1:])
    if error["type"] == "value_error":  # a validator of the project's own, whose message is whole
        return Problem(f"{key}{inner}", "invalid", str(error["ctx"]["error"]))
    return Problem(f"{key}{inner}", "invalid", f"{error['msg']}, found {error['input']!r}")


def fetch_problems(sources: ModuleType, block: Mapping[str, Any]) -> list[Problem]:
    """Check a fetch block: ``source``, and the arguments of any source under the source's name.

    Args:
        sources: the module with a function for each source.
        block: the block; also the sources that are not chosen are checked.

    Returns:
        What is wrong, with dotted keys: ``doodles.per_class``.
    """
    available = functions(sources)
    problems = []
    source = block.get("source")
    if "source" not in block:
        problems.append(Problem("source", "missing", f"missing; {near('', available)}"))
    elif not isinstance(source, str) or source not in available:
        hint = near(str(source), available)
        problems.append(Problem("source", "invalid", f"no source {source!r}; {hint}"))
    elif source not in block:
        problems.append(Problem(source, "missing", "missing: the chosen source has no block"))
    for name, arguments in block.items():
        if name == "source":
            continue
        if name not in available:
            hint = near(str(name), ["source", *available])
            problems.append(Problem(str(name), "unknown", f"unknown; {hint}"))
        elif not isinstance(arguments, Mapping):
            message = f"expected a mapping, found {type(arguments).__name__} {arguments!r}"
            problems.append(Problem(name, "invalid", message))
        else:
            _, found = validate(available[name], arguments)
            problems += [p._replace(key=f"{name}.{p.key}") for p in found]
    return problems
