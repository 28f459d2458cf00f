"""Check this computer and checkout: ``python -m ostinato doctor [--json]``.

Each check is a function of a `Checkout` that returns findings; they run concurrently. A check that
fails is a finding itself. Nothing is changed, and no address is shown with its password.
"""

import configparser
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ostinato.errors import masked
from ostinato.tables import Table, show
from ostinato.training.imports import gpu_log
from ostinato.training.machine import GPU, REQUIRED, available_cores

GB = 1e9
DISK_GB, LOW_DISK_GB = 2.0, 10.0  # free: less is an error, a warning
MEMORY_GB, LOW_MEMORY_GB = 2.0, 4.0  # the default study needs 2 GB
ANSWER_S = 3.0  # longest wait for a server
COMMAND_S = 60.0  # longest wait for a command, such as the import of TensorFlow on a busy machine
CLOCK_S = 86_400.0  # tolerated difference between the clocks of two computers
OLD_S = 20 * 365 * 86_400.0
PORTS = {  # of servers on this computer: the paths that say which one answers
    8000: ("python -m ostinato serve", "/health/live"),
    5000: ("mlflow server", "/version"),
    4200: ("prefect server start", "/api/health"),
}
FOLDERS = ("data", "results", "scratch", ".dvc/cache", ".dvc/tmp")
GPUS = """\
import tensorflow as tf
gpus = tf.config.list_physical_devices("GPU")
details = map(tf.config.experimental.get_device_details, gpus)
print(len(gpus), *(detail.get("device_name") for detail in details))
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Checkout:
    """What is checked.

    Args:
        root: folder of the checkout.
        environment: the variables of the process.
        system: root of the file system, where Linux describes the machine.
    """

    root: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    system: Path = Path("/")


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Args:
        name: of what was checked.
        state: an error stops a part of Ostinato; a warning is worth knowing.
        found: what there is.
        fix: how to fix it; empty where nothing is wrong.
    """

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    fix: str = ""


Check = Callable[[Checkout], Iterable[Finding]]


def examine(checkout: Checkout, checks: Iterable[Check] | None = None) -> list[Finding]:
    """Run all checks, or some; their findings in order."""
    with ThreadPoolExecutor() as threads:
        results = threads.map(partial(_run, checkout), checks or CHECKS)
        return [finding for findings in results for finding in findings]


def _run(checkout: Checkout, check: Check) -> list[Finding]:
    try:
        return list(check(checkout))
    except Exception as error:
        name = getattr(check, "__name__", "check").replace("check_", "")
        text = masked(" ".join(f"{type(error).__name__}: {error}".split()))
        fix = "the check itself failed: correct what the message names, or report it as a bug"
        return [Finding(name, "error", text, fix)]


def report(findings: list[Finding], *, as_json: bool = False) -> int:
    """Print findings; returns the exit code: 1 where there is an error."""
    errors = sum(finding.state == "error" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not errors, "findings": [asdict(f) for f in findings]}, indent=2))
        return int(errors > 0)
    warnings = sum(finding.state == "warning" for finding in findings)
    rows = [(f.state, f.name, f.found) for f in findings]
    fixes = [f"{f.name}: {f.fix}" for f in findings if f.fix]
    show([Table(("", "check", "found"), rows), "", *fixes, f"{errors} errors, {warnings} warnings"])
    return int(errors > 0)


def check_python(checkout: Checkout) -> Iterable[Finding]:
    """The version of Python against pyproject.toml."""
    wanted = _project(checkout)["requires-python"]
    found = ".".join(map(str, sys.version_info[:3]))
    if SpecifierSet(wanted).contains(found):
        yield Finding("Python", "ok", found)
    else:
        fix = f"make an environment with Python {wanted}: `python3.11 -m venv .venv`"
        yield Finding("Python", "error", f"{found}; expected {wanted}", fix)


def check_packages(checkout: Checkout) -> Iterable[Finding]:
    """The installed packages against pyproject.toml."""
    project = _project(checkout)
    extras = project["optional-dependencies"]
    groups = {"": project["dependencies"], **{k: v for k, v in extras.items() if k != "all"}}
    for extra, requirements in groups.items():
        wrong = list(filter(None, map(_mismatch, requirements)))
        name = f"packages of {extra}" if extra else "packages"
        if wrong:
            state: Literal["warning", "error"] = "warning" if extra else "error"
            fix = "`pip install -r requirements.txt` installs the versions that were tested"
            yield Finding(name, state, "; ".join(wrong), fix)
        elif not extra:
            yield Finding(name, "ok", f"{len(requirements)} fit pyproject.toml")


def _mismatch(text: str) -> str:
    """What is wrong with the installed version of a requirement; empty where nothing is."""
    wanted = Requirement(text)
    if wanted.name == "ostinato" or (wanted.marker and not wanted.marker.evaluate()):
        return ""
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} {found}, expected {wanted.specifier}"


def _project(checkout: Checkout) -> dict[str, Any]:
    with (checkout.root / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def check_disk(checkout: Checkout) -> Iterable[Finding]:
    """Free space where files are written, once for each file system."""
    places: dict[int, list[str]] = {}
    for name in FOLDERS:
        places.setdefault(_existing(checkout.root / name).stat().st_dev, []).append(name)
    for names in places.values():
        free = shutil.disk_usage(_existing(checkout.root / names[0])).free / GB
        state: Literal["ok", "warning", "error"] = (
            "error" if free < DISK_GB else "warning" if free < LOW_DISK_GB else "ok"
        )
        fix = (
            ""
            if state == "ok"
            else ("free some space; `python -m flows.maintain --dry-run` lists what nothing needs")
        )
        yield Finding("disk", state, f"{free:,.1f} GB free for {', '.join(names)}", fix)


def check_writing(checkout: Checkout) -> Iterable[Finding]:
    """The right to write where stages write."""
    refused = []
    for name in (".", *FOLDERS):
        try:
            with tempfile.TemporaryFile(dir=_existing(checkout.root / name)):
                pass
        except OSError as error:
            refused.append(f"{name}: {error.strerror}")
    if refused:
        user = os.getuid() if hasattr(os, "getuid") else "this user"
        fix = f"give user {user} the right to write there (`chown -R`, or another mount)"
        yield Finding("write permission", "error", "; ".join(refused), fix)
    else:
        yield Finding("write permission", "ok", f"in the checkout and {', '.join(FOLDERS)}")


def _existing(path: Path) -> Path:
    """A folder, or its nearest parent that exists."""
    return path if path.is_dir() else _existing(path.parent)


def check_memory(checkout: Checkout) -> Iterable[Finding]:
    """Available memory, and the limit of the container."""
    lines = (checkout.system / "proc/meminfo").read_text().splitlines()
    kilobytes = {key: int(rest.split()[0]) for key, _, rest in (x.partition(":") for x in lines)}
    available = kilobytes["MemAvailable"] * 1024 / GB
    text = f"{available:,.1f} GB available"
    limit = _cgroup(checkout, "memory.max", "memory/memory.limit_in_bytes")
    if limit.isdecimal() and int(limit) < kilobytes["MemTotal"] * 1024:
        text += f", {int(limit) / GB:,.1f} GB allowed by the container"
        available = min(available, int(limit) / GB)
    if available < LOW_MEMORY_GB:
        fix = "stop other programs, raise the container's limit, or lower batch_size and workers"
        yield Finding("memory", "error" if available < MEMORY_GB else "warning", text, fix)
    else:
        yield Finding("memory", "ok", text)


def check_cores(checkout: Checkout) -> Iterable[Finding]:
    """The processor cores, and the limit of the container."""
    cores = available_cores()
    quota, _, period = _cgroup(checkout, "cpu.max", "").partition(" ")
    allowed = int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else cores
    if allowed < cores:
        text = f"{cores}, of which the container may use {allowed:g}"
        fix = (
            "threads wait for one another: set TF_NUM_INTRAOP_THREADS and TF_NUM_INTEROP_THREADS "
            f"to {max(1, round(allowed))}"
        )
        yield Finding("cores", "warning", text, fix)
    else:
        yield Finding("cores", "ok", str(cores))


def _cgroup(checkout: Checkout, second: str, first: str) -> str:
    """A limit of the process's control group, version 2 or 1; empty where there is none."""
    for name in filter(None, (second, first)):
        file = checkout.system / "sys/fs/cgroup" / name
        if file.is_file():
            return file.read_text().strip()
    return ""


def check_gpu(checkout: Checkout) -> Iterable[Finding]:
    """What TensorFlow sees, in its own words."""
    seen = _output([sys.executable, "-c", GPUS], checkout)
    number, _, names = seen.splitlines()[-1].partition(" ")
    if int(number):
        yield Finding("GPU", "ok", f"{number}: {names}")
        return
    card = (checkout.system / "dev/nvidia0").exists()
    required = checkout.environment.get(GPU) == REQUIRED
    if not card and not required:
        yield Finding("GPU", "ok", "none; models train on the CPU")
        return
    found = "TensorFlow sees no GPU; its log: " + " | ".join(map(str.strip, gpu_log().splitlines()))
    fix = "install NVIDIA's driver and `pip install 'tensorflow[and-cuda]'`"
    if required:
        fix += f", or unset {GPU} to allow the CPU"
    yield Finding("GPU", "error" if required else "warning", found, fix)


def check_ports(_: Checkout) -> Iterable[Finding]:
    """The ports of the servers: free, or who answers."""
    for port, (command, path) in PORTS.items():
        yield check_port(port, command, path)


def check_port(port: int, command: str, path: str) -> Finding:
    """Whether a port of this computer is free for a server, or the server answers there."""
    name = f"port {port}"
    try:
        socket.create_connection(("127.0.0.1", port), ANSWER_S).close()
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return Finding(name, "ok", f"free for `{command}`")
        return Finding(name, "warning", f"no connection: {error}", f"`{command} --port` another")
    problem = _problem(f"http://127.0.0.1:{port}{path}")
    if not problem:
        return Finding(name, "ok", f"`{command}` answers")
    fix = f"end that program, or start `{command}` with another --port"
    return Finding(name, "warning", f"in use by another program: {problem}", fix)


def check_mlflow(checkout: Checkout) -> Iterable[Finding]:
    """MLflow's server, where its address is set."""
    address = checkout.environment.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith(("http://", "https://")):
        where = masked(address.partition("?")[0]) if address else "mlflow.db in the checkout"
        yield Finding("MLflow", "ok", f"no server is set: {where}")
        return
    yield _server("MLflow", address, "/health", "MLFLOW_TRACKING_URI", "mlflow server")


def check_prefect(checkout: Checkout) -> Iterable[Finding]:
    """Prefect's server, where its address is set."""
    address = checkout.environment.get("PREFECT_API_URL", "")
    if not address:
        yield Finding("Prefect", "ok", "no server is set: a flow starts one for itself")
        return
    yield _server("Prefect", address, "/health", "PREFECT_API_URL", "prefect server start")


def _server(name: str, address: str, path: str, variable: str, command: str) -> Finding:
    shown = masked(address.partition("?")[0])
    problem = _problem(address.rstrip("/") + path)
    if not problem:
        return Finding(name, "ok", f"{shown} answers")
    fix = f"start it (`{command}`), correct {variable}, or unset it"
    return Finding(name, "error", f"{variable}={shown}: {problem}", fix)


def _problem(address: str) -> str:
    """Why a server does not answer a request with success; empty where it does."""
    try:
        response = httpx.get(address, timeout=ANSWER_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return masked(f"{type(error).__name__}: {error}")
    return (
        "" if response.is_success else f"status {response.status_code} for {urlsplit(address).path}"
    )


def check_remote(checkout: Checkout) -> Iterable[Finding]:
    """DVC's default remote: a folder that exists, or a host that accepts connections."""
    config = configparser.ConfigParser(interpolation=None)
    config.read([checkout.root / ".dvc" / name for name in ("config", "config.local")])
    remote = config.get("core", "remote", fallback="")
    if not remote:
        text = "none is set: data and models stay on this computer"
        yield Finding("DVC remote", "warning", text, "`dvc remote add --default store ADDRESS`")
        return
    section = f"'remote \"{remote}\"'"
    url = config.get(section, "url", fallback="")
    address = config.get(section, "endpointurl", fallback=url)
    shown = masked(address.partition("?")[0])
    parts = urlsplit(address)
    if "://" not in address:
        folder = checkout.root / ".dvc" / address
        problem = "" if address and folder.is_dir() else "no such folder"
    elif not parts.hostname or (parts.scheme == "s3" and address == url):
        problem = _connection("s3.amazonaws.com", 443)
    else:
        standard = {"http": 80, "ssh": 22}.get(parts.scheme, 443)
        problem = _connection(parts.hostname, parts.port or standard)
    if problem:
        fix = f"check the network, or set the address: `dvc remote modify {remote} url ADDRESS`"
        yield Finding("DVC remote", "error", f"{remote}, {shown}: {problem}", fix)
    else:
        yield Finding("DVC remote", "ok", f"{remote}, {shown}: reachable; rights are not checked")


def _connection(host: str, port: int) -> str:
    """Why a host does not accept a connection; empty where it does."""
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError as error:
        return f"no connection to port {port}: {error}"
    return ""


def check_git(checkout: Checkout) -> Iterable[Finding]:
    """The state of git's working tree."""
    try:
        commit = _output(["git", "rev-parse", "--short", "HEAD"], checkout).strip()
        changed = _output(["git", "status", "--porcelain"], checkout).splitlines()
        shallow = _output(["git", "rev-parse", "--is-shallow-repository"], checkout).strip()
    except (OSError, subprocess.CalledProcessError) as error:
        text = getattr(error, "stderr", None) or str(error)
        fix = "work in a git clone; in an archive: `dvc config --local core.no_scm true`"
        yield Finding("git", "warning", " ".join(text.split()), fix)
        return
    state: Literal["ok", "warning"] = "warning" if shallow == "true" else "ok"
    text = f"commit {commit}, {len(changed)} uncommitted changes"
    if shallow == "true":
        text += ", a shallow clone: `maintain` keeps DVC's cache as it is"
    yield Finding("git", state, text, "`git fetch --unshallow`" if shallow == "true" else "")


def check_browser(checkout: Checkout) -> Iterable[Finding]:
    """A browser without a window, for the tests of the page and for screenshots."""
    path = checkout.environment.get("PATH", "")
    if found := next(filter(None, (shutil.which(name, path=path) for name in BROWSERS)), None):
        yield Finding("browser", "ok", found)
    else:
        fix = "only tests of the page and screenshots need it: `apt-get install chromium`"
        yield Finding("browser", "warning", f"none of {', '.join(BROWSERS)} in PATH", fix)


def check_clock(checkout: Checkout) -> Iterable[Finding]:
    """The clock against the time of the latest commit, or of pyproject.toml."""
    file = checkout.root / "pyproject.toml"
    try:
        known = float(_output(["git", "log", "-1", "--format=%ct"], checkout))
    except (OSError, ValueError, subprocess.CalledProcessError):
        known = file.stat().st_mtime
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if -CLOCK_S < now - known < OLD_S:
        yield Finding("clock", "ok", text)
    else:
        written = time.strftime("%Y-%m-%d", time.gmtime(known))
        fix = "set the clock (`timedatectl set-ntp true`): schedules, tokens and TLS depend on it"
        yield Finding("clock", "error", f"{text}; the code is of {written}", fix)


def _output(command: list[str], checkout: Checkout) -> str:
    """What a command prints.

    Raises:
        CalledProcessError: it fails.
        TimeoutExpired: it takes longer than `COMMAND_S`.
    """
    done = subprocess.run(
        command,
        cwd=checkout.root,
        env={**checkout.environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=COMMAND_S,
    )
    return done.stdout


CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_disk,
    check_writing,
    check_memory,
    check_cores,
    check_gpu,
    check_ports,
    check_mlflow,
    check_prefect,
    check_remote,
    check_git,
    check_browser,
    check_clock,
)
