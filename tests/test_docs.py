"""The documentation agrees with the code: types, names, paths, commands, options and keys exist."""

import ast
import dataclasses
import inspect
import io
import re
import runpy
import shlex
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato import cli, params, task
from ostinato.study import OPTIONAL, REQUIRED, studies

ROOT = Path(__file__).parent.parent
README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
OWN = ("ostinato", "stages", "flows", "bench", "tests")
FOLDERS = (*OWN, "docs", "recipes", ".ci")
OPTIONAL_MODULES = ("monitoring", "prediction")
OPTIONAL_NAMES = {"save", "restore"}  # of a model's module


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.S)


def inline_code(page: Path) -> list[str]:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def commands(page: Path) -> list[list[str]]:
    """The words of every shell command of a page, one list for each command."""
    lines = []
    for block in blocks(page, "sh"):
        lines += re.sub(r"\\\n\s*", " ", block).splitlines()
    lines += [code for code in inline_code(page) if " " in code]
    parts = [part for line in lines for part in re.split(r"&&|\|\||;|\|", line)]
    found = []
    for part in parts:
        try:
            found.append(shlex.split(part, comments=True))
        except ValueError:  # an apostrophe: no command
            continue
    return [words for words in found if words]


def table(page: Path, header: str) -> list[list[str]]:
    """The rows of the Markdown table with this first row."""
    after = text(page).split(f"\n{header}\n", 1)[1].splitlines()[1:]
    rows = []
    for line in after:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    return rows


def pages(test: Any) -> Any:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT))(test)


# docs/new-domain.md


def members(cls: type) -> set[str]:
    """The public fields and methods that a class of ostinato/task.py defines."""
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    defined = {
        name
        for name, value in vars(cls).items()
        if inspect.isroutine(value) or isinstance(value, property)
    }
    constants = set(getattr(cls, "__annotations__", {})) if cls is task.Document else set()
    return {name for name in fields | defined | constants if not name.startswith("_")}


def test_the_page_on_new_domains_lists_every_type_with_its_members() -> None:
    types = {
        name: members(value)
        for name, value in vars(task).items()
        if inspect.isclass(value) and value.__module__ == task.__name__
    }
    listed: dict[str, set[str]] = {}
    current = ""
    for kind, member, _ in table(ROOT / "docs/new-domain.md", "| type | member | meaning |"):
        current = kind.strip("`") or current
        names = re.findall(r"`(\w+)", member)
        listed.setdefault(current, set()).update(names)
    assert listed == types


def domain_blocks() -> list[tuple[str, str]]:
    found = []
    for block in blocks(ROOT / "docs/new-domain.md", "python"):
        match = re.match(r"# ostinato/<domain>/(\S+)\n", block)
        assert match, f"a code block begins with the path of its module: {block[:60]!r}"
        found.append((match[1], block))
    return found


DOMAIN_BLOCKS = domain_blocks()


def positional(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


@pytest.mark.parametrize(("path", "block"), DOMAIN_BLOCKS, ids=[p for p, _ in DOMAIN_BLOCKS])
def test_the_code_on_new_domains_is_that_of_every_domain(path: str, block: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(block, path, "exec"), names)  # every name that it uses exists
    defined = {
        node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else ast.unparse(node.target)
        for node in ast.parse(block).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AnnAssign)
    }
    assert defined
    for domain in params.domains():
        for module in domain_modules(domain, path):
            for name in defined:
                exposed = vars(module).get(name)
                if name == "source":
                    functions = params.functions(module).values()
                    assert functions
                    expected = positional(names[name])
                    assert all(positional(function) == expected for function in functions)
                elif name not in OPTIONAL_NAMES or exposed is not None:
                    assert exposed is not None, f"{module.__name__} has no {name}"
                    if inspect.isfunction(names.get(name)):
                        found = positional(exposed)
                        if name == "prepare" and "scratch" in found:  # optional, as the page says
                            found.remove("scratch")
                        assert found == positional(names[name]), f"{module.__name__}.{name}"


def domain_modules(domain: str, path: str) -> list[Any]:
    part = path.split("/")[0].removesuffix(".py")
    if part in OPTIONAL_MODULES and not (ROOT / "ostinato" / domain / f"{part}.py").exists():
        return []
    if part != "models":
        return [params.module(domain, part)]
    folder = Path(str(params.module(domain, "models").__file__)).parent
    names = sorted(file.stem for file in folder.glob("[!_]*.py"))
    # An ensemble is built from trained members, by stages/ensemble.py.
    return [params.model_module(domain, name) for name in names if name != "ensemble"]


def test_the_modules_on_the_page_are_those_that_use_them() -> None:
    for module, users, _ in table(
        ROOT / "docs/new-domain.md", "| module | used by | public names |"
    ):
        for user in re.findall(r"`(\w+/\w+\.py)`", users):
            source = text(ROOT / user)
            part = module.strip("`").split("/")[0].removesuffix(".py")
            assert f'"{part}"' in source or "model" in part, f"{user} does not use {part}"


# README.md, docs/domains, docs/glossary.md


def test_the_readme_has_at_most_200_lines() -> None:
    assert len(text(README).splitlines()) <= 200


@pytest.mark.parametrize("domain", params.domains())
def test_the_page_of_a_domain_lists_all_sources_and_models(domain: str) -> None:
    page = ROOT / "docs" / "domains" / f"{domain}.md"
    sources = set(params.functions(params.module(domain, "sources")))
    models = {file.stem for file in (ROOT / "ostinato" / domain / "models").glob("[!_]*.py")}
    for header, names in {"| source | reads |": sources, "| model | paper |": models}.items():
        assert {row[0].strip("`") for row in table(page, header)} == names


def test_the_picture_of_the_architecture_is_current() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    assert script["problems"](script["edges"]()) == []
    assert text(ROOT / "docs" / "architecture.svg") == script["draw"]()


def test_the_glossary_has_at_most_thirty_distinct_words() -> None:
    words = [row[0] for row in table(ROOT / "docs/glossary.md", "| word | meaning |")]
    assert len(words) == len(set(words)) <= 30


# CHANGELOG.md


def renamed() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for _, old, new in table(CHANGELOG, "| where | old | new |"):
        if re.fullmatch(r"`\w+`", old) and re.fullmatch(r"`\w+`", new):
            found.setdefault(old.strip("`"), set()).add(new.strip("`"))
    return found


def test_the_changelog_lists_every_renamed_key() -> None:
    assert renamed() == {old: set(names) for old, names in params.OLD_NAMES.items()}


def test_the_changelog_lists_every_renamed_model() -> None:
    rows = table(CHANGELOG, "| model, old | new |")
    models = {re.findall(r"`(\w+)`", old)[0]: new.strip("`") for old, new in rows}
    assert models == dict(params.OLD_MODELS)


def test_the_present_modules_of_the_changelog_exist() -> None:
    for _, new in table(CHANGELOG, "| old | new |"):
        for name in re.findall(r"`([\w.<>]+)`", new):
            if "<model>" not in name:
                domains = params.domains() if "<domain>" in name else [""]
                found = [exists(name.replace("<domain>", domain)) for domain in domains]
                assert any(found), name


# Paths, modules, commands, options, keys


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or is defined in one."""
    try:
        if find_spec(dotted):
            return True
    except ModuleNotFoundError:
        pass
    parent, _, name = dotted.rpartition(".")
    try:
        spec = find_spec(parent) if parent else None
    except ModuleNotFoundError:
        return False
    if spec is None or spec.origin is None:
        return False
    defined = rf"^(def|class) {name}\b|^{name}\b.* = |\bimport .*\b{name}\b"
    return re.search(defined, text(Path(spec.origin)), re.M) is not None


@pages
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", text(page))
    local = [target for target in targets if "://" not in target and not target.startswith("#")]
    missing = [t for t in local if not (page.parent / t.partition("#")[0]).exists()]
    assert missing == []


def paths(page: Path) -> Iterator[str]:
    words = [word for words in commands(page) for word in words]
    for token in [*inline_code(page), *words]:
        path = token.partition(":")[0].rstrip("/,")
        top = path.split("/")[0]
        if re.fullmatch(r"[\w./-]+", path) and (
            ("/" in path and top in FOLDERS)
            or ("/" not in path and re.fullmatch(r"[\w-]+\.(py|txt|toml)", path))
        ):
            yield path


@pages
def test_every_path_in_the_repository_exists(page: Path) -> None:
    # A name without a folder can be a file of each domain. A command can make a folder.
    made = tuple(words[1] for words in commands(page) if words[0] == "mkdir") or ("//",)
    missing = [
        path
        for path in paths(page)
        if not (ROOT / path).exists() and not named_in_domains(path) and not path.startswith(made)
    ]
    assert missing == []


def named_in_domains(path: str) -> bool:
    return "/" not in path and any((ROOT / "ostinato").glob(f"*/{path}"))


@pages
def test_every_dotted_name_exists(page: Path) -> None:
    """Modules, their functions and classes, keys of params.yaml, and names of events."""
    flows = "".join(text(file) for file in (ROOT / "flows").rglob("*.py"))
    loaded = [params.load(ROOT / path) for path in studies(ROOT)]
    for code in inline_code(page):
        name = code.removesuffix("()")
        if re.fullmatch(r"(\w+\.)+\w+", name) and name.split(".")[0] in OWN:
            key = any(has(values, name) for values in loaded)
            assert key or exists(name) or f'"{name}"' in flows, name


def module_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    for words in commands(page):
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[:2] == ["python", "-m"] and len(words) > 2:
            yield words[2], words[3:]


def source_of(module: str) -> str:
    """The code of a command: of the module, or of a package's __main__ and what that imports."""
    spec = find_spec(module)
    assert spec is not None, f"no module {module}"
    assert spec.origin is not None
    file = Path(spec.origin)
    if file.name != "__init__.py":
        return text(file)
    main = file.with_name("__main__.py")
    assert main.exists(), f"python -m {module}: the package has no __main__.py"
    return "".join(text(path) for path in sorted(file.parent.glob("*.py")))


def help_of(command: str) -> str:
    """What ``python -m ostinato COMMAND --help`` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return printed.getvalue()


@pages
def test_every_module_that_is_run_exists_and_has_the_options(page: Path) -> None:
    for module, arguments in module_commands(page):
        if module.split(".")[0] not in OWN:
            continue
        options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        if module == "ostinato":
            available, quote = help_of(arguments[0]) if options else "", ""
        else:
            available, quote = source_of(module), '"'
        for option in options:
            assert f"{quote}{option}{quote}" in available, f"python -m {module} has no {option}"


@pages
def test_every_deployment_that_is_run_exists(page: Path) -> None:
    with (ROOT / "prefect.yaml").open(encoding="utf-8") as file:
        deployments = {
            deployment["name"] for deployment in YAML(typ="safe").load(file)["deployments"]
        }
    for words in commands(page):
        if words[:3] == ["prefect", "deployment", "run"]:
            assert words[3].partition("/")[2] in deployments, words


def has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


@pages
def test_every_key_that_a_command_sets_exists(page: Path) -> None:
    loaded = {path.as_posix(): params.load(ROOT / path) for path in studies(ROOT)}
    for words in commands(page):
        if words[:3] != ["dvc", "exp", "run"]:
            continue
        for option, setting in pairwise(words):
            if option in ("-S", "--set-param"):
                file, _, key = setting.partition("=")[0].rpartition(":")
                assert has(loaded[file or "params.yaml"], key), setting


@pages
def test_every_stage_that_a_command_names_exists(page: Path) -> None:
    loaded = {path.as_posix(): params.load(ROOT / path) for path in studies(ROOT)}
    tables = {"fetch": "data", "prepare": "data", "train": "runs", "evaluate": "runs"}
    for words in commands(page):
        if words[:2] != ["dvc", "repro"] and words[:3] != ["dvc", "exp", "run"]:
            continue
        for word in words[2:]:
            if "=" in word:
                continue
            file, _, address = word.rpartition(":")
            stage, _, name = address.partition("@")
            if name:
                study = file.replace("dvc.yaml", "params.yaml") or "params.yaml"
                assert name in loaded[study][tables[stage]], word


@pages
def test_every_dotted_key_of_params_exists(page: Path) -> None:
    """Keys such as ``runtime.precision``; names of entries are ``<name>``."""
    tops = {*REQUIRED, *OPTIONAL} - {"seed", "root", "at"}
    loaded = [params.load(ROOT / path) for path in studies(ROOT)]
    for code in inline_code(page):
        top, _, rest = code.partition(".")
        if top in tops and re.fullmatch(r"[\w-]+(\.[\w-]+)*", rest) and rest != "py":
            assert any(has(values, code) for values in loaded), code
