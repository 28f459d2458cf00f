"""What was asked, answered and said of the answers: daily folders of Parquet files.

    FOLDER/requests/day=2026-11-30/*.parquet    a row for each input that was answered
    FOLDER/feedback/day=2026-11-30/*.parquet    a row for each label that a client has sent

Days are of UTC. A thread writes: adding a row never waits. The file that a process is filling is
written again as a whole at each interval and takes its name when it is complete, so a reader never
sees a part of one, and a killed process loses at most the rows of one interval.
"""

import hashlib
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ostinato.serving.settings import Privacy
from ostinato.task import Json

MAX_PENDING_BYTES = 32 << 20  # of bodies and answers that are not written yet; more are dropped
WRITE_BYTES = 2 << 20  # of them that are written without waiting for the interval
FILE_BYTES = 8 << 20  # of a file, before the next one is begun
FILE_ROWS = 20_000
PARTIAL = ".partial."

TIME = pa.timestamp("us", tz="UTC")
REQUESTS = pa.schema(
    {
        "time": TIME,
        "request_id": pa.string(),
        "item": pa.int32(),
        "model": pa.string(),
        "version": pa.string(),
        "options": pa.string(),
        "input": pa.string(),
        "output": pa.string(),
        "latency_ms": pa.float32(),
        "batch_items": pa.int32(),
    }
)
"""``input``, ``output`` and ``options`` are JSON; a hash or null as the settings say."""
FEEDBACK = pa.schema(
    {
        "time": TIME,
        "request_id": pa.string(),
        "item": pa.int32(),
        "model": pa.string(),
        "truth": pa.string(),
    }
)
"""``truth`` is JSON."""

Row = dict[str, Any]
log = logging.getLogger(__name__)


class Writer:
    """Writes rows to the daily folders of one table, in a thread.

    Args:
        folder: of the table.
        schema: of a row.
        interval_s: between two writes.
        max_bytes: of the table on disk, at most.
        full: what happens to more: the oldest files are removed, or new rows are refused.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        interval_s: float,
        max_bytes: int,
        full: Literal["remove", "refuse"],
    ) -> None:
        self.folder, self.schema, self.interval_s = folder, schema, interval_s
        self.max_bytes, self.full = max_bytes, full
        self.written = self.dropped = 0  # rows
        self._name = f"{datetime.now(UTC):%H%M%S}-{uuid4().hex[:8]}"  # of this process
        self._number = 0
        self._pending: list[tuple[int, Callable[[], Row]]] = []
        self._rows: list[tuple[int, Row]] = []  # of the thread: made, but not written
        self._pending_bytes = 0  # of both
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._day: date | None = None
        self._tables: list[pa.Table] = []  # of the file that is being filled
        self._stopping = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._disk_bytes = self._tidy()
        self._thread = threading.Thread(target=self._run, name=f"log-{folder.name}", daemon=True)
        self._thread.start()

    def add(self, size: int, row: Callable[[], Row]) -> bool:
        """Add a row; returns whether there was room for it.

        Args:
            size: bytes that the row keeps in memory, about.
            row: makes the row, with a ``time``; called in the thread.
        """
        with self._lock:
            refused = self.full == "refuse" and self._disk_bytes >= self.max_bytes
            if refused or self._pending_bytes + size > MAX_PENDING_BYTES:
                self.dropped += 1
                return False
            self._pending.append((size, row))
            self._pending_bytes += size
            if self._pending_bytes >= WRITE_BYTES:
                self._wake.set()
        return True

    def close(self) -> None:
        """Write all rows, then end."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            self._wake.wait(self.interval_s)
            self._wake.clear()
            last = self._stopping
            try:
                self._write()
            except OSError as error:  # the rows stay and are tried again
                log.error("%s: not written: %s", self.folder, error.strerror or error)

    def _write(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        for size, make in pending:
            try:
                self._rows.append((size, make()))
            except ValueError as error:  # text that UTF-8 cannot hold
                log.error("%s: a row is left out: %s", self.folder, type(error).__name__)
                self._release(size)
                self.dropped += 1
        for day in sorted({row["time"].date() for _, row in self._rows}):
            batch = [(size, row) for size, row in self._rows if row["time"].date() == day]
            self._extend(day, pa.Table.from_pylist([row for _, row in batch], self.schema))
            self._rows = [(size, row) for size, row in self._rows if row["time"].date() != day]
            self._release(sum(size for size, _ in batch))
            self.written += len(batch)
            self._disk_bytes = self._bound()

    def _release(self, size: int) -> None:
        with self._lock:
            self._pending_bytes -= size

    def _extend(self, day: date, table: pa.Table) -> None:
        """Write the file that is being filled again, with more rows."""
        rows = sum(len(each) for each in self._tables)
        size = sum(each.nbytes for each in self._tables)
        if day != self._day or rows >= FILE_ROWS or size >= FILE_BYTES:
            self._day, self._tables, self._number = day, [], self._number + 1
        whole = pa.concat_tables([*self._tables, table])
        path = self.folder / f"day={day}" / f"{self._name}-{self._number:06}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f"{PARTIAL}{path.name}")
        try:
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                pq.write_table(whole, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._tables = [whole]

    def _files(self) -> list[Path]:
        """The files of the table, the oldest first."""
        return sorted(
            self.folder.glob("day=*/[!.]*.parquet"), key=lambda file: (file.parent.name, file.name)
        )

    def _bound(self) -> int:
        """Remove the oldest files beyond the bound; returns the bytes on disk."""
        sizes = {file: size for file in self._files() if (size := _size(file)) is not None}
        total = sum(sizes.values())
        for file, size in list(sizes.items())[:-1] if self.full == "remove" else ():
            if total <= self.max_bytes:
                break
            log.warning("%s: removed, the log has more than %d bytes", file, self.max_bytes)
            file.unlink(missing_ok=True)
            total -= size
            if not any(file.parent.iterdir()):
                file.parent.rmdir()
        return total

    def _tidy(self) -> int:
        """Remove what killed processes have left; returns the bytes on disk."""
        for file in self.folder.glob(f"day=*/{PARTIAL}*"):
            if file.stat().st_mtime < time.time() - timedelta(hours=1).total_seconds():
                file.unlink(missing_ok=True)
        return self._bound()


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # another process has removed it
        return None


@dataclass(frozen=True)
class Exchange:
    """A request and its answer.

    Args:
        request_id: of the request.
        model: its name.
        version: that answered.
        options: of the request.
        inputs: of the request.
        outputs: the responses, as JSON.
        body_bytes: size of the request.
        latency_ms: of the answer.
        batch_items: inputs in the batch.
    """

    request_id: str
    model: str
    version: str
    options: Mapping[str, Json]
    inputs: Sequence[BaseModel]
    outputs: Sequence[bytes]
    body_bytes: int
    latency_ms: float
    batch_items: int


class RequestLog:
    """The log of one process: requests and feedback.

    Args:
        folder: of both tables.
        interval_s: between two writes.
        max_bytes: of each table on disk.
        inputs: what is kept of them.
        outputs: what is kept of them.
        key: of the hashes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interval_s: float,
        max_bytes: int,
        inputs: Privacy,
        outputs: Privacy,
        key: bytes,
    ) -> None:
        self.inputs, self.outputs, self.key = inputs, outputs, key
        self.requests = Writer(
            folder / "requests", REQUESTS, interval_s=interval_s, max_bytes=max_bytes, full="remove"
        )
        self.feedback = Writer(
            folder / "feedback", FEEDBACK, interval_s=interval_s, max_bytes=max_bytes, full="refuse"
        )

    def add(self, exchange: Exchange) -> None:
        """Add a request with its answer; without room for it, it is dropped and counted."""
        now, sent = datetime.now(UTC), exchange.body_bytes // len(exchange.inputs)
        for item, output in enumerate(exchange.outputs):
            row = partial(self._row, now, exchange, item)
            self.requests.add(sent + len(output) + 200, row)

    def add_feedback(self, request_id: str, item: int, model: str, truth: Json) -> bool:
        """Add what the answer to an input should have been; returns whether there was room."""
        text = json.dumps(truth)
        row = {
            "time": datetime.now(UTC),
            "request_id": request_id,
            "item": item,
            "model": model,
            "truth": text,
        }
        return self.feedback.add(len(text) + 200, lambda: row)

    def close(self) -> None:
        """Write all rows, then end."""
        self.requests.close()
        self.feedback.close()

    def _row(self, now: datetime, exchange: Exchange, item: int) -> Row:
        sent = exchange.inputs[item].model_dump_json(exclude_unset=True)
        return {
            "time": now,
            "request_id": exchange.request_id,
            "item": item,
            "model": exchange.model,
            "version": exchange.version,
            "options": json.dumps(exchange.options),
            "input": self._kept(self.inputs, sent),
            "output": self._kept(self.outputs, exchange.outputs[item].decode()),
            "latency_ms": exchange.latency_ms,
            "batch_items": exchange.batch_items,
        }

    def _kept(self, privacy: Privacy, text: str) -> str | None:
        """A text, or the hash by which equal texts can be found, or None."""
        if privacy == "hash":
            return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
        return text if privacy == "keep" else None


def files(
    folder: Path,
    table: Literal["requests", "feedback"],
    since: date = date.min,
    until: date = date.max,
) -> list[Path]:
    """The files of a table, day by day.

    Args:
        folder: of the log.
        table: the name.
        since: first day, of UTC.
        until: last day.
    """
    days = {
        path: date.fromisoformat(path.name.removeprefix("day="))
        for path in sorted((folder / table).glob("day=*"))
    }
    found = [path for path, day in days.items() if since <= day <= until]
    return [file for path in found for file in sorted(path.glob("[!.]*.parquet"))]


def read(
    folder: Path,
    table: Literal["requests", "feedback"],
    since: date = date.min,
    until: date = date.max,
) -> pa.Table:
    """The rows of a table: see `files`, which a reader of more than the memory holds may use."""
    schema = {"requests": REQUESTS, "feedback": FEEDBACK}[table]
    parts = [
        pq.read_table(file, schema=schema, partitioning=None)
        for file in files(folder, table, since, until)
    ]
    return pa.concat_tables([schema.empty_table(), *parts])
