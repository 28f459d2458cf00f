"""Served requests and their labels, as the request log of a server keeps them.

`ostinato.serving.request_log` writes it; this reader is apart, because sources of data use it too.
"""

import csv
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ostinato import params
from ostinato.errors import DataError
from ostinato.task import Json

HASH = re.compile("[0-9a-f]{64}")
KEYS = ["request_id", "item"]
Table = Literal["requests", "feedback"]
COLUMNS: dict[Table, tuple[str, ...]] = {
    "requests": ("time", *KEYS, "model", "version", "options", "input", "output", "latency_ms"),
    "feedback": ("time", *KEYS, "model", "truth"),
}
LABEL_KINDS = ("joined", "unknown", "doubled", "contradicting", "unusable")
"""What becomes of labels: joined with an answer; of no request that the log has; repeated; another
truth than an earlier one of the same answer (none of them counts); no truth of such an answer."""


def read_requests(folder: Path, model: str, since: datetime, until: datetime) -> pd.DataFrame:
    """The logged answers of a model in a period, in the order of their times.

    Args:
        folder: of the log, as ``--log-folder`` of the server names it.
        model: its name in the log.
        since: beginning of the period.
        until: its end, which is not part of it.

    Raises:
        DataError: there is no such log.
    """
    return _read(folder, "requests", model, since, until)


def _read(folder: Path, table: Table, model: str, since: datetime, until: datetime) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if not (folder / "requests").is_dir():
        raise DataError(
            f"{folder / 'requests'}: no such folder; expected the log of a server; name the folder "
            "of `python -m ostinato serve --log-folder`"
        )
    chosen = [("model", "=", model), ("time", ">=", since), ("time", "<", until)]
    days = sorted((folder / table).glob("day=*"))
    found = [
        day
        for day in days
        if since.date() <= date.fromisoformat(day.name.removeprefix("day=")) <= until.date()
    ]
    columns = list(COLUMNS[table])
    frames = [
        pq.read_table(file, columns=columns, filters=chosen, partitioning=None).to_pandas()
        for day in found
        for file in sorted(day.glob("[!.]*.parquet"))
    ]
    if not frames:
        return pd.DataFrame(columns=columns)
    every: pd.DataFrame = pd.concat(frames)
    for name in {"input", "output"} & set(columns):  # null where the log leaves them out
        texts = every[name].astype(object)
        every[name] = texts.where(texts.notna(), None)
    return every.sort_values(["time", *KEYS], kind="stable", ignore_index=True)


def read_feedback(folder: Path, model: str, since: datetime, until: datetime) -> pd.DataFrame:
    """The labels that clients have sent (POST /v1/feedback): request_id, item, truth (as text)."""
    frame = _read(folder, "feedback", model, since, until)
    return frame[[*KEYS, "truth"]]


def read_label_file(path: Path) -> pd.DataFrame:
    """The labels of a file: request_id, item and truth.

    A CSV has these columns; of ndjson, each line is an object with them. ``item`` may be missing
    and is 0 then. In a CSV, a truth is text, unless it is a JSON list (the values of a series) or
    in quotes.

    Raises:
        DataError: names the line that is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason}; expected CSV or ndjson") from None
    rows = _csv_rows(path, text) if path.suffix == ".csv" else _ndjson_rows(path, text)
    return pd.DataFrame(rows, columns=[*KEYS, "truth"])


def _csv_rows(path: Path, text: str) -> list[list[Json]]:
    reader = csv.DictReader(text.splitlines())
    missing = {"request_id", "truth"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(
            f"{path}, line 1: found the columns {reader.fieldnames}; expected request_id, truth "
            "and, where requests have several inputs, item"
        )
    rows: list[list[Json]] = []
    for row in reader:
        item = (row.get("item") or "0").strip()
        if not item.isdecimal() or row["truth"] is None:
            raise DataError(
                f"{path}, line {reader.line_num}: found item {item!r} and truth {row['truth']!r}; "
                "expected the number of the input, from 0, and its label"
            )
        truth = row["truth"].strip()
        is_json = truth[:1] in ('"', "[") and _is_json(truth)
        written = truth if is_json else json.dumps(truth)
        rows.append([row["request_id"].strip(), int(item), written])
    return rows


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _ndjson_rows(path: Path, text: str) -> list[list[Json]]:
    rows: list[list[Json]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append([str(row["request_id"]), int(row.get("item", 0)), json.dumps(row["truth"])])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path}, line {number}: found {line[:80]!r}; expected an object with request_id, "
                "item and truth"
            ) from None
    return rows


def join(requests: pd.DataFrame, *labels: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Answers with their labels, one for each at most.

    Args:
        requests: of `read_requests`.
        labels: of `read_feedback` or `read_label_file`.

    Returns:
        The rows of ``requests`` that have a label, with the column ``truth`` (JSON values), and the
        number of labels by `LABEL_KINDS`.
    """
    counts = dict.fromkeys(LABEL_KINDS, 0)
    sent = pd.concat([*labels]).reset_index(drop=True)
    known = pd.MultiIndex.from_frame(requests[KEYS])
    found = pd.MultiIndex.from_frame(sent[KEYS]).isin(known)
    counts["unknown"] = int((~found).sum())
    sent = sent[found]
    # Equal JSON may be written in several ways.
    written = [json.dumps(json.loads(text), sort_keys=True) for text in sent["truth"]]
    sent = sent.assign(truth=written)
    distinct = sent.drop_duplicates()
    counts["doubled"] = len(sent) - len(distinct)
    contradicting = distinct.duplicated(KEYS, keep=False)
    counts["contradicting"] = int(contradicting.sum())
    distinct = distinct[~contradicting]
    joined = requests.merge(distinct, on=KEYS, how="inner")
    counts["joined"] = len(joined)
    return joined.assign(truth=list(map(json.loads, joined["truth"]))), counts


def parsed(column: Sequence[str | None]) -> list[Json] | None:
    """The values of a column of JSON; None if the log has hashes of them, or nothing."""
    texts = [text for text in column if text is not None]
    if len(texts) < len(column) or any(HASH.fullmatch(text) for text in texts[:1]):
        return None
    return [json.loads(text) for text in texts]


def sample(requests: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """At most ``count`` random rows, in their order."""
    if len(requests) <= count:
        return requests
    rows = np.random.default_rng(seed).choice(len(requests), count, replace=False)
    return requests.iloc[np.sort(rows)]


def labelled_inputs(
    folder: Path, model: str, labels: str | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """All inputs of a log that have a label, for a source of data.

    Args:
        folder: of the log.
        model: its name in the log.
        labels: a file of further labels.

    Returns:
        Rows with ``input``, ``output`` (as the log has it) and ``truth``, in the order of their
        times, and the number of labels by `LABEL_KINDS` and "without input".

    Raises:
        DataError: there is no such log, or it has none of the inputs.
    """
    first, last = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
    requests = read_requests(folder, model, first, last)
    tables = [read_feedback(folder, model, first, last)]
    if labels is not None:
        tables.append(read_label_file(Path(labels)))
    joined, counts = join(requests, *tables)
    kept = [text is not None and not HASH.fullmatch(text) for text in joined["input"]]
    counts["without input"] = len(kept) - sum(kept)
    if kept and not any(kept):
        raise DataError(
            f"{folder}: the log has {len(kept):,} labels of {model}, but hashes of the inputs or "
            "nothing; start the server with --log-inputs keep"
        )
    joined = joined[np.array(kept, bool)]
    return joined.assign(input=list(map(json.loads, joined["input"]))), counts


def check_base(domain: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A validator of the fetch block of another source of a domain, to which feedback is added."""

    def check(block: dict[str, Any]) -> dict[str, Any]:
        if block.get("source") == "feedback":
            raise ValueError("base: expected another source than feedback")
        if problems := params.fetch_problems(params.module(domain, "sources"), block):
            raise ValueError("; ".join(f"{each.key}: {each.message}" for each in problems))
        return block

    return check


def fetch_base(domain: str, base: params.Block, folder: Path, scratch: Path, seed: int) -> None:
    """Call the source that a checked block names."""
    source = params.entry(base, "source")
    function = params.function(params.module(domain, "sources"), source)
    params.bind(function, params.entry(base, source))(folder, scratch, seed)
