"""Sequences in ndjson files: each line is what a client sends (`Input`)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from ostinato.errors import MalformedError
from ostinato.memory.serving import Input, Response
from ostinato.serving.prediction.records import Format, Key, Record, fields
from ostinato.task import Service


def read(path: Path, service: Service) -> Iterator[Record]:
    """The sequences of a file, one a line.

    Args:
        path: of the file.
        service: not used.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Record(f"line {number}", len(line), partial(_parse, number, line))


def _parse(number: int, line: bytes) -> tuple[Key, Input]:
    try:
        return {"line": number}, Input.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise MalformedError(f"{place}: {first['msg']}") from None


def rows(response: BaseModel) -> list[dict[str, Any]]:
    """The row of a response."""
    return [response.model_dump()]


FORMAT = Format(
    noun="sequences",
    suffixes=(".ndjson",),
    keys={"line": int},
    batch_size=64,
    read=read,
    columns=lambda service: fields(Response),
    rows=rows,
)
