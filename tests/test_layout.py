"""The graph and the layers hold: DVC never serves a stale result, and imports go one way."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ostinato import params
from ostinato.study import Study, studies

ROOT = Path(__file__).parent.parent

# An edit of these makes no result stale: tracking writes to MLflow only, progress to the terminal
# and the log, the check of params.yaml only stops a stage, and stages/entry.py only starts one.
WITHOUT_EFFECT = {
    *(file.relative_to(ROOT).as_posix() for file in (ROOT / "ostinato/tracking").glob("*.py")),
    "ostinato/errors.py",
    "ostinato/policies.py",
    "ostinato/progress.py",
    "ostinato/promotion.py",
    "ostinato/study.py",
    "stages/entry.py",
}


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


def entry_points(stage: str, key: str, study: Study) -> set[str]:
    """The files that a stage starts from: its own, and those that it finds by name."""
    files = {f"stages/{stage}.py"}
    if stage in ("fetch", "prepare"):
        part = {"fetch": "sources", "prepare": "dataset"}[stage]
        domain = study.params["data"][key]["domain"]
        files |= {code(domain, part)}
        if (stage, domain) == ("prepare", "generation"):
            files |= {code("sketches", "dataset")}
    elif stage in ("train", "evaluate"):
        run = study.params["runs"][key]
        files |= {code(run["domain"], "dataset"), code(run["domain"], "models", run["model"])}
        if stage == "evaluate":
            files |= {code(run["domain"], "evaluation")}
    elif stage == "ensemble":
        domain = study.params["ensembles"][key]["domain"]
        files |= {code(domain, part) for part in ("dataset", "evaluation")}
        files |= {code(domain, "models", "ensemble")}
    return files


def graph(study: Study) -> dict[str, set[str]]:
    """Each stage of dvc.yaml with its dependencies, its templates resolved for ``study``."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    resolved = {}
    for name, stage in stages.items():
        table = stage.get("foreach", "").strip("${}")
        for key, item in study.params[table].items() if table else [("", {})]:
            deps = (stage["do"] if table else stage).get("deps", [])
            values = {"at": study.params["at"], "key": key}
            values |= {f"item.{field}": str(value) for field, value in item.items()}
            for field, value in values.items():
                deps = [dep.replace(f"${{{field}}}", value) for dep in deps]
            resolved[f"{name}@{key}" if table else name] = set(deps)
    return resolved


def any_domain(path: str) -> str:
    """The path of a file of a domain, with ``*`` for the domain."""
    domains = "|".join(
        {data["domain"] for study in STUDIES for data in study.params["data"].values()}
    )
    return re.sub(rf"^ostinato/({domains})(?=/|$)", "ostinato/*", path)


STUDIES = [Study.load(path) for path in studies(ROOT)]
GRAPHS = {study.name: graph(study) for study in STUDIES}


@pytest.mark.parametrize("stage", ["fetch", "prepare", "train", "evaluate", "ensemble"])
def test_the_code_that_a_stage_runs_is_what_it_depends_on(stage: str) -> None:
    used: set[str] = set()
    named: set[str] = set()
    for study in STUDIES:
        for address, deps in GRAPHS[study.name].items():
            name, _, key = address.partition("@")
            if name != stage:
                continue
            runs = reached(entry_points(name, key, study))
            code_deps = {d for d in deps if d.startswith(("ostinato", "stages"))}
            covered = {f for f in runs if any(Path(f).is_relative_to(d) for d in code_deps)}
            assert runs - covered == set(), f"{study.name}: {address}: runs, but is no dependency"
            used |= runs
            named |= code_deps
    # A template names the same code for all its entries: one that runs it is enough.
    used = {any_domain(file) for file in used}
    idle = {d for d in named if not any(Path(f).is_relative_to(any_domain(d)) for f in used)}
    assert idle == set(), "is a dependency, but never runs"


def test_a_training_resumes_only_with_the_code_that_it_began_with() -> None:
    without_influence = {
        *(f"ostinato/{name}.py" for name in ("models", "params", "store", "task", "units")),
        "ostinato/data/profile.py",
    }
    for study in STUDIES:
        for key, run in study.params["runs"].items():
            files = params.training_code(run["domain"], run["model"])
            digested = {file.relative_to(ROOT).as_posix() for file in files}
            runs = reached(entry_points("train", key, study) - {"stages/train.py"})
            assert runs - digested <= without_influence, f"{study.name}: {key}"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_file_that_the_graph_names_exists(study: Study) -> None:
    for stage, deps in GRAPHS[study.name].items():
        for dep in deps:
            if dep.startswith(("ostinato", "stages")):
                assert (ROOT / dep).exists(), f"{study.name}: {stage}: {dep}"


@pytest.mark.parametrize("study", STUDIES[1:], ids=lambda study: study.name)
def test_a_recipe_has_the_graph_of_all_studies(study: Study) -> None:
    link = ROOT / study.folder / "dvc.yaml"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "dvc.yaml"


FORBIDDEN = {
    "ostinato": {"dvc", "prefect", "stages", "flows"},
    "stages": {"mlflow", "dvc", "prefect", "flows"},
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
    if top == "ostinato" and file.parent.name not in ("tracking", "serving"):
        forbidden |= {"mlflow"}
    numeric = {"decoding", "data", "dataset", "evaluation"} & set(file.parts)
    if numeric or file.name in ("evaluation.py", "metrics.py", "figures.py", "reporting.py"):
        forbidden |= {"keras"}
    if file.parts[-3:] == ("generation", "dataset", "classifier.py"):  # trained by `prepare`
        forbidden -= {"keras"}
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


@pytest.mark.parametrize("folder", ["flows", "stages", "bench"])
def test_a_module_with_a_command_line_runs_it(folder: str) -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in (ROOT / folder).glob("*.py")}
    commands = {file for file, text in texts.items() if "\ndef main(" in text}
    assert commands
    assert [file for file in commands if '\nif __name__ == "__main__":' not in texts[file]] == []
