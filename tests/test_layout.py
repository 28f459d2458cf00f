"""The graph and the layers hold: DVC never serves a stale result, and imports go one way."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato import params

ROOT = Path(__file__).parent.parent

# An edit of these makes no result stale: tracking writes to MLflow alone, never to an out, and the
# check of params.yaml only stops a stage.
WITHOUT_EFFECT = {"ostinato/tracking/mirror.py", "ostinato/study.py"}


@cache
def imports(file: str) -> frozenset[str]:
    """The first-party files that ``file`` imports, anywhere in it."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = [name.replace(".", "/") for name in names]
    found = [f for c in candidates for f in (f"{c}.py", f"{c}/__init__.py")]
    first_party = ("ostinato/", "stages/", "flows/")
    return frozenset(f for f in found if f.startswith(first_party) and (ROOT / f).is_file())


def reached(files: set[str]) -> set[str]:
    """All first-party files that run when ``files`` do; empty ``__init__.py`` do nothing."""
    done: set[str] = set()
    while files:
        done |= files
        files = {f for file in files for f in imports(file)} - done - WITHOUT_EFFECT
    return {f for f in done if (ROOT / f).stat().st_size}


def code(*path: str) -> str:
    """The file of the module that params.yaml names by ``path``."""
    file = params.module(*path).__file__
    assert file is not None
    return Path(file).relative_to(ROOT).as_posix()


def entry_points(stage: str, key: str, values: dict[str, Any]) -> set[str]:
    """The files that a stage starts from: its own, and those that it finds by name."""
    files = {f"stages/{stage}.py"}
    if stage in ("fetch", "prepare"):
        face = {"fetch": "sources", "prepare": "dataset"}[stage]
        files |= {code(values["data"][key]["domain"], face)}
    elif stage in ("train", "evaluate"):
        run = values["runs"][key]
        files |= {code(run["domain"], "dataset"), code(run["domain"], "models", run["model"])}
        if stage == "evaluate":
            files |= {code(run["domain"], "evaluation")}
    elif stage == "ensemble":
        domain = values["ensembles"][key]["domain"]
        files |= {code(domain, face) for face in ("models/ensemble", "dataset", "evaluation")}
    elif stage == "report":
        files |= {code(run["domain"], "reporting") for run in values["runs"].values()}
    return files


def graph(file: str = "params.yaml") -> dict[str, set[str]]:
    """Each stage of dvc.yaml with its dependencies, its templates resolved for ``file``."""
    values = params.load(ROOT / file)
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    resolved = {}
    for name, stage in stages.items():
        if "foreach" not in stage:
            resolved[name] = set(stage["deps"])
            continue
        table = stage["foreach"].strip("${}")
        for key, item in values[table].items():
            deps = [d.replace("${key}", key) for d in stage["do"]["deps"]]
            for field in ("domain", "model", "data"):
                deps = [d.replace(f"${{item.{field}}}", str(item.get(field))) for d in deps]
            resolved[f"{name}@{key}"] = set(deps)
    return resolved


STAGES = graph()


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_runs_is_what_it_depends_on(stage: str) -> None:
    name, _, key = stage.partition("@")
    values = params.load(ROOT / "params.yaml")
    runs = reached(entry_points(name, key, values))
    deps = {d for d in STAGES[stage] if d.startswith(("ostinato", "stages"))}
    covered = {f for f in runs if any(Path(f).is_relative_to(d) for d in deps)}
    assert runs - covered == set(), "runs, but is no dependency"
    # A template names the same code for all its entries: one that runs it is enough.
    keys = [other.partition("@")[2] for other in STAGES if other.partition("@")[0] == name]
    runs = set().union(*(reached(entry_points(name, key, values)) for key in keys))
    idle = {d for d in deps if not any(Path(f).is_relative_to(d) for f in runs)}
    assert idle == set(), "is a dependency, but never runs"


@pytest.mark.parametrize("file", sorted(p.name for p in ROOT.glob("params*.yaml")))
def test_every_file_that_the_graph_names_is_there(file: str) -> None:
    for stage, deps in graph(file).items():
        for dep in deps:
            if dep.startswith(("ostinato", "stages")):
                assert (ROOT / dep).exists(), f"{file}: {stage}: {dep}"


FORBIDDEN = {
    "ostinato": {"mlflow", "dvc", "prefect", "stages", "flows"},
    "stages": {"dvc", "prefect", "flows"},
    "flows": {"keras", "tensorflow", "dvc"},
}


@pytest.mark.parametrize(
    "file", [p for top in FORBIDDEN for p in sorted((ROOT / top).rglob("*.py"))], ids=str
)
def test_imports_go_one_way(file: Path) -> None:
    top = file.relative_to(ROOT).parts[0]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    packages = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages |= {node.module.split(".")[0]}
    forbidden = set(FORBIDDEN[top])
    if file.relative_to(ROOT).as_posix() != "ostinato/tracking/mirror.py":
        forbidden |= {"mlflow"} if top == "stages" else set()
    if file.name in ("scores.py", "metrics.py", "figures.py") or "examples" in file.parts:
        forbidden |= {"keras"}
    assert packages & forbidden == set()


def test_no_two_layers_have_one_name_in_saved_models() -> None:
    """Keras would read the one as the other where a process has imported both."""
    named = [
        (ast.unparse(decorator), node.name)
        for file in sorted((ROOT / "ostinato").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for decorator in node.decorator_list
        if "register_keras_serializable" in ast.unparse(decorator)
    ]
    assert named
    assert len(named) == len(set(named)), sorted(name for name in named if named.count(name) > 1)
