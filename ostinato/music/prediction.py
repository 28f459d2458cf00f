"""Requests for pieces in ndjson files: each line is what a client sends (`Input`)."""

from typing import Any, cast

from pydantic import BaseModel

from ostinato.music.serving import Input, Response
from ostinato.serving.prediction.records import Format, fields
from ostinato.serving.prediction.requests import reader


def rows(response: BaseModel) -> list[dict[str, Any]]:
    """One row: the fields of a response."""
    found = cast(Response, response).model_dump()
    return [{**found, "notes": [list(note) for note in found["notes"]]}]


FORMAT = Format(
    noun="requests",
    suffixes=(".ndjson",),
    keys={"line": int},
    batch_size=64,
    read=reader(Input),
    columns=lambda service: {**fields(Response), "notes": list[list[float]]},
    rows=rows,
)
"""Requests for pieces."""
