"""Files of requests: ndjson, each line is what a client would send."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import orjson
from pydantic import BaseModel, ValidationError

from ostinato.errors import MalformedError
from ostinato.serving.prediction.records import Key, Record
from ostinato.task import Service


def reader(request: type[BaseModel]) -> Callable[[Path, Service], Iterator[Record]]:
    """The reader of a `Format` whose lines are requests.

    Args:
        request: the domain's ``Input``.
    """

    def parse(number: int, line: bytes) -> tuple[Key, BaseModel]:
        try:
            return {"line": number}, request.model_validate(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise MalformedError(f"not JSON: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise MalformedError(f"{place}: {first['msg']}") from None

    def read(path: Path, service: Service) -> Iterator[Record]:
        """The requests of a file, one a line.

        Args:
            path: of the file.
            service: not used.
        """
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Record(f"line {number}", len(line), partial(parse, number, line))

    return read
