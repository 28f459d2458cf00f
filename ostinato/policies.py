"""Parameters of the flows: promotion gates (``gates``), retry policies (``flows.stages``)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ostinato import params
from ostinato.errors import ParamsError
from ostinato.task import Metric
from ostinato.units import Count, NonNegative, Seconds


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, how long and on which device a stage is tried: an entry of flows.stages.

    Attributes:
        retries: number of further attempts after the first one has failed.
        delay: seconds before a retry.
        timeout: seconds of one attempt; null: no limit.
        gpu: whether the stage gets GPUs of its own, where there are any.
    """

    retries: Annotated[int, Field(ge=0, le=100)]
    delay: Annotated[float, Field(ge=0)]
    timeout: Seconds | None
    gpu: bool


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The conditions under which a challenger becomes champion: ``gates.<data set>``.

    The score has to reach a bound, also that of the first champion. Where there is a champion, the
    lower end of the confidence interval of the improvement has to reach the margin.

    Attributes:
        metric: a metric of the domain's ``METRICS``.
        at_least: the bound of a metric of which higher values are better.
        at_most: the bound of a metric of which lower values are better.
        margin: the smallest improvement on the champion.
        confidence: of the interval of the improvement, 0 to 1.
        resamples: number of bootstrap samples behind the interval.
        max_examples: number of test examples on which the two are compared, at most.
        approval: whether the challenger waits for a reviewer, who runs promote with its version.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    margin: NonNegative
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Count
    max_examples: Count
    approval: bool

    def check(self, domain: str) -> Metric:
        """Check the gate against the metrics of a domain.

        Returns:
            The gate's metric.

        Raises:
            ParamsError: the domain has no such metric, or the bound is not on the metric's side.
        """
        metrics: dict[str, Metric] = params.module(domain, "metrics").METRICS
        if self.metric not in metrics:
            hint = params.near(self.metric, metrics)
            raise ParamsError(f"{domain} has no metric {self.metric!r}; {hint}")
        metric = metrics[self.metric]
        needed, other = (
            ("at_least", "at_most") if metric.higher_is_better else ("at_most", "at_least")
        )
        if getattr(self, needed) is None or getattr(self, other) is not None:
            direction = "higher" if metric.higher_is_better else "lower"
            raise ParamsError(
                f"{direction} values of {self.metric} are better: set {needed}, and not {other}"
            )
        return metric

    def passes(self, score: float) -> tuple[bool, str]:
        """Whether a score reaches the bound, and a sentence that says so."""
        if self.at_most is not None:
            passed, bound = score <= self.at_most, self.at_most
            text = "is within the upper bound" if passed else "is above the upper bound"
        else:
            assert self.at_least is not None
            passed, bound = score >= self.at_least, self.at_least
            text = "reaches the lower bound" if passed else "is below the lower bound"
        return passed, f"{self.metric} {score:.4f} {text} {bound:g}"
