"""Sequences in ndjson files: each line is what a client sends (`Input`)."""

from ostinato.memory.serving import Input, Response
from ostinato.serving.prediction.records import Format, dump, fields
from ostinato.serving.prediction.requests import reader

FORMAT = Format(
    noun="sequences",
    suffixes=(".ndjson",),
    keys={"line": int},
    batch_size=64,
    read=reader(Input),
    columns=lambda service: fields(Response),
    rows=dump,
)
