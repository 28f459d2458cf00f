"""Request logs for tests: rows of answers and feedback at chosen times."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from ostinato.serving import request_log


def write(
    folder: Path, table: Literal["requests", "feedback"], rows: Sequence[dict[str, Any]]
) -> None:
    """Write rows as the server does: a folder for each day."""
    schema = {"requests": request_log.REQUESTS, "feedback": request_log.FEEDBACK}[table]
    (folder / table).mkdir(parents=True, exist_ok=True)
    for day in {row["time"].date() for row in rows}:
        place = folder / table / f"day={day}"
        place.mkdir(exist_ok=True)
        of_day = [row for row in rows if row["time"].date() == day]
        pq.write_table(
            pa.Table.from_pylist(of_day, schema), place / f"120000-{uuid4().hex[:8]}-000001.parquet"
        )


def answers(
    model: str,
    time: datetime,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    version: str = "1",
) -> list[dict[str, Any]]:
    """A row for each answered input, each in a request of its own."""
    return [
        {
            "time": time,
            "request_id": uuid4().hex,
            "item": 0,
            "model": model,
            "version": version,
            "options": "{}",
            "input": None if one is None else json.dumps(one),
            "output": json.dumps(answer),
            "latency_ms": 3.0,
            "batch_items": 1,
        }
        for one, answer in zip(inputs, outputs, strict=True)
    ]


def truths(
    rows: Sequence[dict[str, Any]], labels: Sequence[Any], time: datetime
) -> list[dict[str, Any]]:
    """Feedback on answers."""
    return [
        {
            "time": time,
            "request_id": row["request_id"],
            "item": row["item"],
            "model": row["model"],
            "truth": json.dumps(label),
        }
        for row, label in zip(rows, labels, strict=True)
    ]
