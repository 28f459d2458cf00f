"""Requests for drawings in ndjson files: each line is what a client sends (`Input`)."""

from typing import Any, cast

from pydantic import BaseModel

from ostinato.generation.serving import Drawing, Input, Response
from ostinato.serving.prediction.records import Format, fields
from ostinato.serving.prediction.requests import reader


def rows(response: BaseModel) -> list[dict[str, Any]]:
    """A row for each drawing of a response."""
    drawings = cast(Response, response).drawings
    return [{"number": number, **each.model_dump()} for number, each in enumerate(drawings)]


FORMAT = Format(
    noun="requests",
    suffixes=(".ndjson",),
    keys={"line": int},
    batch_size=64,
    read=reader(Input),
    columns=lambda service: {"number": int, **fields(Drawing)},
    rows=rows,
)
