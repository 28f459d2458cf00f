"""Searches of many processes: none trains a trial twice, and a killed one's is taken up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from flows.engine import search as search_settings
from flows.engine import search_storage
from flows.engine.search import state_of
from flows.engine.search_trials import Heartbeats, draw_index, is_superfluous
from ostinato import errors
from tests import searchers, servers

ROOT = Path(__file__).parent.parent
POSTGRES = pytest.mark.skipif(
    not Path("/usr/lib/postgresql").exists(), reason="needs apt-get install postgresql"
)


@contextlib.contextmanager
def process(*argv: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of the checkout, killed with its children at the end."""
    started = servers.start(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL cluster on loopback."""
    from bench.postgres import cluster

    with cluster() as (address, _):
        yield f"postgresql{address}/postgres"


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a storage of the kind of the test's parameter."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/studies.db"
        return
    address = request.getfixturevalue("postgres")
    if request.param == "postgres":
        yield address
        return
    port = servers.closed_port()
    command = ("flows.engine.search_proxy", "--port", str(port))
    with process(*command, OPTUNA_STORAGE=address) as proxy:
        assert proxy.stdout
        line = proxy.stdout.readline()
        assert line.startswith("serves postgresql://***@127.0.0.1:"), "without the password"
        yield f"grpc://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "storage",
    ["sqlite", pytest.param("postgres", marks=POSTGRES), pytest.param("proxy", marks=POSTGRES)],
    indirect=True,
)
def test_ten_processes_in_two_clones_share_a_search(storage: str, tmp_path: Path) -> None:
    name = storage.partition(":")[0]
    clones = [tmp_path / "one", tmp_path / "two"]
    for clone in clones:
        clone.mkdir()

    def trained() -> list[dict[str, Any]]:
        files = [clone / "trained" for clone in clones if (clone / "trained").exists()]
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def hanging() -> list[int]:
        return [note["process"] for note in trained() if note["number"] == searchers.HANGING]

    with process("tests.searchers", storage, name, *map(str, clones)) as parent:
        deadline = time.monotonic() + 300
        while not hanging():
            assert time.monotonic() < deadline, "no process got the trial"
            time.sleep(0.1)
        os.kill(hanging()[0], signal.SIGKILL)
        codes = json.loads(parent.communicate(timeout=300)[0])
    assert codes == [-signal.SIGKILL, *[0] * 9]
    expected = Counter(map(str, range(searchers.TOTAL)))
    [killed] = (note["x"] for note in trained() if note["number"] == searchers.HANGING)
    assert Counter(note["x"] for note in trained()) == expected + Counter([killed])
    assert len({note["process"] for note in trained()}) > 5
    assert all((clone / "trained").exists() for clone in clones)
    with search_storage.reports_failures(storage):
        study = optuna.load_study(study_name=name, storage=search_storage.open_storage(storage))
    known = study.get_trials()
    states = Counter(state_of(trial) for trial in known)
    assert (states.pop("complete"), states.pop("killed")) == (searchers.TOTAL, 1)
    assert set(states) <= {"superfluous", "waiting"}
    rest = [trial.number for trial in known if state_of(trial) in ("superfluous", "waiting")]
    points = list(map(str, range(searchers.TOTAL)))
    assert all(is_superfluous(known, number, searchers.TOTAL, points) for number in rest)


def trials(*kinds: str) -> list[optuna.trial.FrozenTrial]:
    """Trials: complete, running, killed, superfluous, or waiting:N, which takes up trial N."""
    made = []
    for number, kind in enumerate(kinds):
        name, _, again = kind.partition(":")
        attributes: dict[str, Any] = {"again": int(again)} if again else {}
        if name == "superfluous":
            attributes["superfluous"] = True
        states = {"killed": "FAIL", "superfluous": "FAIL"}
        state = optuna.trial.TrialState[states.get(name, name.upper())]
        value = 1.0 if name == "complete" else None
        trial = create_trial(state=state, value=value, user_attrs=attributes)
        trial.number = number
        made.append(trial)
    return made


def test_a_taken_up_trial_has_the_rank_of_the_first() -> None:
    known = trials("complete", "killed", "complete", "killed:1", "complete", "running:3")
    assert [draw_index(known, number) for number in range(7)] == [0, 1, 2, 1, 3, 1, 4]


def test_a_trial_is_superfluous_where_others_have_its_place() -> None:
    known = trials("complete", "killed", "running", "running:1", "running", "running:1")
    found = [is_superfluous(known, number, 4, None) for number in (2, 3, 4, 5)]
    assert found == [False, False, False, True], "taken up twice"
    assert [is_superfluous(known, n, 3, None) for n in (3, 4)] == [False, True], "one too many"
    assert is_superfluous(trials(*["complete"] * 3, "running"), 3, 9, ["a", "b", "c"])


def test_a_trial_is_dead_when_its_heartbeat_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_settings, "HEARTBEAT_INTERVAL_S", 5)
    monkeypatch.setattr(search_settings, "HEARTBEAT_TIMEOUT_S", 20)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heartbeats = Heartbeats()
    running = trials("running", "running")
    dead_after = []
    for second in range(0, 60, 5):
        now[0] = second
        running[0].set_user_attr("heartbeat", second)
        dead_after += [(second, trial.number) for trial in heartbeats.dead(running)]
    assert dead_after[0] == (25, 1)
    assert {number for _, number in dead_after} == {1}
    now[0] = 1000.0  # this process was suspended, and so was the other
    assert [trial.number for trial in heartbeats.dead(running)] == [1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", r"found 'nonsense'; expected sqlite:///PATH, postgresql://"),
        ("grpc://host", r"expected grpc://HOST:PORT"),
        ("postgresql+nodriver://anna:hunter2@h/x", r"//\*\*\*@h/x"),
        ("postgresql://anna:hunter2@127.0.0.1:9/x", r"storage postgresql://\*\*\*@127.0.0.1:9/x"),
        ("grpc://127.0.0.1:9", "start `python -m flows.engine.search_proxy`"),
    ],
)
def test_a_storage_that_cannot_be_used_is_an_error_without_a_password(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setattr(search_storage, "CONNECT_TIMEOUT_S", 1)
    with pytest.raises(errors.OstinatoError, match=message) as raised:
        search_storage.open_storage(address)
    assert "hunter2" not in str(raised.value)
