"""The commands and examples of README and docs work.

A block of shell commands is executed in a copy of the checkout, up to a comment that begins with
"needs:" and says what a test does not have. The tutorials train shrunk models in one process.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato import api, params
from tests import tiny
from tests.test_docs import PAGES, README, ROOT, blocks, commands, table, text
from tests.workspace import copy_code

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
COPIED = ("bench", "flows", "ostinato", "recipes", "stages", "dvc.yaml", "params.yaml")


def executed(page: Path) -> Iterator[str]:
    """The blocks of a page, each up to what it needs."""
    for block in blocks(page, "sh"):
        lines, _, needs = block.partition("# needs:")
        assert "# needs:" not in block or needs.split("\n")[0].strip(), f"needs what? {block}"
        if lines.strip():
            yield lines


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code and of the studies, without data and models."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        results = ("data", "model", "figures", "*.npz") if name == "recipes" else ()
        copy_code(name, folder, *results)
    return folder


def shell(block: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if page not in TUTORIALS
    for number, block in enumerate(executed(page))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_commands_runs(block: str, checkout: Path) -> None:
    shell(block, checkout)


def test_the_commands_of_the_readme_that_need_nothing_run(checkout: Path) -> None:
    rows = table(README, "| command | does | needs |")
    free = [row[0].strip("`") for row in rows if not row[2]]
    assert free
    for command in free:
        shell(command, checkout)


# Python: README's examples, and the tutorials


def write_study(file: Path, settings: dict[str, Any] | None = None) -> None:
    """The default study with its models shrunk, and with some values of dotted keys."""
    values = params.load(ROOT / "params.yaml")
    values["runs"] = {name: tiny.shrunk_run(run) for name, run in values["runs"].items()}
    for key, value in (settings or {}).items():
        *parents, last = key.split(".")
        block = values
        for parent in parents:
            block = block[parent]
        block[last] = value
    with file.open("w", encoding="utf-8") as opened:
        YAML().dump(values, opened)


def run_python(code: str, page: Path) -> None:
    exec(compile(code, str(page.relative_to(ROOT)), "exec"), {})


EXAMPLES = blocks(README, "python")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_python_examples_of_the_readme_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    days = [date(2024, 1, 1) + timedelta(day) for day in range(200)]
    rows = [f"{day},{10 + day.weekday() + day.day % 3}" for day in days]
    Path("sales.csv").write_text("\n".join(["day,units", *rows]))
    write_study(tmp_path / "shrunk.yaml")
    monkeypatch.setattr(api, "default_study", lambda: tmp_path / "shrunk.yaml")
    run_python(EXAMPLES[number], README)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_goes_from_its_files_to_an_answer(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files, *request = blocks(page, "python")
    run_python(files.replace("range(300)", "range(60)"), page)  # fewer drawings
    (words,) = [words for words in commands(page) if words[:3] == ["dvc", "exp", "run"]]
    settings = {}
    for option, setting in pairwise(words):
        if option == "-S":
            key, _, value = setting.partition("=")
            settings[key] = YAML(typ="safe").load(value)
    run = next(word.partition("@")[2] for word in words if word.startswith("evaluate@"))
    write_study(tmp_path / "shrunk.yaml", settings)
    monkeypatch.setattr(api, "default_study", lambda: tmp_path / "shrunk.yaml")
    study = params.load(tmp_path / "shrunk.yaml")
    data = study["data"][study["runs"][run]["data"]]
    changes: dict[str, Any] = {"prepare": None, "build": None, "fit": None}
    metrics, service = api._train(tmp_path, run, data["fetch"]["source"], {}, 1, changes)
    assert metrics["samples"]
    for code in request:
        run_python(code, page)
    sent = re.search(r"-d '(\{.*\})'", text(page))
    body = json.loads(sent[1] if sent else Path("request.json").read_text())
    serving = params.module(data["domain"], "serving")
    inputs = [serving.Input.model_validate(item) for item in body["inputs"]]
    assert len(service.predict(inputs, body.get("params", {}))) == len(inputs)
