"""Time predictions, one by one and in batches: the ``speed`` of an `ostinato.task.Evaluation`."""

import time
from collections.abc import Callable, Sequence
from typing import Generic, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class Timer(Generic[P, R]):
    """A function that adds up the seconds that its calls take.

    The first call runs twice and only the second run is timed: the first one compiles the graph.

    Attributes:
        seconds: of all calls so far.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.seconds = 0.0
        self._warm = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; add the time of the call to ``seconds``."""
        if not self._warm:
            self.function(*args, **kwargs)
            self._warm = True
        start = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds += time.perf_counter() - start
        return result


def latency_ms(function: Callable[[X], object], requests: Sequence[X]) -> float:
    """The median time of single predictions in milliseconds; the first request is a warm-up too.

    Args:
        function: predicts one request.
        requests: at least one.
    """
    times = []
    for request in [requests[0], *requests]:
        start = time.perf_counter()
        function(request)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))


def speed(
    function: Callable[[X], object], requests: Sequence[X], seconds: float, examples: int
) -> dict[str, float]:
    """Milliseconds for each example, predicted one by one and in batches.

    Args:
        function: predicts one request.
        requests: each of one example, at least one.
        seconds: that the prediction of all ``examples`` in batches took.
        examples: number of examples.
    """
    return {
        "inference_ms_single": latency_ms(function, requests),
        "inference_ms_batched": 1e3 * seconds / examples,
    }
