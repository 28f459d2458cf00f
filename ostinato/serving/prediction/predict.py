"""Batch prediction: the inputs of files answered by a model, in a table: ``ostinato predict``.

Inputs are read as in training, and answered by the service of the server, many at once. Those of a
window are ordered by size, so that similar ones share a batch; the output has the order of the
input. A window is a part of the output (`parts`).
"""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ostinato import params
from ostinato.errors import INPUT_NUMBER, OstinatoError, ParamsError, RequestError, SourceError
from ostinato.serving.loading import Loaded, Source
from ostinato.serving.prediction import parts, tables
from ostinato.serving.prediction.parts import Part, Parts, Reject
from ostinato.serving.prediction.progress import Progress
from ostinato.serving.prediction.records import Format, Located, find_files, read_from
from ostinato.serving.requests import check_finite, check_options
from ostinato.task import Json, Service

PART_RECORDS = 4096
PART_BYTES = 64 << 20  # of the records of a part, about
THREADS = 2
MAX_REASON = 500  # characters
SHOWN_REJECTS = 3

Answers = dict[int, list[tables.Row] | str]
"""The rows of records, or the reason why there are none, by the index in a window."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Args:
        noun: for the inputs.
        answered: inputs.
        rejected: inputs, or parts of the input, without an answer.
        rows: of the output.
        continued: inputs of them that an earlier run had read.
        rejects: the first of them.
    """

    noun: str
    answered: int
    rejected: int
    rows: int
    continued: int
    rejects: Sequence[Reject]


def predict(
    source: Source,
    inputs: Path,
    output: Path,
    *,
    options: Mapping[str, Json],
    overwrite: bool = False,
) -> Summary:
    """Answer all inputs of a file or a folder, and write the answers.

    Args:
        source: of the model.
        inputs: a file, or a folder with files.
        output: a table; its suffix says of which kind.
        options: of the reader of the files, and of requests to the model, such as ``top_k``.
        overwrite: replace an output that exists, and the parts of another run.

    Raises:
        OstinatoError: an option is wrong, there is nothing to read, the output exists or cannot be
            written, the model does not load, or a file has changed in the meantime.
    """
    started = datetime.now(UTC)
    format = format_of(source.domain)
    _check_paths(inputs, output)
    asked, reading = split_options(options, format, source)
    read = params.bind(format.read, reading)
    files, note = find_files(inputs, format.suffixes)
    if note:
        log.info(note)
    version = source.current()
    settings = {"options": dict(options), "output": output.suffix}
    about = {"model": source.name, "domain": source.domain, "version": version}
    described = [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in files]
    description = {**about, **settings, "part": [PART_RECORDS, PART_BYTES], "input": described}
    with parts.locked(output, description, overwrite):
        loaded = source.load(version)
        gc.freeze()  # the model stays: collections need not look at its million objects
        columns = {
            "file": str,
            **format.keys,
            **format.columns(loaded.service),
            **dict.fromkeys(("model", "version"), str),
        }
        written = Parts(output, columns)
        continued = sum(part.answered + part.rejected for part in written.done)
        if continued:
            log.info("%s: continued after %d %s", output, continued, format.noun)
        named = {"model": source.name, "version": version}
        found = read_from(files, partial(read, service=loaded.service), written.next)
        sizes = [file.bytes for file in files]
        with (
            Progress(format.noun, sizes, written.next.file, continued) as progress,
            ThreadPoolExecutor(THREADS, "predict") as pool,
        ):
            answering = Answering(loaded, format, asked, named, pool)
            for window, rows, rejects, answered in answering.answers(windows(found)):
                written.add(rows, rejects, Part(answered, len(rejects), len(rows), window[-1].next))
                progress.add(window, len(rejects))
        if changed := [file.name for file in files if not file.is_unchanged()]:
            raise SourceError(
                f"{changed[0]}: changed while it was read; set --overwrite, and repeat"
            )
        counts = {
            name: sum(getattr(part, name) for part in written.done)
            for name in ("answered", "rejected", "rows")
        } | {"continued": continued}
        rejects = list(islice(written.rejects(), SHOWN_REJECTS))
        lineage = {
            "name": source.name,
            "version": version,
            "domain": source.domain,
            "lineage": dict(loaded.lineage),
            "options": dict(options),
            "input": {"path": str(inputs), "files": described},
            "output": {"name": output.name, "columns": list(columns)},
            "counts": counts,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        }
        written.join(lineage)
    return Summary(format.noun, rejects=rejects, **counts)


def format_of(domain: str) -> Format:
    """How the files of a domain are read.

    Raises:
        ParamsError: the domain has no reader.
    """
    name = f"ostinato.{domain}.prediction"
    if find_spec(name) is None:
        raise ParamsError(f"predict: no reader of files for the domain {domain!r}: {name}")
    format: Format = import_module(name).FORMAT
    return format


def split_options(
    options: Mapping[str, Json], format: Format, source: Source
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The options of requests, complete, and those of the reader.

    Raises:
        ParamsError: an option is unknown.
        RequestError: one of a request is invalid.
    """
    of_reader, available = params.arguments(format.read), source.interface.options
    of_request = {name: x for name, x in available.items() if name not in format.left_out}
    for name in options:
        if name not in of_reader and name not in of_request:
            hint = params.near(name, [*of_reader, *of_request])
            raise ParamsError(f"predict: no option {name!r} for {format.noun}; {hint}")
    asked = {name: value for name, value in options.items() if name in of_request}
    reading = {name: value for name, value in options.items() if name in of_reader}
    return check_options(asked, available), reading


def _check_paths(inputs: Path, output: Path) -> None:
    """Refuse an output that is read as input, or that cannot be written."""
    tables.check_suffix(output)
    if output.is_dir():
        raise SourceError(f"{output}: is a folder; expected the name of a file")
    if not output.parent.is_dir():
        raise SourceError(f"{output.parent}: no such folder; make it before")
    target = output.parent.resolve() / output.name
    if output.is_symlink():
        raise SourceError(f"{output}: is a link; expected a name that can be replaced")
    root = inputs.resolve()
    if target == root or (inputs.is_dir() and target.is_relative_to(root)):
        raise SourceError(f"{output}: lies in the input {inputs}; expected another folder")


def windows(found: Iterator[Located]) -> Iterator[list[Located]]:
    """The records of the parts, which do not depend on where a run was interrupted."""
    window: list[Located] = []
    size = 0
    for located in found:
        window.append(located)
        size += located.record.size
        if len(window) == PART_RECORDS or size >= PART_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class Answering:
    """Answers records.

    Args:
        loaded: the model.
        format: of its domain.
        options: of requests.
        about: columns of every row.
        pool: of threads: while the model computes one batch, Python reads another.
    """

    loaded: Loaded
    format: Format
    options: Mapping[str, Json]
    about: Mapping[str, str]
    pool: ThreadPoolExecutor

    def answers(
        self, windows: Iterable[Sequence[Located]]
    ) -> Iterator[tuple[Sequence[Located], list[tables.Row], list[Reject], int]]:
        """Each window with its rows and rejects, both in its order, and the number of answers.

        The next window is answered while the caller writes this one.
        """
        former: tuple[Sequence[Located], list[Future[Answers]]] | None = None
        for window in windows:
            batches = self._start(window)
            if former:
                yield self._finish(*former)
            former = window, batches
        if former:
            yield self._finish(*former)

    def _start(self, window: Sequence[Located]) -> list[Future[Answers]]:
        """Begin to answer a window, in batches of similar sizes."""
        order = sorted(range(len(window)), key=lambda index: window[index].record.size)
        starts = range(0, len(order), self.format.batch_size)
        batches = [order[start : start + self.format.batch_size] for start in starts]
        return [self.pool.submit(self._answer_batch, window, batch) for batch in batches]

    def _finish(
        self, window: Sequence[Located], batches: Sequence[Future[Answers]]
    ) -> tuple[Sequence[Located], list[tables.Row], list[Reject], int]:
        answers: Answers = {}
        for batch in batches:
            answers |= batch.result()
        rows, rejects, answered = list[tables.Row](), list[Reject](), 0
        for located, answer in zip(window, (answers[i] for i in range(len(window))), strict=True):
            if isinstance(answer, str):
                rejects.append(Reject(located.file.name, located.record.place, _one_line(answer)))
            else:
                rows += answer
                answered += 1
        return window, rows, rejects, answered

    def _answer_batch(self, window: Sequence[Located], batch: Sequence[int]) -> Answers:
        """The answers to some records of a window."""
        answers: Answers = {}
        parsed: dict[int, tuple[Mapping[str, Json], Any]] = {}
        for index in batch:
            try:
                parsed[index] = window[index].record.parse()
            except (OstinatoError, OSError) as error:
                answers[index] = str(error)
        inputs = [item for _, item in parsed.values()]
        try:
            responses = respond(self.loaded.service, inputs, self.options)
        except Exception as error:
            first, last = (_place(window[index]) for index in (min(parsed), max(parsed)))
            error.add_note(f"while {len(inputs)} inputs from {first} to {last} were answered")
            raise
        for (index, (key, _)), response in zip(parsed.items(), responses, strict=True):
            if isinstance(response, RequestError):
                answers[index] = reason_of(response)
                continue
            named = {"file": window[index].file.name, **key}
            answers[index] = [{**named, **row, **self.about} for row in self.format.rows(response)]
        return answers


def respond(
    service: Service, inputs: Sequence[Any], options: Mapping[str, Json]
) -> list[BaseModel | RequestError]:
    """A response for each input, or the error that says why there is none.

    Where an input is refused, those before and those after it are answered apart; where the error
    names no input, as for too many characters, both halves are.
    """
    found: list[BaseModel | RequestError] = []
    left = inputs
    while left:
        try:
            responses = service.predict(left, options)
        except RequestError as error:
            if len(left) == 1:
                return [*found, error]
            if error.item is None or error.item >= len(left):
                middle = len(left) // 2
                halves = (
                    respond(service, half, options) for half in (left[:middle], left[middle:])
                )
                return [*found, *(each for half in halves for each in half)]
            found += [*respond(service, left[: error.item], options), error]
            left = left[error.item + 1 :]
            continue
        return [*found, *map(_finite, responses)]
    return found


def _finite(response: BaseModel) -> BaseModel | RequestError:
    try:
        check_finite([response])
    except RequestError as error:
        return error
    return response


def reason_of(error: RequestError) -> str:
    """The message without the number of the input, which is that of a batch."""
    return INPUT_NUMBER.sub("", str(error), count=1).lstrip("]:. ")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON]


def _place(located: Located) -> str:
    return ", ".join(filter(None, (located.file.name, located.record.place)))
