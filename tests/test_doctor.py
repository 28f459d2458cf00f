"""`ostinato doctor` in broken worlds: each check names what is wrong and how to fix it."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ostinato import cli, doctor
from ostinato.doctor import Checkout, Finding

PROJECT = """\
[project]
requires-python = ">={python}"
dependencies = [{dependencies}]
[project.optional-dependencies]
drawings = [{extra}]
all = ["ostinato[drawings]"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in order, on a computer of 8 GB."""
    root, system = tmp_path / "checkout", tmp_path / "system"
    (root / ".dvc" / "cache").mkdir(parents=True)
    write(root, python="3.11", dependencies='"numpy>=1"', extra='"pydantic>=2"')
    (system / "proc").mkdir(parents=True)
    text = "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n"
    (system / "proc" / "meminfo").write_text(text)
    (system / "sys" / "fs" / "cgroup").mkdir(parents=True)
    return Checkout(root, {"PATH": os.environ["PATH"]}, system)


def write(root: Path, **parts: str) -> None:
    (root / "pyproject.toml").write_text(PROJECT.format(**parts))


def states(findings: Iterable[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    assert (finding.state == "ok") == (not finding.fix), "what is wrong has a fix"
    return finding


def with_variables(checkout: Checkout, **variables: str) -> Checkout:
    return Checkout(checkout.root, {**checkout.environment, **variables}, checkout.system)


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers every request with a status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_python_that_is_too_old(checkout: Checkout) -> None:
    assert only(doctor.check_python(checkout)).state == "ok"
    write(checkout.root, python="9.1", dependencies="", extra="")
    found = only(doctor.check_python(checkout))
    assert found.state == "error"
    assert "expected >=9.1" in found.found


def test_packages_that_are_missing_or_old(checkout: Checkout) -> None:
    assert states(doctor.check_packages(checkout)) == ["ok"]
    extra = '"no-such-package>=1", "other; python_version < \'3\'", "ostinato[all]"'
    write(checkout.root, python="3", dependencies='"numpy>=99"', extra=extra)
    core, drawings = doctor.check_packages(checkout)
    assert (core.state, drawings.state) == ("error", "warning")
    assert "expected >=99" in core.found
    assert drawings.found == "no-such-package is not installed"


@pytest.mark.parametrize(("free", "state"), [(1, "error"), (5, "warning"), (50, "ok")])
def test_little_space(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    usage = type("Usage", (), {"free": free * 1e9})
    monkeypatch.setattr("ostinato.doctor.shutil.disk_usage", lambda _: usage)
    found = only(doctor.check_disk(checkout))  # all folders are on one file system
    assert found.state == state
    assert f"{free:.1f} GB free for data, results" in found.found


def test_a_folder_that_cannot_be_written(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(doctor.check_writing(checkout)).state == "ok"

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ostinato.doctor.tempfile.TemporaryFile", refuse)
    found = only(doctor.check_writing(checkout))
    assert found.state == "error"
    assert "data: Permission denied" in found.found


@pytest.mark.parametrize(
    ("limit", "state"), [("max", "ok"), ("3000000000", "warning"), ("500000000", "error")]
)
def test_a_container_with_little_memory(checkout: Checkout, limit: str, state: str) -> None:
    (checkout.system / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    assert only(doctor.check_memory(checkout)).state == state


@pytest.mark.parametrize(("limit", "state"), [("max 100000", "ok"), ("50000 100000", "warning")])
def test_a_container_with_part_of_a_core(checkout: Checkout, limit: str, state: str) -> None:
    (checkout.system / "sys/fs/cgroup/cpu.max").write_text(f"{limit}\n")
    assert only(doctor.check_cores(checkout)).state == state


@pytest.mark.parametrize(
    ("card", "variables", "state"),
    [(False, {}, "ok"), (True, {}, "warning"), (False, {"OSTINATO_GPU": "required"}, "error")],
)
def test_a_gpu_that_tensorflow_does_not_see(
    checkout: Checkout,
    monkeypatch: pytest.MonkeyPatch,
    card: bool,
    variables: dict[str, str],
    state: str,
) -> None:
    if card:
        (checkout.system / "dev").mkdir()
        (checkout.system / "dev" / "nvidia0").touch()
    monkeypatch.setattr("ostinato.doctor._output", lambda *_: "a line\n0\n")
    monkeypatch.setattr("ostinato.doctor.gpu_log", lambda: "  no libcuda.so")
    found = only(doctor.check_gpu(with_variables(checkout, **variables)))
    assert found.state == state
    assert ("no libcuda.so" in found.found) == (state != "ok")


def test_a_port_is_free_or_ours_or_of_another_program() -> None:
    def check(port: int) -> Finding:
        return only([doctor.check_port(port, "mlflow server", "/version")])

    assert check(closed_port()).found == "free for `mlflow server`"
    with answering(200) as port:
        assert check(port).found == "`mlflow server` answers"
    with answering(404) as port:
        assert check(port).state == "warning"
        assert "status 404" in check(port).found


@pytest.mark.parametrize(
    ("check", "variable"),
    [(doctor.check_mlflow, "MLFLOW_TRACKING_URI"), (doctor.check_prefect, "PREFECT_API_URL")],
)
def test_a_server_that_does_not_answer(
    checkout: Checkout, check: doctor.Check, variable: str
) -> None:
    assert only(check(checkout)).state == "ok"
    address = f"http://user:hunter2@127.0.0.1:{closed_port()}/api?token=hunter2"
    found = only(check(with_variables(checkout, **{variable: address})))
    assert found.state == "error"
    assert variable in found.found
    assert "hunter2" not in str(found)
    with answering(200) as port:
        address = f"http://127.0.0.1:{port}"
        assert only(check(with_variables(checkout, **{variable: address}))).state == "ok"


def test_a_database_is_shown_without_its_password(checkout: Checkout) -> None:
    address = "postgresql://user:hunter2@host/mlflow"
    found = only(doctor.check_mlflow(with_variables(checkout, MLFLOW_TRACKING_URI=address)))
    assert found.found == "no server is set: postgresql://***@host/mlflow"


def test_a_remote_that_cannot_be_reached(checkout: Checkout) -> None:
    assert only(doctor.check_remote(checkout)).state == "warning"

    def check(*lines: str) -> Finding:
        text = "\n".join(["[core]", "remote = store", "['remote \"store\"']", *lines])
        (checkout.root / ".dvc" / "config.local").write_text(text)
        return only(doctor.check_remote(checkout))

    assert check("url = ../../missing").state == "error"
    assert check("url = ../data%").state == "error"
    assert check(f"url = {checkout.root}").state == "ok"
    address = f"http://user:hunter2@127.0.0.1:{closed_port()}"
    broken = check("url = s3://bucket/dvc", f"endpointurl = {address}")
    assert broken.state == "error"
    assert "hunter2" not in str(broken)
    with answering(200) as port:
        assert (
            check("url = s3://bucket/dvc", f"endpointurl = http://127.0.0.1:{port}").state == "ok"
        )


def test_a_folder_without_git(checkout: Checkout) -> None:
    environment = {"GIT_CEILING_DIRECTORIES": str(checkout.root.parent)}
    found = only(doctor.check_git(with_variables(checkout, **environment)))
    assert found.state == "warning"
    assert "not a git repository" in found.found


def test_git_is_not_installed(checkout: Checkout) -> None:
    found = only(doctor.check_git(with_variables(checkout, PATH=str(checkout.root))))
    assert found.state == "warning"


def test_the_changes_of_a_working_tree_are_counted(checkout: Checkout) -> None:
    git = ["git", "-C", str(checkout.root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-qm", "Begin", "--allow-empty"], check=True)
    assert ", 1 uncommitted changes" in only(doctor.check_git(checkout)).found
    assert only(doctor.check_clock(checkout)).state == "ok"


@pytest.mark.parametrize(("path", "state"), [("bin", "ok"), ("nothing", "warning")])
def test_a_browser(checkout: Checkout, path: str, state: str) -> None:
    file = checkout.root / "bin" / "chromium"
    file.parent.mkdir()
    file.touch(0o755)
    environment = with_variables(checkout, PATH=str(checkout.root / path))
    assert only(doctor.check_browser(environment)).state == state


@pytest.mark.parametrize("now", [0.0, 5e9])
def test_an_absurd_clock(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr("ostinato.doctor.time.time", lambda: now)
    found = only(doctor.check_clock(checkout))
    assert found.state == "error"
    assert "set the clock" in found.fix


def test_a_check_that_fails_is_a_finding_and_ends_no_other(checkout: Checkout) -> None:
    def check_broken(_: Checkout) -> Iterable[Finding]:
        raise RuntimeError("no answer of\nhttp://user:hunter2@host")

    broken, python = doctor.examine(checkout, [check_broken, doctor.check_python])
    assert (broken.state, python.state) == ("error", "ok")
    assert broken.found == "RuntimeError: no answer of http://***@host"
    assert broken.name == "broken"


def test_outside_of_a_checkout_every_check_has_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostinato.doctor._output", lambda *_: "0\n")
    findings = doctor.examine(Checkout(tmp_path, {}))
    assert {"python", "packages"} <= {f.name for f in findings if f.state == "error"}


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 0), ("error", 1)])
def test_the_command_prints_findings_and_returns_1_for_an_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
    code: int,
) -> None:
    finding = Finding("disk", state, "1.0 GB free", "" if code == 0 else "free some space")  # type: ignore[arg-type]
    monkeypatch.setattr("ostinato.doctor.CHECKS", (lambda _: [finding],))
    assert cli.main(["doctor"]) == code
    assert "1.0 GB free" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"ok": code == 0, "findings": [vars(finding)]}


def test_the_module_imports_no_tensorflow() -> None:
    code = "import sys, ostinato.doctor; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
