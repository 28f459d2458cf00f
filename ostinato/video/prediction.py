"""Video files; each is one input."""

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ostinato.errors import DataError
from ostinato.serving.classification import Response
from ostinato.serving.prediction.records import Format, Key, Record, fields
from ostinato.task import Service
from ostinato.video.formats.container import VIDEO_SUFFIXES
from ostinato.video.serving import MAX_BYTES, Input


def read(path: Path, service: Service) -> Iterator[Record]:
    """The one video of a file.

    Args:
        path: of the file.
        service: not used.
    """
    size = path.stat().st_size
    yield Record("", size, partial(_parse, path, size))


def _parse(path: Path, size: int) -> tuple[Key, Input]:
    if size > MAX_BYTES:
        raise DataError(f"found {size:,} bytes; expected at most {MAX_BYTES:,}")
    content = base64.b64encode(path.read_bytes()).decode()
    return {}, Input.model_validate({"video": content})


FORMAT = Format(
    noun="videos",
    suffixes=tuple(VIDEO_SUFFIXES),
    keys={},
    batch_size=1,  # the service reads one video after the other
    read=read,
    columns=lambda service: fields(Response),
    left_out=("explain_clips",),  # pictures
)
