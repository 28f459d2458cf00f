"""The package as it is installed: its wheel, its locks, and what an import of each part needs."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ostinato import params

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
DOMAINS = {  # domain: the extra that it needs
    "sketches": "drawings",
    "generation": "drawings",
    "forecasting": "forecasting",
    "translation": "translation",
    "video": "video",
    "music": "music",
    "memory": "memory",
}
SCRIPTS = {"ostinato.serving.mlflow_model"}  # which MLflow runs with a configuration
BLOCK = """
import importlib, sys

blocked = set({blocked!r})

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
for name in {modules!r}:
    importlib.import_module(name)
{then}
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the sources by the backend of pyproject.toml."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_has_every_module_of_the_library_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"ostinato"}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ostinato").rglob("*.py")}
    assert modules <= names
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ostinato/serving/page").iterdir()}
    assert len(page) > 10
    assert page <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_declares_the_command_and_the_extras(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    commands = wheel.read(f"{info}/entry_points.txt").decode()
    assert re.search(r"^ostinato = ostinato\.cli:main$", commands, re.MULTILINE)
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert set(metadata.get_all("Provides-Extra") or ()) == set(EXTRAS)
    assert metadata["Requires-Python"] is not None


def test_the_extra_all_has_every_other_extra() -> None:
    assert closure("all") >= set().union(*(closure(extra) for extra in EXTRAS))


# Imports


def direct(*extras: str) -> list[Requirement]:
    """The dependencies of the project with some extras; an extra may name others."""
    found = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for extra in extras:
        for text in EXTRAS[extra]:
            requirement = Requirement(text)
            if requirement.name == "ostinato":
                found += direct(*requirement.extras)
            else:
                found.append(requirement)
    return found


@cache
def closure(*extras: str) -> frozenset[str]:
    """The installed distributions that the project with some extras needs, by canonical name."""
    done: set[tuple[str, frozenset[str]]] = set()
    pending = [(r.name, frozenset(r.extras)) for r in direct(*extras)]
    while pending:
        name, wanted = pending.pop()
        if (canonicalize_name(name), wanted) in done:
            continue
        done.add((canonicalize_name(name), wanted))
        try:
            requires = distribution(name).requires or ()
        except PackageNotFoundError:  # of another platform
            continue
        for requirement in map(Requirement, requires):
            marker = requirement.marker
            contexts = [{"extra": extra} for extra in ("", *wanted)]
            if marker is None or any(marker.evaluate(context) for context in contexts):
                pending.append((requirement.name, frozenset(requirement.extras)))
    return frozenset(name for name, _ in done)


def blocked(*extras: str) -> list[str]:
    """The top-level modules that only distributions outside of `closure` bring."""
    available = closure(*extras)
    return sorted(
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & available
        and module not in (*sys.stdlib_module_names, "ostinato")
    )


def modules(folder: str) -> list[str]:
    files = sorted((ROOT / "ostinato" / folder).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def import_alone(names: list[str], *extras: str, then: str = "") -> None:
    """Import modules in a process that has no package but those of the core and some extras."""
    code = BLOCK.format(blocked=blocked(*extras), modules=names, then=then)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_blocked_modules_are_those_of_the_extras() -> None:
    without = set(blocked())
    assert {"numba", "holidays", "sentencepiece", "av", "mlflow", "prefect", "dvc"} <= without
    assert {"numpy", "keras", "tensorflow", "pydantic", "jaxtyping"}.isdisjoint(without)
    assert "numba" not in blocked("drawings")
    with pytest.raises(AssertionError, match="numba is blocked"):
        import_alone(["numba"])


def test_every_domain_is_checked_against_its_extra() -> None:
    assert set(DOMAINS) == set(params.domains())


def test_the_core_imports_nothing_that_only_an_extra_brings() -> None:
    others = (*DOMAINS, "tracking", "serving")
    core = [
        name
        for name in modules(".")
        if name.split(".")[1:2] not in [[other] for other in others] and name not in SCRIPTS
    ]
    assert {"ostinato", "ostinato.task", "ostinato.params", "ostinato.cli"} <= set(core)
    import_alone(core)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_faces_of_a_domain_import_nothing_of_other_extras_and_its_data_no_keras(
    domain: str,
) -> None:
    data = ("sources", "dataset", "metrics", "evaluation", "reporting")
    others = ("figures", "serving")
    faces = {
        part: [n for n in modules(domain) if n.removeprefix(f"ostinato.{domain}.") in part]
        for part in (data, others)
    }
    batch = f"ostinato.{domain}.prediction"  # reads files for `ostinato predict`
    then = [
        "assert not {'keras', 'tensorflow', 'matplotlib'} & set(sys.modules)",
        f"for name in {[*faces[others], batch]!r}:",
        "    importlib.import_module(name)",
    ]
    import_alone(faces[data], DOMAINS[domain], then="\n".join(then))


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_module_of_a_domain_names_only_packages_of_the_core_and_its_extra(
    domain: str,
) -> None:
    forbidden = set(blocked(DOMAINS[domain]))
    for file in (ROOT / "ostinato" / domain).rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not {name.partition(".")[0] for name in names} & forbidden, file


def test_tracking_imports_nothing_that_only_another_extra_brings() -> None:
    import_alone(modules("tracking"), "tracking")


def test_the_server_imports_nothing_that_only_another_extra_brings() -> None:
    import_alone([name for name in modules("serving") if name not in SCRIPTS], "serving")


# Locks


def lock(name: str) -> dict[str, Version]:
    """The pins of a lock; a package with several, for several Pythons, has the newest."""
    pins: dict[str, Version] = {}
    text = (ROOT / name).read_text(encoding="utf-8")
    for package, version in re.findall(
        r"^([\w.-]+)(?:\[[\w,.-]+\])?==([^ ;]+)", text, re.MULTILINE
    ):
        key = canonicalize_name(package)
        pins[key] = max(Version(version), pins.get(key, Version(version)))
    return pins


def test_the_development_lock_has_the_pins_of_the_other() -> None:
    runs, tests = lock("requirements.txt"), lock("requirements-dev.txt")
    assert runs.items() <= tests.items()
    assert {"pytest", "ruff", "mypy", "hypothesis"} <= tests.keys() - runs.keys()


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("requirements.txt", direct("all")),
        (
            "requirements-dev.txt",
            [*direct("all"), *map(Requirement, PROJECT["dependency-groups"]["dev"])],
        ),
    ],
)
def test_a_lock_satisfies_pyproject(name: str, requirements: list[Requirement]) -> None:
    pins = lock(name)
    for requirement in requirements:
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_has_a_hash_for_every_pin_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|^-|\bfile:| @ ", text, re.MULTILINE)
    for pin in re.split(r"\n(?=\S)", text.strip()):
        assert "==" in pin, pin
        assert "--hash=sha256:" in pin, pin
