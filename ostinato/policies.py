"""What params.yaml says to the flows: when a challenger wins (`gates`), how a stage is retried."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ostinato import errors, params
from ostinato.units import Count, NonNegative, Seconds


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, for how long and on which device a stage is tried: an entry of flows.stages.

    Attributes:
        retries: attempts after the first one failed.
        delay: seconds before a retry.
        timeout: seconds of one attempt; null: without end.
        gpu: the stage is bound to GPUs of its own, where there are any.
    """

    retries: Annotated[int, Field(ge=0, le=100)]
    delay: Annotated[float, Field(ge=0)]
    timeout: Seconds | None
    gpu: bool


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a challenger has to show: ``gates.<domain>`` of params.yaml.

    Attributes:
        metric: a mean over the test examples that the domain's scores.py knows.
        at_least: the least that will do, also of the first champion, where more is better.
        at_most: the most that will do, where less is better.
        data: the data set whose runs compete; needed where the domain has runs on several.
        margin: by which it has to beat the champion.
        confidence: of the interval of the difference, whose lower end has to reach the margin.
        resamples: bootstrap samples behind that interval.
        limit: test examples on which the two are compared, at most.
        approval: the winner waits for a reviewer, who runs promote with its version.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    data: str | None = None
    margin: NonNegative
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Count
    limit: Count
    approval: bool

    def check(self, domain: str) -> None:
        """Raise a ParamsError where the bound does not suit the metric."""
        lower = self.metric in params.module(domain, "evaluation").LOSSES
        right, wrong = ("at_most", "at_least") if lower else ("at_least", "at_most")
        if getattr(self, right) is None or getattr(self, wrong) is not None:
            raise errors.ParamsError(
                f"gates.{domain}: of {self.metric} {'less' if lower else 'more'} is better: it "
                f"needs {right}, and no {wrong}"
            )

    def kept(self, score: float) -> tuple[bool, str]:
        """Whether a score keeps the bound, and that in words."""
        if self.at_most is not None:
            kept, bound = score <= self.at_most, self.at_most
            verdict = "keeps below the ceiling" if kept else "is above the ceiling"
        else:
            assert self.at_least is not None
            kept, bound = score >= self.at_least, self.at_least
            verdict = "reaches the floor" if kept else "is below the floor"
        return kept, f"{self.metric} {score:.4f} {verdict} {bound:g}"

    def score(self, outcomes: NDArray[Any]) -> float:
        """The metric: the mean over the examples whose outcome was measured."""
        return float(np.nanmean(outcomes)) * (1 if self.at_most is None else -1)
