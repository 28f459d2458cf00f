"""Requests that arrive together share a batch, and none has a part in the faults of another."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from ostinato.errors import RequestError
from ostinato.serving.batching import Batch, Batcher, FailedError, QueueFullError
from ostinato.serving.loading import Loaded
from tests.echo import BUG, EchoService, Input

PLAIN = {"scale": 1}


def batched(
    test: Callable[[Batcher], Awaitable[Any]], service: EchoService, **changed: Any
) -> list[Batch]:
    """Run a test with a batcher; return the batches that it has observed."""
    observed: list[Batch] = []

    async def run() -> None:
        settings = {"batch_size": 8, "wait_s": 0.05, "max_queue": 1000, **changed}
        loaded = Loaded(service.version, service, {})
        batcher = Batcher(lambda: loaded, observe=observed.append, **settings)
        batcher.start()
        try:
            async with asyncio.timeout(20):
                await test(batcher)
        finally:
            await batcher.stop()

    asyncio.run(run())
    return observed


def inputs(*values: int) -> list[Input]:
    return [Input(value=value, note=f"n{value}") for value in values]


def ask(batcher: Batcher, *values: int, scale: int = 1) -> Coroutine[Any, Any, list[int]]:
    async def answer() -> list[int]:
        found = await batcher.answer(inputs(*values), {"scale": scale})
        return [response.doubled for response in found.responses]  # type: ignore[attr-defined]

    return answer()


def test_requests_that_arrive_together_are_one_batch() -> None:
    service = EchoService()

    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(ask(batcher, 1, 2), ask(batcher, 3), ask(batcher, 4))
        assert list(found) == [[2, 4], [6], [8]]

    (batch,) = batched(test, service)
    assert service.batches == [[1, 2, 3, 4]]
    assert batch.items == 4


def test_requests_that_arrive_during_a_batch_are_the_next_one() -> None:
    service = EchoService(seconds=0.1)

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, *(ask(batcher, value) for value in (2, 3, 4)))

    batched(test, service)
    assert service.batches == [[1], [2, 3, 4]]


def test_a_batch_has_at_most_its_size_and_never_a_part_of_a_request() -> None:
    service = EchoService()

    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(ask(batcher, *range(first, first + 3)) for first in range(0, 30, 3)),
            ask(batcher, *range(100, 120)),
        )
        assert [len(values) for values in found] == [3] * 10 + [20]

    batched(test, service)
    assert sorted(map(len, service.batches)) == [6] * 5 + [20]


def test_while_several_ask_a_request_waits_for_others() -> None:
    service = EchoService()

    async def test(batcher: Batcher) -> None:
        await asyncio.gather(ask(batcher, 1), ask(batcher, 2))
        first = asyncio.create_task(ask(batcher, 3))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, ask(batcher, 4))

    batched(test, service, wait_s=0.2)
    assert service.batches == [[1, 2], [3, 4]]


def test_a_full_batch_does_not_wait_and_neither_does_a_lone_request() -> None:
    async def test(batcher: Batcher) -> None:
        started = time.monotonic()
        await ask(batcher, 1)
        await ask(batcher, 2)
        await asyncio.gather(*(ask(batcher, value) for value in range(8)))
        await asyncio.gather(*(ask(batcher, value) for value in range(8)))
        assert time.monotonic() - started < 4

    batched(test, EchoService(), wait_s=5.0)


def test_requests_with_other_options_are_another_batch() -> None:
    service = EchoService()

    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(ask(batcher, value, scale=1 + value % 2) for value in range(6))
        )
        assert found == [[0], [4], [4], [12], [8], [20]]

    batched(test, service)
    assert service.batches == [[0, 2, 4], [1, 3, 5]]


def test_a_refused_input_fails_its_own_request_only_and_has_its_number_there() -> None:
    async def test(batcher: Batcher) -> None:
        good, bad, other, worse = await asyncio.gather(
            *(ask(batcher, *values) for values in ([1, 2], [3, -4], [5], [-6])),
            return_exceptions=True,
        )
        assert (good, other) == ([2, 4], [10])
        assert isinstance(bad, RequestError)
        assert isinstance(worse, RequestError)
        assert str(bad) == "number 1: -4 is negative"
        assert (bad.item, worse.item) == (1, 0)

    batched(test, EchoService())


def test_an_error_without_a_number_is_found_by_asking_one_by_one() -> None:
    class Unnumbered(EchoService):
        def predict(self, inputs: Any, options: Any) -> Any:
            try:
                return super().predict(inputs, options)
            except RequestError:
                raise RequestError("one of them is negative") from None

    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(ask(batcher, value) for value in (1, -2, 3)), return_exceptions=True
        )
        assert (found[0], found[2]) == ([2], [6])
        assert str(found[1]) == "one of them is negative"

    batched(test, Unnumbered())


def test_a_fault_of_the_model_fails_its_own_request_only_and_quotes_no_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(ask(batcher, value) for value in (1, BUG, 3)), return_exceptions=True
        )
        assert (found[0], found[2]) == ([2], [6])
        assert isinstance(found[1], FailedError)
        assert await ask(batcher, 4) == [8]

    with caplog.at_level(logging.DEBUG):
        batched(test, EchoService())
    assert "ZeroDivisionError at " in caplog.text
    assert "echo.py" in caplog.text
    assert "secret" not in caplog.text
    assert "n666" not in caplog.text


def test_a_model_with_too_few_responses_fails_instead_of_mixing_them_up() -> None:
    class Short(EchoService):
        def predict(self, inputs: Any, options: Any) -> Any:
            return super().predict(inputs, options)[: 2 - len(inputs) or None]

    async def test(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(ask(batcher, *values) for values in ([1], [2, 3, 4], [5])), return_exceptions=True
        )
        assert (found[0], found[2]) == ([2], [10])
        assert isinstance(found[1], FailedError)

    batched(test, Short())


def test_what_the_queue_does_not_hold_is_refused_with_the_time_to_come_back() -> None:
    async def test(batcher: Batcher) -> None:
        busy = [asyncio.create_task(ask(batcher, 1))]
        await asyncio.sleep(0.05)
        busy += [asyncio.create_task(ask(batcher, *range(5))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            await ask(batcher, 7)
        assert 1 <= caught.value.retry_after_s <= 60
        await asyncio.gather(*busy)
        assert await ask(batcher, 7) == [14]
        assert batcher.waiting == 0

    batched(test, EchoService(seconds=0.1), max_queue=10)


def test_a_request_that_is_cancelled_is_not_predicted() -> None:
    service = EchoService(seconds=0.1)

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.05)
        second, third = (asyncio.create_task(ask(batcher, value)) for value in (2, 3))
        await asyncio.sleep(0)
        second.cancel()
        assert await first == [2]
        assert await third == [6]
        lone = asyncio.create_task(ask(batcher, 4))
        await asyncio.sleep(0)
        lone.cancel()
        await asyncio.sleep(0.1)
        assert batcher.waiting == 0
        assert await ask(batcher, 5) == [10]

    batched(test, service)
    assert 2 not in [value for batch in service.batches for value in batch]


def test_a_stop_answers_what_waits() -> None:
    waiting: list[asyncio.Task[list[int]]] = []

    async def test(batcher: Batcher) -> None:
        waiting.extend(asyncio.create_task(ask(batcher, value)) for value in range(30))
        await asyncio.sleep(0)

    batched(test, EchoService(seconds=0.01))
    assert [task.result() for task in waiting] == [[2 * value] for value in range(30)]


def test_any_mixture_of_requests_has_the_answers_of_each_alone() -> None:
    draw = random.Random(7)
    service = EchoService(seconds=0.0005)
    values = [
        [draw.choice([draw.randrange(1000), draw.randrange(1000), -1]) for _ in range(size)]
        for size in draw.choices(range(1, 6), k=300)
    ]

    async def test(batcher: Batcher) -> None:
        async def later(row: list[int], scale: int) -> Any:
            await asyncio.sleep(draw.random() * 0.2)
            return await ask(batcher, *row, scale=scale)

        asked = [later(row, 1 + number % 3) for number, row in enumerate(values)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for number, (row, answer) in enumerate(zip(values, found, strict=True)):
            if -1 in row:
                assert isinstance(answer, RequestError)
                assert answer.item == row.index(-1)
            else:
                assert answer == [2 * value * (1 + number % 3) for value in row]

    batched(test, service, wait_s=0.002)
    assert len(service.batches) > 50


def test_a_batch_that_takes_no_time_needs_no_thread() -> None:
    threads = []

    class Named(EchoService):
        def predict(self, inputs: Any, options: Any) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return super().predict(inputs, options)

    async def test(batcher: Batcher) -> None:
        for value in range(3):
            assert await ask(batcher, value) == [2 * value]

    batched(test, Named())
    assert threads[0] is False
    assert threads[1:3] == [True, True]
