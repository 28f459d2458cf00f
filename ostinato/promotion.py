"""The promotion gate of a data set as pure functions: gate, choice of the challenger, verdict.

The challenger is the candidate with the best value on the validation split. Only this one is
compared with the champion on the test split, so the number of candidates does not raise the error:
a challenger that is as good as the champion is promoted with a probability of (1 - confidence) / 2,
which is 2.5% at a confidence of 95%. Choosing the challenger on the test split would let the
luckiest of many candidates win (a simulation in tests/test_promotion.py shows both).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ostinato import params
from ostinato.errors import ParamsError
from ostinato.evaluation.comparison import compare
from ostinato.task import Comparison, Metric, PerExample
from ostinato.units import Count, NonNegative


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The conditions under which a challenger becomes champion: ``gates.<data set>``.

    The score has to reach a bound, also that of the first champion. Where there is a champion, the
    lower end of the confidence interval of the improvement has to be above 0 and to reach the
    margin. The report compares runs with the same metric, confidence and resamples.

    Attributes:
        metric: a metric of the domain's ``METRICS``, on which the challenger is chosen too.
        at_least: the bound of a metric of which higher values are better.
        at_most: the bound of a metric of which lower values are better.
        margin: the smallest improvement on the champion.
        confidence: of the interval of the improvement, 0 to 1.
        resamples: number of bootstrap samples behind the interval.
        max_examples: number of test examples, at most, that a champion predicts which is no result
            of the checkout.
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
        if math.isnan(score):
            return False, f"{self.metric} has no value on the test split"
        if self.at_most is not None:
            passed, bound = score <= self.at_most, self.at_most
            text = "is within the upper bound" if passed else "is above the upper bound"
        else:
            assert self.at_least is not None
            passed, bound = score >= self.at_least, self.at_least
            text = "reaches the lower bound" if passed else "is below the lower bound"
        return passed, f"{self.metric} {score:.4f} {text} {bound:g}"

    def compare(
        self, challenger: PerExample, champion: PerExample, metric: Metric, seed: int
    ) -> Comparison:
        """Compare two models on the test examples that both have a value for.

        Raises:
            EvaluationError: fewer than two clusters of examples have a value in both.
        """
        return compare(
            challenger,
            champion,
            metric,
            resamples=self.resamples,
            seed=seed,
            confidence=self.confidence,
        )


@dataclass(frozen=True)
class Candidate:
    """A run or ensemble of a data set that may become champion.

    Attributes:
        run: its name.
        validation: the gate's metric on the validation split; None where it was left out.
        left_out: the reason; empty where it competes.
    """

    run: str
    validation: float | None = None
    left_out: str = ""


def choose(candidates: Iterable[Candidate], metric: Metric) -> str | None:
    """The run with the best value on the validation split (the first of equals), or None."""
    sign = 1 if metric.higher_is_better else -1
    values = {c.run: sign * c.validation for c in candidates if c.validation is not None}
    return max(values, key=lambda run: values[run], default=None)


@dataclass(frozen=True)
class Verdict:
    """The decision on the challenger of a data set.

    Attributes:
        model: the registered model.
        promoted: whether the challenger has become champion.
        reason: a sentence for people.
        metric: of the gate; None where a reviewer decided.
        candidates: all runs of the data set.
        run: the challenger, or the run of the version that was approved.
        version: the challenger's version in the registry; None where it was not registered.
        champion: the version that was champion before; None where there was none.
        score: of the challenger, on all test examples.
        examples: number of these examples.
        champion_score: of the champion, on the test examples that it has predicted.
        comparison: of the challenger with the champion.
    """

    model: str
    promoted: bool
    reason: str
    metric: Metric | None = None
    candidates: Sequence[Candidate] = ()
    run: str | None = None
    version: int | None = None
    champion: int | None = None
    score: float | None = None
    examples: int | None = None
    champion_score: float | None = None
    comparison: Comparison | None = None

    def to_metrics(self) -> dict[str, float]:
        """The numbers of the decision, by name."""
        numbers = {
            "validation": {c.run: c.validation for c in self.candidates}.get(self.run or ""),
            "score": self.score,
            "examples": self.examples,
            "champion_score": self.champion_score,
        }
        if found := self.comparison:
            numbers |= {
                "difference": found.difference,
                "low": found.low,
                "high": found.high,
                "confidence": found.confidence,
                "compared": found.examples,
                "clusters": found.clusters,
            }
        return {name: float(x) for name, x in numbers.items() if x is not None}

    def to_markdown(self) -> str:
        """The decision, and one table: who competed, on which examples, and the difference."""
        head = "a new champion" if self.promoted else "the champion stays"
        lines = [f"## {self.model}: {head}", "", f"{self.reason[:1].upper()}{self.reason[1:]}.", ""]
        if self.metric is None:
            return "\n".join(lines)
        title = self.metric.title
        columns = (
            "Candidate",
            f"{title}, validation",
            f"{title}, test",
            "Improvement on the champion",
            "Decision",
        )
        rows = [columns, ("---", "---:", "---:", "---:", "---"), *self._rows()]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        if self.run:
            lines += [
                "",
                f"{self.run} has the best {title} on the validation split. It alone was judged on "
                f"the test split: {self.examples or 0:,} examples{self._compared()}.",
            ]
        return "\n".join([*lines, ""])

    def _rows(self) -> Iterable[tuple[str, ...]]:
        assert self.metric

        def cell(value: float | None) -> str:
            return "" if value is None or not self.metric else format(value, self.metric.format)

        if self.champion:
            decision = "was champion" if self.promoted else "stays champion"
            yield f"version {self.champion}", "", cell(self.champion_score), "", decision
        better = sorted(
            self.candidates,
            key=lambda c: (
                c.validation is None,
                (c.validation or 0.0) * (-1 if self.metric and self.metric.higher_is_better else 1),
            ),
        )
        for candidate in better:
            if candidate.left_out:
                yield candidate.run, "", "", "", f"left out: {candidate.left_out}"
            elif candidate.run != self.run:
                yield candidate.run, cell(candidate.validation), "", "", "not chosen"
            else:
                decision = "chosen; becomes champion" if self.promoted else "chosen; not promoted"
                if self.version:
                    decision = f"{decision} (version {self.version})"
                yield (
                    f"**{candidate.run}**",
                    cell(candidate.validation),
                    cell(self.score),
                    self._difference(),
                    decision,
                )

    def _difference(self) -> str:
        if not (self.comparison and self.metric):
            return ""
        difference, low, high = (
            format(x, "+" + self.metric.format)
            for x in (self.comparison.difference, self.comparison.low, self.comparison.high)
        )
        return f"{difference} [{low}, {high}]"

    def _compared(self) -> str:
        if not self.comparison:
            return ""
        found = self.comparison
        return (
            f". Paired with the champion on {found.examples:,} of them in {found.clusters:,} "
            f"clusters; brackets: {found.confidence:.0%} confidence interval"
        )
