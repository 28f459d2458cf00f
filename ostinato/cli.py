"""The command line: ``python -m ostinato COMMAND``, or ``ostinato COMMAND`` if installed.

``describe`` reads the signatures that receive the values of a params.yaml, so its types, bounds
and texts are those by which the values are checked. It imports a model's module, and with it
TensorFlow, only to describe that model.
"""

import argparse
import ast
import inspect
import itertools
import json
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

from ostinato import params, units
from ostinato.errors import OstinatoError, ParamsError
from ostinato.serving.settings import add_arguments, add_predict_arguments, from_arguments
from ostinato.study import Study, check_tables, studies
from ostinato.tables import Table, show
from ostinato.task import Metric, Placement
from ostinato.training.imports import import_keras_quietly

MAX_WIDTH = 100  # columns of text
DEFAULT_STUDY = Path("params.yaml")
KINDS = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false"}
HEADINGS = ("Args:", "Returns:", "Raises:", "Yields:", "Example:", "Examples:", "Note:")


Part = str | Table
Describer = Callable[[], Iterator[Part]]


@dataclass(frozen=True)
class Target:
    """Something that `describe` can show: a function that receives a block of params.yaml.

    Args:
        name: of the function in the output, such as "sketches/quickdraw" or "build".
        function: whose keyword-only arguments are shown.
        blocks: of the study, with their values for them, by dotted key.
    """

    name: str
    function: Callable[..., Any]
    blocks: Mapping[str, params.Block]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 2 for an unknown name or a params.yaml with an error."""
    parser = argparse.ArgumentParser(
        prog="ostinato",
        description="Describe Ostinato's parts, list the runs of its studies, check this computer, "
        "serve models, and predict with them.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    describe_parser = commands.add_parser(
        "describe", help="print domains, sources, models and runs with their parameters"
    )
    describe_parser.add_argument(
        "name",
        nargs="?",
        help="a domain, a source or model (as NAME or DOMAIN/NAME), a data set, a run or an "
        "ensemble; without a name, an overview",
    )
    list_parser = commands.add_parser(
        "list", help="print the runs of all studies with their scores"
    )
    for each in (describe_parser, list_parser):
        each.add_argument(
            "--study", type=Path, help="a params.yaml, such as recipes/m4/params.yaml"
        )
    doctor_parser = commands.add_parser(
        "doctor", help="check this computer and checkout, and say how to fix each fault"
    )
    doctor_parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    serve_parser = commands.add_parser(
        "serve", help="serve registered models or results over HTTP (docs/serving.md)"
    )
    add_arguments(serve_parser)
    add_predict_arguments(
        commands.add_parser("predict", help="predict the inputs of files (docs/prediction.md)")
    )
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "serve":
            from ostinato.serving.server import serve

            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
            return serve(from_arguments(parsed))
        if parsed.command == "doctor":
            from ostinato import doctor

            return doctor.report(doctor.examine(doctor.Checkout()), as_json=parsed.json)
        if parsed.command == "predict":
            from ostinato.serving.prediction.command import run

            return run(parsed)
        if parsed.command == "list":
            show(list_runs([parsed.study] if parsed.study else studies()))
        else:
            show(describe(parsed.name, load_study(parsed.study)))
    except OstinatoError as error:
        print(f"ostinato: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "ostinato":
            raise
        print(
            f"ostinato: the package {error.name!r} is not installed; install the extra that has "
            "it, or all of them: pip install 'ostinato[all]'",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader has closed the pipe: `ostinato list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def load_study(path: Path | None) -> Study | None:
    """Load a study; without a path the default study, or None where there is no params.yaml."""
    if path is None and not DEFAULT_STUDY.exists():
        return None
    return checked(path or DEFAULT_STUDY)


def checked(path: Path) -> Study:
    """Load a study whose tables have all keys that are shown here.

    Raises:
        ParamsError: it is no study, or lists all that is wrong in its tables.
    """
    study = Study.load(path)
    check_tables(study)
    return study


# describe


def describe(name: str | None, study: Study | None) -> Iterator[Part]:
    """The lines and tables that describe a name, or all names.

    Args:
        name: of a domain, source, model, data set, run or ensemble; None for an overview.
        study: whose values, data sets and runs are shown; None for none.

    Raises:
        ParamsError: no such name; names the near misses.
    """
    if name is None:
        yield from _overview(study)
        return
    found = [describer for key, describer in _index(study) if name in (key, key.split("/")[-1])]
    if not found:
        where = study.path if study else "no study"
        hint = params.near(name, {key for key, _ in _index(study)} | _short_names(study))
        raise ParamsError(
            f"no domain, source or model {name!r}, and no data set or run of {where}; {hint}"
        )
    for number, describer in enumerate(found):
        if number:
            yield ""
        yield from describer()


def _index(study: Study | None) -> Iterator[tuple[str, Describer]]:
    """Every name that can be described, sources and models as DOMAIN/NAME, with its describer."""
    for domain in params.domains():
        yield domain, partial(_describe_domain, domain, study)
        for name in _source_names(domain):
            yield f"{domain}/{name}", partial(_describe_source, domain, name, study)
        for name in _model_files(domain):
            yield f"{domain}/{name}", partial(_describe_model, domain, name, study)
    if study:
        for name in study.entry("data"):
            if name not in params.domains():  # the description of a domain has its data sets
                yield name, partial(_describe_data, name, study)
        for name in (*study.entry("runs"), *study.entry("ensembles")):
            yield name, partial(_describe_run, name, study)


def _short_names(study: Study | None) -> set[str]:
    return {key.split("/")[-1] for key, _ in _index(study)}


def _overview(study: Study | None) -> Iterator[Part]:
    for domain in params.domains():
        yield domain
        yield from _row("sources", sorted(_source_names(domain)))
        yield from _row("models", sorted(_model_files(domain)))
        if study:
            yield from _row("data sets", _of_domain(study, "data", domain))
            yield from _row("runs", _of_domain(study, "runs", domain))
            yield from _row("ensembles", _of_domain(study, "ensembles", domain))
        yield ""
    where = f"Data sets, runs and values are those of {study.path}. " if study else ""
    yield from _paragraph(
        f"{where}`describe NAME` prints each parameter of a domain, source, model, data set or "
        "run; where several domains have a name, `describe DOMAIN/NAME` prints one of them. "
        "`list` prints the scores of all studies."
    )


def _of_domain(study: Study, table: str, domain: str) -> list[str]:
    return [name for name in study.entry(table) if study.entry(table, name, "domain") == domain]


def _row(title: str, names: Iterable[str]) -> Iterator[str]:
    if text := ", ".join(names):
        start = f"  {title:11}"
        yield from textwrap.wrap(
            start + text,
            _width(),
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _describe_domain(domain: str, study: Study | None) -> Iterator[Part]:
    yield f"{domain}: a domain (ostinato/{domain})"
    names = _source_names(domain)
    for name in names:
        yield ""
        yield from _describe_source(domain, name, study)
    yield ""
    dataset = params.module(domain, "dataset")
    yield from _function(
        Target(f"{domain}: prepare", params.function(dataset, "prepare"), _prepare(study, domain))
    )
    yield ""
    evaluation = params.module(domain, "evaluation")
    blocks = {}
    if study and domain in study.entry("evaluation"):
        blocks[f"evaluation.{domain}"] = study.entry("evaluation", domain)
    yield from _function(
        Target(f"{domain}: evaluate", params.function(evaluation, "evaluate"), blocks)
    )
    yield ""
    yield f"{domain}: models (`describe {domain}/MODEL` prints the parameters of one)"
    for name, file in _model_files(domain).items():
        yield ""
        yield f"  {name}"
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        yield from _paragraph(" ".join(text.split("\n\n")[0].split()), 4)


def _describe_source(domain: str, name: str, study: Study | None) -> Iterator[Part]:
    function = params.function(params.module(domain, "sources"), name)
    blocks = {}
    for data in _of_domain(study, "data", domain) if study else ():
        if study and name in (fetch := study.entry("data", data, "fetch")):
            blocks[f"data.{data}.fetch.{name}"] = fetch[name]
    yield from _function(Target(f"{domain}/{name}: a source", function, blocks))


def _describe_data(name: str, study: Study) -> Iterator[Part]:
    domain = study.entry("data", name, "domain")
    fetch = study.entry("data", name, "fetch")
    source = study.entry("data", name, "fetch", "source")
    yield from _paragraph(f"{name}: a data set of {study.path}. Domain {domain}, source {source}.")
    function = params.function(params.module(domain, "sources"), source)
    yield ""
    yield from _function(
        Target(source, function, {f"data.{name}.fetch.{source}": fetch.get(source) or {}})
    )
    prepare = params.function(params.module(domain, "dataset"), "prepare")
    yield ""
    block = study.entry("data", name, "prepare")
    yield from _function(Target("prepare", prepare, {f"data.{name}.prepare": block}))


def _describe_model(domain: str, name: str, study: Study | None) -> Iterator[Part]:
    import_keras_quietly()
    module = params.model_module(domain, name)
    yield f"{domain}/{name}: a model (ostinato/{domain}/models/{name}.py)"
    yield from _text(inspect.getdoc(module) or "", 2)
    runs = {
        run: study.entry("runs", run)
        for run in (_of_domain(study, "runs", domain) if study else ())
        if study and study.entry("runs", run, "model") == name
    }
    for part in ("build", "fit"):
        if function := getattr(module, part, None):
            yield ""
            blocks = {f"runs.{run}.{part}": entry.get(part) or {} for run, entry in runs.items()}
            yield from _function(Target(part, function, blocks))


def _describe_run(name: str, study: Study) -> Iterator[Part]:
    entry = study.result(name)
    domain = entry["domain"]
    import_keras_quietly()
    module = params.model_module(domain, study.model_name(name))
    if study.is_ensemble(name):
        text = f"an ensemble of {study.path}. Data set {entry['data']}, members: "
        yield from _paragraph(f"{name}: {text}{', '.join(entry['members'])}.")
        yield ""
        block = {"combine": entry["combine"]}
        yield from _function(Target("build", module.build, {f"ensembles.{name}": block}))
        return
    text = f"a run of {study.path}. Data set {entry['data']}, model {domain}/{entry['model']}."
    yield from _paragraph(f"{name}: {text}")
    yield from _text(inspect.getdoc(module) or "", 2)
    receivers = {"build": module.build, "fit": module.fit}
    if "placement" in entry:
        receivers["placement"] = Placement
    for part, receiver in receivers.items():
        yield ""
        block = entry.get(part) or {}
        yield from _function(Target(part, receiver, {f"runs.{name}.{part}": block}))


def _prepare(study: Study | None, domain: str) -> dict[str, params.Block]:
    if study is None:
        return {}
    return {
        f"data.{name}.prepare": study.entry("data", name, "prepare")
        for name in _of_domain(study, "data", domain)
    }


def _source_names(domain: str) -> list[str]:
    return list(params.functions(params.module(domain, "sources")))


def _model_files(domain: str) -> dict[str, Path]:
    spec = find_spec(f"ostinato.{domain}.models")
    folders = (spec and spec.submodule_search_locations) or ()
    files = sorted(file for folder in folders for file in Path(folder).glob("[!_]*.py"))
    return {file.stem: file for file in files}


# Functions and types as text


def _function(target: Target) -> Iterator[Part]:
    """The function's docstring without its sections, then the table of its parameters."""
    yield f"{target.name} ({target.function.__module__}.{target.function.__qualname__})"
    text, documented = split_docstring(inspect.getdoc(target.function) or "")
    yield from _text(text, 2)
    declared = params.arguments(target.function)
    if not declared:
        yield "  no parameters"
        return
    rows, lines = [], []
    for name, (hint, default) in declared.items():
        meaning = _resolved(target.function, name, documented.get(name) or _unit_text(hint))
        values = _values(name, target.blocks)
        if default is not ... and not values:
            values = f"default: {_yaml(default)}"
        rows.append((name, type_text(hint), "\n".join(filter(None, [meaning, values]))))
        lines += ["", *_paragraph(f"{name}: {type_text(hint)}", 2, 6)]
        lines += [*_paragraph(meaning, 6), *_paragraph(values, 6, 8)]
    yield Table(("parameter", "type", "meaning and value"), rows, lines)


def _resolved(function: Callable[..., Any], name: str, meaning: str) -> str:
    """The meaning of a parameter; for "see `module.function`." the one in that docstring."""
    reference = re.fullmatch(r"see `(\w+)\.(\w+)`\.", meaning)
    if not reference:
        return meaning
    other = getattr(inspect.getmodule(function), reference[1])
    return split_docstring(inspect.getdoc(getattr(other, reference[2])) or "")[1][name]


def _values(name: str, blocks: Mapping[str, params.Block]) -> str:
    """The values of a parameter in a study, each with the blocks that have it."""
    places: dict[str, list[str]] = {}
    for place, block in blocks.items():
        if isinstance(block, Mapping) and name in block:
            places.setdefault(_yaml(block[name]), []).append(place)
    values = [f"{value} ({', '.join(where)})" for value, where in places.items()]
    return f"in params: {'; '.join(values)}" if values else ""


def _yaml(value: Any) -> str:
    """A value on one line, as JSON, which is YAML too."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google's style.

    Returns:
        The text before the first section, and the section ``Args`` as name -> text.
    """
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.strip() in HEADINGS), len(lines))
    documented: dict[str, str] = {}
    name, section = "", ""
    for line in lines[first:]:
        if line.strip() in HEADINGS and not line.startswith(" "):
            section = line.strip()
        elif section == "Args:" and line.strip():
            key, colon, rest = line.strip().partition(": ")
            if len(line) - len(line.lstrip()) == 4 and colon:
                name, documented[key] = key, rest
            elif name:
                documented[name] += f" {line.strip()}"
    return "\n".join(lines[:first]).strip(), documented


def type_text(hint: Any) -> str:
    """A type in words, with its bounds: ``Units (an integer, 1 to 65,536)``."""
    if name := _unit_name(hint):
        return f"{name} ({_plain(hint)})"
    return _plain(hint)


def _plain(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, *metadata = arguments
        return ", ".join([type_text(inner), *filter(None, [_bounds(metadata)])])
    if origin is Literal:
        values = ", ".join(_yaml(value) for value in arguments)
        return f"one of {values}" if len(arguments) > 1 else f"the word {values}"
    if origin in (Union, UnionType):
        # A value of params.yaml is never a function.
        return " or ".join(type_text(a) for a in arguments if _is_value(a))
    if origin in (list, tuple):
        return f"a list of: {type_text(arguments[0])}"
    if origin is dict:
        return f"a mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    if is_typeddict(hint):
        fields = [f"{name}: {type_text(h)}" for name, h in hint.__annotations__.items()]
        return f"a mapping of {'; '.join(fields)}"
    if hint is NoneType:
        return "null"
    if hint is Any:
        return "any value"
    name = getattr(hint, "__name__", str(hint))
    return KINDS.get(name, name)


def _is_value(hint: Any) -> bool:
    return get_origin(hint) is not get_origin(Callable[[], None])


def _bounds(metadata: Iterable[Any]) -> str:
    """The bounds in the metadata of an annotated type: pydantic's fields hold their constraints."""
    found: dict[str, Any] = {}
    for item in metadata:
        for constraint in getattr(item, "metadata", ()):
            for key in ("gt", "ge", "lt", "le", "min_length", "max_length", "pattern"):
                if (value := getattr(constraint, key, None)) is not None:
                    found[key] = value
    texts = []
    if {"ge", "le"} <= found.keys():
        texts.append(f"{_number(found['ge'])} to {_number(found['le'])}")
    else:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        texts += [f"{word} {_number(found[key])}" for key, word in words.items() if key in found]
    shortest, longest = found.get("min_length"), found.get("max_length")
    if shortest is not None and shortest == longest:
        texts.append(f"exactly {shortest}")
    else:
        texts += [f"at least {shortest} long"] if shortest is not None else []
        texts += [f"at most {longest} long"] if longest is not None else []
    texts += [f"that matches {found['pattern']}"] if "pattern" in found else []
    return ", ".join(texts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@cache
def _unit_texts() -> dict[str, str]:
    """The docstring of each type of ostinato/units.py, by name."""
    found = {}
    body = ast.parse(inspect.getsource(units)).body
    for statement, after in itertools.pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            (target,), text = statement.targets, after.value
            if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
                found[target.id] = " ".join(str(text.value).split())
    return found


def _unit_name(hint: Any) -> str:
    # By identity: types of equal bounds, such as Count and Patience, are equal.
    return next((name for name in _unit_texts() if getattr(units, name) is hint), "")


def _unit_text(hint: Any) -> str:
    """The docstring of the unit in a type, for a parameter that no docstring describes."""
    if name := _unit_name(hint):
        return _unit_texts()[name]
    return next(filter(None, map(_unit_text, get_args(hint))), "")


def _width() -> int:
    return max(40, min(MAX_WIDTH, shutil.get_terminal_size((80, 24)).columns))


def _paragraph(text: str, indent: int = 0, hanging: int | None = None) -> list[str]:
    rest = indent if hanging is None else hanging
    return textwrap.wrap(
        text,
        _width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text(text: str, indent: int) -> Iterator[str]:
    """Wrap the paragraphs of a docstring; indented lines stay as they are."""
    for number, block in enumerate(filter(None, text.split("\n\n"))):
        if number:
            yield ""
        lines = block.splitlines()
        if any(line.startswith((" ", "- ", "| ")) for line in lines):
            yield from (" " * indent + line for line in lines)
        else:
            yield from _paragraph(" ".join(lines), indent)


# list


def list_runs(paths: Iterable[Path]) -> Iterator[Part]:
    """The runs and ensembles of studies, a table for each, with the primary metric of each.

    Args:
        paths: of the params files.

    Raises:
        ParamsError: a file cannot be read, or is no study.
    """
    for number, path in enumerate(paths):
        study = checked(path)
        rows = [_result(study, name) for name in (*study.entry("runs"), *study.entry("ensembles"))]
        if number:
            yield ""
        yield f"{study.name} ({study.path})"
        yield Table(("run", "data set", "model", "score"), rows)


def _result(study: Study, name: str) -> tuple[str, str, str, str]:
    """The row of a run or an ensemble: name, data set, model, score."""
    entry = study.result(name)
    file = study.result_folder(name) / "metrics.json"
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        score = "not evaluated"
    except ValueError as error:
        raise ParamsError(f"{file}: not JSON: {error}; `dvc repro` writes it again") from None
    else:
        score = score_text(metrics, _primary_metric(entry["domain"]))
    return name, entry["data"], f"{entry['domain']}/{study.model_name(name)}", score


@cache
def _primary_metric(domain: str) -> Metric:
    metric: Metric = params.module(domain, "reporting").REPORT.metrics[0]
    return metric


def score_text(metrics: Mapping[str, float | None], metric: Metric) -> str:
    """The value of a metric with its confidence interval, as ``Top-1 0.881 [0.863, 0.899]``."""
    value, low, high = (metrics.get(f"{metric.name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return f"no {metric.title}"
    text = f"{metric.title} {value:{metric.format}}"
    if low is not None and high is not None:
        text += f" [{low:{metric.format}}, {high:{metric.format}}]"
    return f"{text} {metric.unit}".rstrip()
