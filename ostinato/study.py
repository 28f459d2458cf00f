"""A study is a params.yaml: where its files are, and the check of all of its values.

Each block is checked against the signature that receives it, so a wrong value in the last run is
found before the first stage has run. The check reads signatures only: it changes no result.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from ostinato import params, store
from ostinato.errors import ParamsError
from ostinato.params import Problem
from ostinato.policies import RetryPolicy
from ostinato.promotion import Gate
from ostinato.task import Placement
from ostinato.units import Seed

REQUIRED = ("root", "at", "seed", "runtime", "data", "evaluation", "runs", "ensembles")
OPTIONAL = ("drift", "flows", "gates")
RECIPES = "recipes"  # the folder of all studies but the default one


@dataclass(frozen=True)
class Study:
    """A params.yaml and the paths of its files; the working directory is the checkout's root.

    Args:
        path: of the params file, relative to the root: params.yaml or recipes/NAME/params.yaml.
        params: its content.
    """

    path: Path
    params: params.Block

    @classmethod
    def load(cls, path: Path | str = "params.yaml") -> Self:
        """Read a params file and check the names in it, and that it stands where it says.

        Raises:
            ParamsError: the file cannot be read, its name or folder is not that of a study, or its
                keys ``root`` and ``at`` do not fit the folder.
        """
        path = Path(path)
        parts = path.parts
        recipe = len(parts) == 3 and parts[0] == RECIPES and params.check_name(parts[1])
        if path.name != "params.yaml" or not (recipe or len(parts) == 1):
            raise ParamsError(
                f"{path}: not a study; name params.yaml or {RECIPES}/NAME/params.yaml, and run "
                "from the root of the checkout"
            )
        study = cls(path, params.load(path))
        paths = {
            "root": "../.." if recipe else ".",
            "at": f"{RECIPES}/{parts[1]}/" if recipe else "",
        }
        for key, expected in paths.items():
            if study.params.get(key) != expected:
                raise ParamsError(
                    f"{path}: {key}: must be {expected!r} for a study in this folder, found "
                    f"{study.params.get(key)!r}"
                )
        return study

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.path.parent

    @property
    def name(self) -> str:
        """``default``, or the name of the recipe."""
        return self.folder.name or "default"

    def entry(self, *keys: str) -> Any:
        """The value under ``keys``; see `params.entry`."""
        return params.entry(self.params, *keys)

    def raw_folder(self, data: str) -> Path:
        """The raw files of a data set."""
        return self.folder / "data" / "raw" / data

    def shards_folder(self, data: str) -> Path | None:
        """Where `prepare` keeps what it has made of a data set, until it is whole.

        The folder is named by a digest of the parameters, the raw data and the code.

        Returns:
            The folder; None where the domain prepares a data set as a whole.

        Raises:
            MissingFileError: there are no raw data.
        """
        entry = self.entry("data", data)
        prepare = params.module(entry["domain"], "dataset").prepare
        if "scratch" not in inspect.signature(prepare).parameters:
            return None
        raw = store.existing(self.raw_folder(data) / "manifest.json")
        code = params.preparing_code(entry["domain"])
        return self.scratch("prepare", data, store.digest(entry["prepare"], raw, *code))

    @property
    def inputs_folder(self) -> Path:
        """The state of the local files that each data set is made of."""
        return self.folder / "data" / ".inputs"

    def data_folder(self, data: str) -> Path:
        """A prepared data set."""
        return self.folder / "data" / data

    def scratch(self, *parts: str) -> Path:
        """A folder for temporary state that outlives a killed stage."""
        return self.folder.joinpath("scratch", *parts)

    def urls_file(self, data: str) -> Path:
        """The state of each remote file that a data set was fetched from, on this computer."""
        return self.scratch("urls", f"{data}.json")

    def is_ensemble(self, name: str) -> bool:
        """Whether a result is an ensemble's."""
        return name in self.entry("ensembles")

    def result(self, name: str) -> Mapping[str, Any]:
        """The entry of a run or of an ensemble.

        Raises:
            ParamsError: there is none of this name.
        """
        entries = {**self.entry("runs"), **self.entry("ensembles")}
        entry: Mapping[str, Any] = params.entry(entries, name)
        return entry

    def result_folder(self, name: str) -> Path:
        """The results of a run or of an ensemble."""
        return self.folder / ("ensembles" if self.is_ensemble(name) else "results") / name

    def model_name(self, name: str) -> str:
        """The module of a result's model."""
        return "ensemble" if self.is_ensemble(name) else str(self.result(name)["model"])

    def stage(self, stage: str, name: str = "") -> str:
        """DVC's address of a stage: ``train@NAME``, or ``recipes/NAME/dvc.yaml:train@NAME``."""
        address = f"{stage}@{name}" if name else stage
        return address if self.name == "default" else f"{self.folder.as_posix()}/dvc.yaml:{address}"


def studies(root: Path = Path()) -> list[Path]:
    """The params files of all studies of a checkout, the default one first."""
    recipes = sorted(path.relative_to(root) for path in root.glob(f"{RECIPES}/*/params.yaml"))
    return [Path("params.yaml"), *recipes]


def check_tables(study: Study) -> None:
    """Check the keys of all tables of a study, and import nothing: seconds less than `check`.

    Raises:
        ParamsError: lists all that is wrong; each line begins with the dotted key.
    """
    _check(_Tables(), study.params, study.path)


def check(values: Mapping[str, Any], path: Path = Path("params.yaml")) -> None:
    """Check every key and value of a params.yaml.

    Args:
        values: the file's content, as `params.load` returns it.
        path: of the file, for the error.

    Raises:
        ParamsError: lists all that is wrong; each line begins with the dotted key.
    """
    _check(_Checker(), values, path)


def _check(checker: "_Checker", values: Mapping[str, Any], path: Path) -> None:
    top = checker.table("", values, REQUIRED, OPTIONAL)
    if "seed" in top:
        checker.value("seed", Seed, top["seed"])
    checker.blocks(top)
    data = checker.entries("data", top, checker.data)
    runs = checker.entries("runs", top, lambda location, run: checker.run(location, run, data))
    ensembles = checker.entries(
        "ensembles", top, lambda location, e: checker.ensemble(location, e, data, runs)
    )
    for name in ensembles:
        if name in runs:
            checker.wrong(f"ensembles.{name}", "a run has this name; give the ensemble another one")
    checker.evaluation(top, runs)
    checker.entries("gates", top, lambda location, gate: checker.gate(location, gate, data))
    if problems := checker.lines():
        raise ParamsError("\n  ".join([f"{path}: {len(problems)} wrong", *problems]))


class _Checker:
    """Collects the problems, and the valid keys, from which the hints are made."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, Problem]] = []  # the location of the block, and its problem
        self.valid_keys: list[str] = []  # dotted keys that signatures and tables have
        self.broken: set[str] = set()  # tables that are no mappings, so nothing can refer to them

    def wrong(self, location: str, message: str) -> None:
        parent, _, key = location.rpartition(".")
        self.problems.append((parent, Problem(key, "invalid", message)))

    def table(
        self, location: str, value: Any, required: Iterable[str], optional: Iterable[str] = ()
    ) -> Mapping[str, Any]:
        """Check the keys of a mapping; returns it, or an empty one where it is no mapping."""
        if not isinstance(value, Mapping):
            message = f"expected a mapping, found {type(value).__name__} {value!r}"
            self.wrong(location or "params.yaml", message)
            return {}
        allowed = [*required, *optional]
        self.valid_keys += [_joined(location, key) for key in allowed]
        problems = [params.unknown_key(str(key), allowed) for key in value if key not in allowed]
        problems += [Problem(key, "missing", "missing") for key in required if key not in value]
        self.problems += [(location, problem) for problem in params.without_renamed(problems)]
        return {key: inner for key, inner in value.items() if key in allowed}

    def entries(
        self, name: str, top: Mapping[str, Any], check: Callable[[str, Any], None]
    ) -> Mapping[str, Any]:
        """Check each entry of a table; returns the entries that are mappings."""
        table = top.get(name, {})
        if not isinstance(table, Mapping):
            self.broken.add(name)
            self.wrong(name, f"expected a mapping ({{}} for none), found {table!r}")
            return {}
        for key, entry in table.items():
            check(f"{name}.{key}", entry)
        return {key: entry for key, entry in table.items() if isinstance(entry, Mapping)}

    def value(self, location: str, hint: Any, value: Any) -> None:
        """Check one value against a type."""
        try:
            TypeAdapter(hint).validate_python(value, strict=True)
        except ValidationError as error:
            (first, *_) = error.errors()
            self.wrong(location, f"{first['msg']}, found {value!r}")

    def call(self, location: str, function: Callable[..., Any], block: Any) -> bool:
        """Check a block against a signature; returns whether it fits."""
        self.valid_keys += [_joined(location, key) for key in params.arguments(function)]
        if not isinstance(block, Mapping):
            self.wrong(location, f"expected a mapping, found {type(block).__name__} {block!r}")
            return False
        _, problems = params.validate(function, block)
        self.problems += [(location, problem) for problem in problems]
        return not problems

    def module(self, location: str, domain: Any, *parts: Any) -> Any | None:
        """A module of a domain, or None with a problem at ``location``."""
        if domain not in (names := params.domains()):
            self.wrong(location, f"no domain {domain!r}; {params.near(str(domain), names)}")
            return None
        try:
            return params.module(str(domain), *map(str, parts))
        except ParamsError as error:
            self.wrong(location, str(error))
            return None

    # The blocks of params.yaml

    def blocks(self, top: Mapping[str, Any]) -> None:
        """The blocks at the top: runtime, drift, flows."""
        from ostinato.data import drift
        from ostinato.training import runtime

        if "runtime" in top:
            self.call("runtime", runtime.runtime, top["runtime"])
        if "drift" in top:
            self.call("drift", drift.compare, top["drift"])
        if "flows" in top:
            flows = self.table("flows", top["flows"], ["stages"])
            policies = flows.get("stages", {})
            if not isinstance(policies, Mapping):
                self.wrong("flows.stages", f"expected a mapping, found {policies!r}")
                return
            for pattern, policy in policies.items():
                if not isinstance(pattern, str):
                    self.wrong(f"flows.stages.{pattern}", "a pattern is text: put it in quotes")
                self.call(f"flows.stages.{pattern}", RetryPolicy, policy)

    def data(self, location: str, entry: Any) -> None:
        """A data set: its domain, the blocks of its sources, and how it is prepared."""
        entry = self.table(location, entry, ["domain", "fetch", "prepare"])
        sources = self.domain(location, entry, "sources")
        if sources and "fetch" in entry:
            fetch = f"{location}.fetch"
            if isinstance(entry["fetch"], Mapping):
                found = params.fetch_problems(sources, entry["fetch"])
                self.problems += [(fetch, problem) for problem in found]
            else:
                self.wrong(fetch, f"expected a mapping, found {entry['fetch']!r}")
        if (dataset := self.domain(location, entry, "dataset")) and "prepare" in entry:
            self.call(f"{location}.prepare", dataset.prepare, entry["prepare"])
        if sources and isinstance(entry.get("fetch"), Mapping):
            # The chosen source first: the first that fits is the hint.
            functions, chosen = params.functions(sources), entry["fetch"].get("source")
            for name in sorted(functions, key=lambda name: name != chosen):
                keys = params.arguments(functions[name])
                self.valid_keys += [f"{location}.fetch.{name}.{key}" for key in keys]

    def run(self, location: str, entry: Any, data: Mapping[str, Any]) -> None:
        """A run: its data set, the arguments of its model's build and fit, and its placement."""
        required = ["data", "domain", "model", "build", "fit"]
        entry = self.table(location, entry, required, ["placement"])
        if "placement" in entry:
            self.call(f"{location}.placement", Placement, entry["placement"])
        self.on_data(location, entry, data)
        if not {"domain", "model"} <= entry.keys() or not self.domain(location, entry, "dataset"):
            return
        if model := self.module(f"{location}.model", entry["domain"], "models", entry["model"]):
            for part in ("build", "fit"):
                if (function := getattr(model, part, None)) is None:
                    self.wrong(
                        f"{location}.model", f"{entry['model']!r} is no model: it has no {part}"
                    )
                elif part in entry:
                    self.call(f"{location}.{part}", function, entry[part])

    def ensemble(
        self, location: str, entry: Any, data: Mapping[str, Any], runs: Mapping[str, Any]
    ) -> None:
        """An ensemble: its data set, its members, and how they are combined."""
        entry = self.table(location, entry, ["domain", "data", "members", "combine"])
        self.on_data(location, entry, data)
        if (module := self.domain(location, entry, "models", "ensemble")) and "combine" in entry:
            self.call(location, module.build, {"combine": entry["combine"]})
        members = entry.get("members", [])
        if not isinstance(members, list):
            self.wrong(f"{location}.members", f"expected a list of runs, found {members!r}")
            return
        if len({str(member) for member in members}) < max(2, len(members)):
            self.wrong(
                f"{location}.members", f"expected two or more different runs, found {members!r}"
            )
        for member in members:
            if not isinstance(member, str) or member not in runs:
                hint = params.near(str(member), runs)
                self.wrong(f"{location}.members", f"no run {member!r}; {hint}")
            elif runs[member].get("data") != entry.get("data"):
                self.wrong(
                    f"{location}.members",
                    f"{member} was trained on {runs[member].get('data')}, not on "
                    f"{entry.get('data')}; leave it out, or make an ensemble for each data set",
                )

    def evaluation(self, top: Mapping[str, Any], runs: Mapping[str, Any]) -> None:
        """The arguments of evaluation, for each domain that a run has."""
        if "evaluation" not in top:
            return  # a problem of the top
        blocks = top["evaluation"]
        if not isinstance(blocks, Mapping):
            self.wrong("evaluation", f"expected a mapping, found {blocks!r}")
            return
        for domain, block in blocks.items():
            if module := self.module(f"evaluation.{domain}", domain, "evaluation"):
                self.call(f"evaluation.{domain}", module.evaluate, block)
        needed = {str(run["domain"]): name for name, run in runs.items() if "domain" in run}
        for domain, name in needed.items():
            if domain not in blocks:
                self.wrong(f"evaluation.{domain}", f"missing: run {name} is evaluated with it")

    def gate(self, location: str, block: Any, data: Mapping[str, Any]) -> None:
        """A gate of promotion, which has the name of a data set."""
        name = location.removeprefix("gates.")
        if "data" in self.broken:
            return
        if name not in data:
            self.wrong(location, f"no data set {name!r}; {params.near(name, data)}")
        elif self.call(location, Gate, block) and data[name].get("domain") in params.domains():
            try:
                params.bind(Gate, block)().check(data[name]["domain"])
            except ParamsError as error:
                self.wrong(location, str(error))

    def domain(self, location: str, entry: Mapping[str, Any], *parts: str) -> Any | None:
        """A module of an entry's domain."""
        return (
            self.module(f"{location}.domain", entry["domain"], *parts)
            if "domain" in entry
            else None
        )

    def on_data(self, location: str, entry: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """The data set that a run or an ensemble names, which is of the same domain."""
        if "data" not in entry or "data" in self.broken:
            return
        name = entry["data"]
        if not isinstance(name, str) or name not in data:
            self.wrong(f"{location}.data", f"no data set {name!r}; {params.near(str(name), data)}")
        elif "domain" in entry and data[name].get("domain") != entry["domain"]:
            self.wrong(
                f"{location}.domain",
                f"{entry['domain']!r}, but its data set {name} is of {data[name].get('domain')!r}",
            )

    # The result

    def lines(self) -> list[str]:
        """A line for each problem, without repetition."""
        lines = []
        for location, problem in self.problems:
            message = problem.message
            if problem.kind == "unknown" and "did you mean" not in message:
                inner, _, key = _joined(location, problem.key).rpartition(".")
                message = self._elsewhere(inner, key) or message
            lines.append(f"{_joined(location, problem.key)}: {message}")
        return list(dict.fromkeys(lines))

    def _elsewhere(self, location: str, key: str) -> str | None:
        """A hint where a key that is unknown at its location is valid further down or up."""
        below = [
            path for path in self.valid_keys if path.startswith(f"{location}." if location else "")
        ]
        for same in (
            key,
            *params.OLD_NAMES.get(key, ()),
            *difflib.get_close_matches(key, map(_last, below), n=1, cutoff=0.7),
        ):
            if found := next((path for path in below if _last(path) == same), None):
                return f"unknown here; did you mean {found!r}?"
        while location:
            location = location.rpartition(".")[0]
            if (found := _joined(location, key)) in self.valid_keys:
                stands = f"under {location!r}" if location else "at the top of params.yaml"
                return f"unknown here; {key!r} stands {stands}"
        return None


class _Tables(_Checker):
    """Checks the keys of the tables alone: the part that all commands rely on."""

    def module(self, location: str, domain: Any, *parts: Any) -> None:
        """Check the name of a domain, and that further names are text."""
        if domain not in (names := params.domains()):
            self.wrong(location, f"no domain {domain!r}; {params.near(str(domain), names)}")
        for part in parts:
            if not isinstance(part, str):
                self.wrong(location, f"expected a name, found {part!r}")

    def mappings(self, location: str, entry: Any, *keys: str) -> None:
        """Check that the values of some keys are mappings."""
        for key in keys if isinstance(entry, Mapping) else ():
            if key in entry and not isinstance(entry[key], Mapping):
                self.wrong(_joined(location, key), f"expected a mapping, found {entry[key]!r}")

    def blocks(self, top: Mapping[str, Any]) -> None:
        """Check that the blocks at the top are mappings."""
        self.mappings("", top, "runtime", "drift", "flows")

    def data(self, location: str, entry: Any) -> None:
        """Check the keys of a data set."""
        super().data(location, entry)
        self.mappings(location, entry, "fetch", "prepare")
        fetch = entry.get("fetch") if isinstance(entry, Mapping) else None
        if isinstance(fetch, Mapping):
            self.value(f"{location}.fetch.source", str, fetch.get("source"))

    def run(self, location: str, entry: Any, data: Mapping[str, Any]) -> None:
        """Check the keys of a run."""
        super().run(location, entry, data)
        self.mappings(location, entry, "build", "fit", "placement")
        if isinstance(entry, Mapping) and "model" in entry:
            self.value(f"{location}.model", str, entry["model"])

    def gate(self, location: str, block: Any, data: Mapping[str, Any]) -> None:
        """No command without `check` reads a gate."""


def _joined(location: str, key: str) -> str:
    return f"{location}.{key}" if location else key


def _last(path: str) -> str:
    return path.rpartition(".")[2]
