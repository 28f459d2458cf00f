"""The request log keeps what was asked and answered, and loses at most one interval."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ostinato.serving import request_log
from ostinato.serving.request_log import FEEDBACK, Exchange, RequestLog, Writer, files, read
from tests.echo import Input, until

KEY = b"a key of sixteen and more"
TODAY = datetime.now(UTC)


def exchange(number: int, count: int = 1) -> Exchange:
    return Exchange(
        request_id=f"{number:032x}",
        model="echo",
        version="1",
        options={"scale": 1},
        inputs=[Input(value=number + i) for i in range(count)],
        outputs=[json.dumps({"doubled": 2 * (number + i)}).encode() for i in range(count)],
        body_bytes=100 * count,
        latency_ms=1.5,
        batch_items=count,
    )


def opened(folder: Path, **changed: Any) -> RequestLog:
    settings = {
        "interval_s": 60, "max_bytes": 10**9, "inputs": "keep", "outputs": "keep", "key": KEY,
    }  # fmt: skip
    return RequestLog(folder, **{**settings, **changed})


def row(number: int, time: datetime = TODAY) -> dict[str, Any]:
    return {
        "time": time, "request_id": f"{number:032x}", "item": 0, "model": "echo", "truth": "1",
    }  # fmt: skip


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "feedback", FEEDBACK, interval_s=60, max_bytes=10**9, full="remove")
    yield made
    made.close()


def rows(folder: Path, table: Any = "feedback") -> list[int]:
    return [int(each, 16) for each in read(folder, table)["request_id"].to_pylist()]


def test_a_closed_log_has_every_request_with_its_answer(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(500):
        log.add(exchange(number, count=1 + number % 3))
    log.close()
    found = read(tmp_path, "requests").to_pylist()
    assert len(found) == sum(1 + number % 3 for number in range(500))
    for each in found:
        value = int(each["request_id"], 16) + each["item"]
        assert json.loads(each["input"]) == {"value": value}
        assert json.loads(each["output"]) == {"doubled": 2 * value}
        assert json.loads(each["options"]) == {"scale": 1}
        assert (each["model"], each["version"], each["latency_ms"]) == ("echo", "1", 1.5)
        assert abs(each["time"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert log.requests.written == len(found)


def test_rows_are_on_disk_after_the_interval_in_files_that_are_whole(tmp_path: Path) -> None:
    log = opened(tmp_path, interval_s=0.05)
    for number in range(20):
        log.add(exchange(number))
        time.sleep(0.01)
        for file in files(tmp_path, "requests"):  # never a part of one
            pq.read_table(BytesIO(file.read_bytes()))  # it may be replaced meanwhile
    until(lambda: rows(tmp_path, "requests") == list(range(20)))
    assert len(files(tmp_path, "requests")) == 1
    log.close()
    assert rows(tmp_path, "requests") == list(range(20))


def test_a_killed_process_loses_at_most_the_last_interval(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from tests.test_request_log import exchange, opened, rows, until
log = opened(Path({str(tmp_path)!r}), interval_s=0.1)
for number in range(10):
    log.add(exchange(number))
until(lambda: len(rows(Path({str(tmp_path)!r}), "requests")) == 10)
log.add(exchange(10))
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
    assert rows(tmp_path, "requests")[:10] == list(range(10))


def test_what_a_killed_process_has_left_is_removed_later(tmp_path: Path) -> None:
    day = tmp_path / "requests" / "day=2026-01-02"
    day.mkdir(parents=True)
    old, new = day / ".partial.a.parquet", day / ".partial.b.parquet"
    for file in (old, new):
        file.write_bytes(b"a part")
    os.utime(old, (0, 0))
    opened(tmp_path).close()
    assert (old.exists(), new.exists()) == (False, True)  # another process may be writing it
    assert rows(tmp_path, "requests") == []


def test_each_day_of_utc_has_its_folder(tmp_path: Path, writer: Writer) -> None:
    night = datetime(2026, 3, 1, 23, 59, 59, 999_999, UTC)
    for number, when in enumerate([night, night + timedelta(microseconds=1), night]):
        writer.add(10, lambda number=number, when=when: row(number, when))  # type: ignore[misc]
    writer.close()
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    assert [file.parent.name for file in files(tmp_path, "feedback")] == [
        f"day={first}",
        f"day={second}",
    ]
    assert len(read(tmp_path, "feedback", until=first)) == 2
    assert len(read(tmp_path, "feedback", since=second)) == 1
    assert len(read(tmp_path, "feedback", since=second + timedelta(1))) == 0


def test_a_file_that_is_full_is_followed_by_another(
    tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "FILE_ROWS", 10)
    for number in range(35):
        writer.add(10, lambda number=number: row(number))  # type: ignore[misc]
        if number % 5 == 4:
            writer._write()
    writer.close()
    assert [len(pq.read_table(file)) for file in files(tmp_path, "feedback")] == [10, 10, 10, 5]
    assert rows(tmp_path) == list(range(35))


def test_several_processes_write_beside_each_other(tmp_path: Path) -> None:
    logs = [opened(tmp_path) for _ in range(3)]
    for number in range(30):
        logs[number % 3].add(exchange(number))
    for log in logs:
        log.close()
    assert len(files(tmp_path, "requests")) == 3
    assert sorted(rows(tmp_path, "requests")) == list(range(30))


@pytest.mark.parametrize("privacy", ["hash", "omit"])
def test_inputs_and_outputs_can_be_hashed_or_left_out(tmp_path: Path, privacy: str) -> None:
    log = opened(tmp_path, inputs=privacy, outputs=privacy)
    for number in (1, 1, 2):
        log.add(exchange(number))
    log.close()
    found = read(tmp_path, "requests").to_pylist()
    text = b"".join(file.read_bytes() for file in files(tmp_path, "requests"))
    assert b"doubled" not in text
    for column in ("input", "output"):
        one, again, other = (each[column] for each in found)
        if privacy == "omit":
            assert one is again is other is None
        else:
            assert one == again != other
            assert len(one) == 64
            assert one != sha256(b'{"value":1}').hexdigest()  # has a key


def test_the_oldest_files_make_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for day in (1, 2, 3):
        folder = tmp_path / "feedback" / f"day=2026-01-0{day}"
        folder.mkdir(parents=True)
        (folder / "a.parquet").write_bytes(bytes(4000))
        (folder / "not-ours.txt").write_bytes(b"x" * 9000)
    (tmp_path / "feedback" / "day=2026-01-02" / "not-ours.txt").unlink()
    with caplog.at_level(logging.WARNING):
        writer = Writer(
            tmp_path / "feedback", FEEDBACK, interval_s=60, max_bytes=6000, full="remove"
        )
        writer.add(10, lambda: row(1))
        writer.close()
    left = sorted(file.parent.name for file in files(tmp_path, "feedback"))
    assert left == [f"day={min('2026-01-03', str(TODAY.date()))}", f"day={TODAY.date()}"]
    assert caplog.text.count("removed") == 2
    assert not (tmp_path / "feedback" / "day=2026-01-02").exists()
    assert (tmp_path / "feedback" / "day=2026-01-01" / "not-ours.txt").exists()


def test_a_table_that_must_not_lose_rows_refuses_them_when_it_is_full(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "feedback", FEEDBACK, interval_s=60, max_bytes=1000, full="refuse")
    assert writer.add(10, lambda: row(1))
    writer._write()
    assert not writer.add(10, lambda: row(2))
    writer.close()
    assert (rows(tmp_path), writer.dropped) == ([1], 1)


def test_a_disk_that_fails_loses_nothing_once_it_works_again(
    tmp_path: Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write, failures = pq.write_table, [True, False, True]

    def failing(table: Any, *arguments: Any, **more: Any) -> None:
        if failures and failures.pop():
            raise OSError(28, "No space left on device")
        write(table, *arguments, **more)

    monkeypatch.setattr(pq, "write_table", failing)
    writer.interval_s = 0.02
    writer._wake.set()
    yesterday = TODAY - timedelta(1)
    for number in range(6):  # of two days: the first is written, the second fails
        when = yesterday if number < 3 else TODAY
        writer.add(10, lambda number=number, when=when: row(number, when))  # type: ignore[misc]
    with caplog.at_level(logging.ERROR):
        until(lambda: rows(tmp_path) == list(range(6)))
    assert "No space left on device" in caplog.text
    writer.close()
    assert rows(tmp_path) == list(range(6))
    assert not list(tmp_path.rglob(".partial.*"))


def test_rows_beyond_the_memory_bound_are_dropped_and_counted(
    tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "MAX_PENDING_BYTES", 1000)
    kept = [writer.add(300, lambda number=number: row(number)) for number in range(5)]  # type: ignore[misc]
    assert kept == [True, True, True, False, False]
    writer._write()
    assert writer.add(300, lambda: row(9))
    writer.close()
    assert (rows(tmp_path), writer.written, writer.dropped) == ([0, 1, 2, 9], 4, 2)


def test_many_bytes_are_written_before_the_interval_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WRITE_BYTES", 500)
    log = opened(tmp_path, interval_s=3600)
    for number in range(5):
        log.add(exchange(number))
    until(lambda: len(rows(tmp_path, "requests")) >= 2)
    log.close()


def test_a_row_that_cannot_be_written_leaves_the_others(tmp_path: Path, writer: Writer) -> None:
    def bad() -> Mapping[str, Any]:
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    writer.add(10, lambda: row(1))
    writer.add(10, bad)  # type: ignore[arg-type]
    writer.add(10, lambda: row(2))
    writer.close()
    assert (rows(tmp_path), writer.dropped) == ([1, 2], 1)


def test_only_the_owner_reads_the_log(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    log.add(exchange(1))
    log.close()
    (file,) = files(tmp_path / "log", "requests")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_feedback_is_found_by_the_request(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.add(exchange(1, count=2))
    assert log.add_feedback(f"{1:032x}", 1, "echo", {"label": "caf\u00e9 \ud800"})
    log.close()
    (label,) = read(tmp_path, "feedback").to_pylist()
    asked = read(tmp_path, "requests").to_pylist()
    (matching,) = [
        each
        for each in asked
        if (each["request_id"], each["item"]) == (label["request_id"], label["item"])
    ]
    assert json.loads(matching["input"]) == {"value": 2}
    assert json.loads(label["truth"]) == {"label": "caf\u00e9 \ud800"}
