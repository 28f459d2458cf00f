"""Faults that are expected are caught by name, and an error of the project is one message."""

import ast
import builtins
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas import State

from flows.engine import errors as flow_errors
from ostinato import errors, store
from ostinato.errors import OstinatoError
from ostinato.study import Study
from ostinato.tracking import __main__ as tracking
from ostinato.tracking import client
from stages import entry

ROOT = Path(__file__).parent.parent
FOLDERS = ("ostinato", "stages", "flows", "bench")
FILES = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]

# Files that may catch any exception, and why: mostly of a foreign builder, decoder or unpickler.
ANY_EXCEPTION = {
    "ostinato/forecasting/sources/from_tfds.py": "a builder of TFDS may raise anything",
    "ostinato/serving/batching.py": "a model may raise anything; it fails one request",
    "ostinato/serving/loading.py": "a version's files may raise anything; another one stays in use",
    "ostinato/serving/server.py": "a bug fails one request, and its text may quote an input",
    "ostinato/sketches/dataset/sketchrnn_npz.py": "a broken pickle may raise anything",
    "ostinato/doctor.py": "a check that fails is a finding",
    "ostinato/tracking/deadline.py": "the caller's thread raises it again",
    "ostinato/translation/formats/catalogs.py": "a reader of catalogs may raise anything",
    "ostinato/translation/sources/tfds.py": "a builder of TFDS may raise anything",
    "ostinato/video/formats/reading.py": "a decoder may raise anything; it rejects one video",
    "ostinato/video/sources/tfds_videos.py": "a builder of TFDS may raise anything",
}
# Functions that may raise an exception of Python: no value of a user reaches them, or a caller
# makes it an error of the project.
PYTHONS_OWN = {
    "flows/engine/search.py:_check": "a validator of pydantic",
    "ostinato/data/served.py:check": "a validator of pydantic",
    "ostinato/evaluation/figures.py:learning_curves": "a call without a history",
    "ostinato/forecasting/dataset/features.py:calendar": "prepare adds where it was found",
    "ostinato/layers.py:__init__": "an argument of code",
    "ostinato/params.py:arguments": "a signature without a type",
    "ostinato/serving/settings.py:_consistent": "a validator of pydantic",
    "ostinato/sketches/formats/strokes.py:simplify": "an argument of code",
    "ostinato/sketches/formats/strokes.py:to_stroke5": "an argument of code",
    "ostinato/tracking/client.py:lock": "a failure of the store: `failures` has it",
    "ostinato/tracking/deadline.py:within": "a failure of the store: `failures` has it",
    "ostinato/translation/formats/catalogs.py:plural_form": "the caller names the header",
    "ostinato/video/sources/drawings.py:_checked": "a validator of pydantic",
}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    """The nodes of a kind in all code: FILE:FUNCTION and the node."""
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        tree = ast.parse(file.read_text("utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        innermost = {node: each.name for each in functions for node in ast.walk(each)}
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{name}:{innermost.get(node, '')}", node


def test_no_handler_hides_a_bug() -> None:
    found = set()
    for where, handler in nodes(ast.ExceptHandler):
        caught = ast.walk(handler.type) if handler.type else [ast.Name("Exception")]
        names = {node.id for node in caught if isinstance(node, ast.Name)}
        last = handler.body[-1]
        raises_again = isinstance(last, ast.Raise) and last.exc is None
        if names & {"Exception", "BaseException"} and not raises_again:
            found.add(where.partition(":")[0])
    assert found <= set(ANY_EXCEPTION)


def test_every_error_that_code_raises_is_of_the_project() -> None:
    found = set()
    for where, node in nodes(ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        name = getattr(raised, "id", "")
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException) and "bench/" not in where:
            found.add(where)
    assert found <= set(PYTHONS_OWN)


def test_every_kind_of_error_is_of_the_project() -> None:
    kinds = dict(vars(errors))
    definitions = [(where, node) for where, node in nodes(ast.ClassDef) if "bench/" not in where]
    project = {name for name, kind in kinds.items() if isinstance(kind, type)} - {"OstinatoError"}
    for name in project:
        assert issubclass(kinds[name], OstinatoError)
    while True:  # until no class more is known to be one of the project
        more = {
            node.name
            for _, node in definitions
            if {getattr(base, "id", "") for base in node.bases} & {*project, "OstinatoError"}
        } - project
        if not more:
            break
        project |= more
    others = {node.name for _, node in definitions if node.name.endswith("Error")} - project
    assert others == {"OstinatoError"}


# Tracking


def fault(name: str) -> Exception:
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    faults: dict[str, Exception] = {
        "away": ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        "disk": OSError(errno.ENOSPC, "No space left on device"),
        "refuses": MlflowException("the experiment is deleted"),
        "locked": OperationalError("SELECT", {}, Exception("database is locked")),
        "version": CommandError("Can't locate revision"),
        "driver": ModuleNotFoundError("No module named 'psycopg2'"),
    }
    return faults[name]


def throw(error: Exception) -> None:
    raise error


FAULTS = ["away", "disk", "refuses", "locked", "version", "driver"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_store_is_reported_and_stops_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "_warned", [])
    with client.log_and_continue():
        throw(fault(name))
    text = capsys.readouterr().err
    assert text.startswith("Not tracked in ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "bug", [KeyError("test"), TypeError("x"), ValueError("x"), FileNotFoundError("x"), IndexError()]
)
def test_a_bug_in_tracking_ends_the_stage(bug: Exception) -> None:
    with pytest.raises(type(bug)), client.log_and_continue():
        raise bug


def test_the_command_of_tracking_reports_a_fault_and_shows_a_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def raises(error: Exception) -> Callable[[Any], Any]:
        def mirror(study: Any) -> Iterator[tuple[str, bool]]:
            yield from ()
            raise error

        return mirror

    monkeypatch.setattr(tracking, "check_tables", lambda study: None)
    monkeypatch.setattr(Study, "load", lambda path: None)
    monkeypatch.setattr(tracking, "mirror", raises(fault("refuses")))
    with pytest.raises(SystemExit, match=r"Cannot log to .*the experiment is deleted"):
        tracking.main(["params.yaml"])
    monkeypatch.setattr(tracking, "mirror", raises(KeyError("outs")))
    with pytest.raises(KeyError):
        tracking.main(["params.yaml"])


# Flows and stages


def fails() -> None:
    raise errors.FlowError("`dvc push s3://me:secret@host/x` failed")


def test_an_error_of_the_project_is_the_final_state_of_a_flow() -> None:
    state: Any = flow_errors.fails_with_message(fails)()
    assert isinstance(state, State)
    assert state.is_failed()
    assert state.message == "FlowError: `dvc push s3://***@host/x` failed"
    assert isinstance(state.data, errors.FlowError), "the caller of the flow gets the error"


def test_a_bug_in_a_flow_is_raised() -> None:
    with pytest.raises(KeyError):
        flow_errors.fails_with_message(throw)(KeyError("x"))


def test_a_command_line_ends_with_the_message() -> None:
    with pytest.raises(SystemExit) as ended:
        flow_errors.command(fails)()
    assert ended.value.code == "FlowError: `dvc push s3://***@host/x` failed"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_a_stage_with_one_line(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise OSError(code, "No room", "data/x.npz")

    monkeypatch.setattr(sys, "argv", ["stages/x.py"])
    with pytest.raises(SystemExit) as ended:
        entry.command(main)
    assert str(ended.value.code).startswith("data/x.npz: No room: free some space in ")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_of_another_user_ends_a_stage_with_one_line(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        raise OSError(code, "Not permitted", "data/x.npz")

    monkeypatch.setattr(sys, "argv", ["stages/x.py"])
    with pytest.raises(SystemExit) as ended:
        entry.command(main)
    user = f"user {os.getuid()} needs the right to it"
    assert ended.value.code == f"data/x.npz: Not permitted: {user}"


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "data")

    monkeypatch.setattr(sys, "argv", ["stages/x.py"])
    with pytest.raises(FileNotFoundError):
        entry.command(main)


@pytest.mark.parametrize("read", [store.read_json, store.read_arrays, store.read_model])
def test_a_missing_result_is_an_error_with_the_command(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    with pytest.raises(errors.MissingFileError, match=r"x\.file: no such file; run `dvc repro`"):
        read(tmp_path / "x.file")


def test_a_result_that_is_not_json_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text("{")
    with pytest.raises(errors.StoreError, match=r"speed\.json: not JSON"):
        store.read_json(tmp_path / "speed.json")
