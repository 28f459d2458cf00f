"""Requests to one model, answered in batches.

Requests that arrive together, or while the model answers others, share a batch if they have the
same options. A request is never split: all its inputs are answered by one version of the model. An
input that cannot be answered fails its own request only.
"""

import asyncio
import logging
import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from pydantic import BaseModel

from ostinato.errors import OstinatoError, RequestError
from ostinato.serving.loading import Loaded
from ostinato.task import Json

MAX_RETRY_AFTER_S = 60
AT_ONCE_S = 0.008
"""Expected time of a batch below which no other thread is asked.

A hand-over waits for Python's lock, which a thread keeps for 5 ms, and for a processor.
"""

log = logging.getLogger(__name__)


class QueueFullError(OstinatoError):
    """More inputs wait than the queue holds.

    Args:
        retry_after_s: when there should be room again.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many inputs wait for this model; try again later")
        self.retry_after_s = retry_after_s


class FailedError(OstinatoError):
    """The model raised an error that is no `RequestError`: a bug, or no memory."""


@dataclass(frozen=True)
class Answer:
    """The responses to a request, one for each input.

    Args:
        responses: in the order of the inputs.
        version: of the model that answered.
        batch_items: inputs in the batch.
    """

    responses: Sequence[BaseModel]
    version: str
    batch_items: int


@dataclass(eq=False)
class Pending:
    """A request that waits for its batch."""

    inputs: Sequence[BaseModel]
    options: Mapping[str, Json]
    arrived: float
    answer: "asyncio.Future[Answer]" = field(repr=False)


@dataclass(frozen=True)
class Batch:
    """What an observer is told of a batch: its inputs, and the model's time in seconds."""

    items: int
    seconds: float


class Batcher:
    """Answers the requests to one model, one batch at a time, in a thread of its own.

    A batch that should take less than `AT_ONCE_S` is answered by the caller's thread.

    Args:
        loaded: returns the version in use; asked once for each batch.
        batch_size: inputs in a batch, at most; a request with more is a batch of its own.
        wait_s: time that a request waits for others, while several ask.
        max_queue: inputs that wait, at most.
        observe: called after each batch.
    """

    def __init__(
        self,
        loaded: Callable[[], Loaded],
        *,
        batch_size: int,
        wait_s: float,
        max_queue: int,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self.loaded, self.observe = loaded, observe
        self.batch_size, self.wait_s, self.max_queue = batch_size, wait_s, max_queue
        self.waiting = 0  # inputs
        self._queue: deque[Pending] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")
        self._seconds_per_item = 0.0
        self._undisturbed = 0.0  # of them, where no other process takes the processor
        self._busy = self._together = (
            False  # a batch is predicted; the last one had several requests
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        while self._queue or self._busy:
            await asyncio.sleep(0.01)
        if self._task:
            self._task.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def answer(self, inputs: Sequence[BaseModel], options: Mapping[str, Json]) -> Answer:
        """Wait for the answer to a request.

        Args:
            inputs: at least one.
            options: of the request, complete.

        Raises:
            QueueFullError: there is no room for the inputs.
            RequestError: an input cannot be answered; names it by its number in the request.
            FailedError: the model failed.
        """
        if self.waiting + len(inputs) > self.max_queue:
            seconds = math.ceil(self.waiting * self._seconds_per_item)
            raise QueueFullError(min(max(seconds, 1), MAX_RETRY_AFTER_S))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = Pending(inputs, options, time.monotonic(), future)
        self._queue.append(request)
        self.waiting += len(inputs)
        self._arrival.set()
        try:
            return await future
        except asyncio.CancelledError:
            with suppress(ValueError):  # it is in a batch already
                self._queue.remove(request)
                self.waiting -= len(inputs)
            raise

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._fill()
            if not self._queue:  # what was in it has been cancelled
                continue
            batch, self._busy = self._take(), True
            self._together = len(batch) > 1
            loaded, items = self.loaded(), sum(len(request.inputs) for request in batch)
            if 0 < items * self._undisturbed < AT_ONCE_S:
                outcomes = self._predict(loaded, batch)
            else:
                outcomes = await loop.run_in_executor(self._thread, self._predict, loaded, batch)
            for request, outcome in outcomes.items():
                if request.answer.done():  # cancelled
                    continue
                if isinstance(outcome, Answer):
                    request.answer.set_result(outcome)
                else:
                    request.answer.set_exception(outcome)
            self._busy = False

    async def _fill(self) -> None:
        """Wait for a request, and for others to share its batch.

        A lone request does not wait if the one before it was alone, too: nobody else asks.
        """
        while not self._queue:
            self._arrival.clear()
            await self._arrival.wait()
        await asyncio.sleep(0)  # whatever has arrived at the same moment
        if len(self._queue) <= 1 and not self._together:
            return
        while self._queue and self.waiting < self.batch_size:
            left = self._queue[0].arrived + self.wait_s - time.monotonic()
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[Pending]:
        """Remove a batch from the queue: the oldest request, and others with its options."""
        batch, items, others = [self._queue.popleft()], 0, deque[Pending]()
        items = len(batch[0].inputs)
        while self._queue and items < self.batch_size:
            request = self._queue.popleft()
            size = len(request.inputs)
            if request.options == batch[0].options and items + size <= self.batch_size:
                batch.append(request)
                items += size
            else:
                others.append(request)
        self._queue.extendleft(reversed(others))
        self.waiting -= items
        return batch

    def _predict(
        self, loaded: Loaded, batch: list[Pending]
    ) -> dict[Pending, Answer | OstinatoError]:
        started, items = time.perf_counter(), sum(len(request.inputs) for request in batch)
        outcomes = answers(loaded, batch)
        seconds = time.perf_counter() - started
        self._seconds_per_item += 0.2 * (seconds / items - self._seconds_per_item)
        difference = seconds / items - self._undisturbed
        first = self._undisturbed == 0
        self._undisturbed += (1 if first else 0.5 if difference < 0 else 0.02) * difference
        self.observe(Batch(items, seconds))
        return outcomes


def answers(loaded: Loaded, batch: Sequence[Pending]) -> dict[Pending, Answer | OstinatoError]:
    """The outcome of each request of a batch.

    If an input is refused, its request leaves the batch and the others are predicted again. If the
    error names no input, each request is predicted alone.
    """
    left, failed = list(batch), dict[Pending, Answer | OstinatoError]()
    while left:
        ends = list(accumulate(len(request.inputs) for request in left))
        inputs = [item for request in left for item in request.inputs]
        try:
            responses = loaded.service.predict(inputs, left[0].options)
            if len(responses) != len(inputs):
                raise FailedError(f"{len(responses)} responses to {len(inputs)} inputs")
        except RequestError as error:
            if len(left) == 1:
                return {**failed, left[0]: error}
            if error.item is None or error.item >= ends[-1]:
                return {**failed, **_alone(loaded, left)}
            index = next(i for i, end in enumerate(ends) if error.item < end)
            request = left.pop(index)
            first = ends[index] - len(request.inputs)
            failed[request] = error.renumbered(error.item - first)
            continue
        except Exception as error:
            if len(left) > 1:
                return {**failed, **_alone(loaded, left)}
            log.error("version %s failed: %s", loaded.version, origin(error))
            return {**failed, left[0]: FailedError("the model failed; the server's log has more")}
        starts = [0, *ends]
        return failed | {
            request: Answer(responses[start:end], loaded.version, len(inputs))
            for request, start, end in zip(left, starts, ends, strict=False)
        }
    return failed


def _alone(loaded: Loaded, batch: Sequence[Pending]) -> dict[Pending, Answer | OstinatoError]:
    outcomes: dict[Pending, Answer | OstinatoError] = {}
    for request in batch:
        outcomes |= answers(loaded, [request])
    return outcomes


def origin(error: BaseException) -> str:
    """The type of an error and where it was raised: its text may quote an input."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{type(error).__name__} at {' > '.join(places)}"
