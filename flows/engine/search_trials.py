"""Which trial is next, for any number of flows that work on a search together.

No flow leads, and no lock is held over machines: the storage numbers the trials, and all else is a
function of a trial's number and of the trials with lower numbers. Where two flows ask at once, the
trial with the higher number can turn out to be superfluous, and then it is not trained.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from prefect.logging import get_run_logger

from flows.engine import search as search_settings
from flows.engine.search import Search, state_of
from ostinato import store

NOT_TRAINED = ("waiting", "killed", "superfluous")


class Heartbeats:
    """The heartbeats of running trials: a flow records its own and observes those of the others.

    A trial is dead when its heartbeat did not change for HEARTBEAT_TIMEOUT_S, by the clock of the
    flow that observes it: the clocks of machines may differ. Optuna's own heartbeats need a direct
    connection to a database; the proxy has none.
    """

    def __init__(self) -> None:
        self._observed: dict[int, tuple[Any, float]] = {}  # heartbeat, and seconds without a change
        self._last = time.monotonic()

    def record(self, trials: Iterable[Trial]) -> None:
        """Record a heartbeat of trials of this flow."""
        for trial in trials:
            try:
                trial.set_user_attr("heartbeat", time.time())
            except UpdateFinishedTrialError:  # has just ended, or another flow has taken it over
                continue

    def dead(self, running: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The dead ones of the trials that run in other flows."""
        now = time.monotonic()
        # After a pause of this process (suspended, or a busy machine) the others get their time.
        passed = min(now - self._last, 2 * search_settings.HEARTBEAT_INTERVAL_S)
        self._last = now
        before, self._observed, dead = self._observed, {}, []
        for trial in running:
            heartbeat = trial.user_attrs.get("heartbeat")
            last, silent = before.get(trial.number, (None, 0.0))
            silent = silent + passed if trial.number in before and last == heartbeat else 0.0
            self._observed[trial.number] = (heartbeat, silent)
            if silent > search_settings.HEARTBEAT_TIMEOUT_S:
                dead.append(trial)
        return dead


def take_over(search: Search, heartbeats: Heartbeats, own: Iterable[int]) -> None:
    """Enqueue the trials of dead flows again.

    Args:
        search: of the trials.
        heartbeats: as this flow has observed them.
        own: numbers of the trials that this flow runs.
    """
    study, ours = search.optuna_study, set(own)
    running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    for trial in heartbeats.dead(trial for trial in running if trial.number not in ours):
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):  # another flow was faster
            continue
        get_run_logger().info("trial %d: its flow is dead; it is enqueued again", trial.number)
    known = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("again") for trial in known}
    for trial in known:
        if state_of(trial) == "killed" and trial.number not in again:
            enqueue_again(study, trial)


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a trial whose flow has died."""
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def ask(search: Search, total: int) -> Trial | None:
    """The next trial, or None where there is none to start.

    A suggestion is a function of the seed, of the trial's `draw_index` and of the results so far: a
    search with ``max_concurrency`` 1 repeats, however often it was stopped.
    """
    study = search.optuna_study
    known = study.get_trials(deepcopy=False)
    points = grid(search)
    waiting = any(state_of(trial) == "waiting" for trial in known)
    exhausted = points is not None and draw_index(known, len(known)) >= len(points) and not waiting
    if exhausted or count_started(known) >= total:
        return None
    study.sampler = IndexedSampler(search, points)
    trial = study.ask(dict(search.space))
    if not is_superfluous(study.get_trials(deepcopy=False), trial.number, total, points):
        return trial
    trial.set_user_attr("superfluous", True)
    study.tell(trial, state=TrialState.FAIL)
    return None


def is_superfluous(
    known: Sequence[FrozenTrial], number: int, total: int, points: Sequence[Any] | None
) -> bool:
    """Whether a trial must not be trained: flows that asked at once have its place.

    Args:
        known: all trials.
        number: of the trial.
        total: number of trials of the search.
        points: of a grid.
    """
    earlier, again = known[:number], known[number].user_attrs.get("again")
    if again is not None:
        taken = any(trial.user_attrs.get("again") == again for trial in earlier)
    else:
        taken = points is not None and draw_index(known, number) >= len(points)
    return taken or count_started(earlier) >= total


def count_started(trials: Iterable[FrozenTrial]) -> int:
    """The number of trials that count as trained or in training."""
    return sum(state_of(trial) not in NOT_TRAINED for trial in trials)


def draw_index(known: Sequence[FrozenTrial], number: int) -> int:
    """The number of a trial without those that take up a killed one, which has the same index."""
    while number < len(known) and (again := known[number].user_attrs.get("again")) is not None:
        number = again
    return sum("again" not in trial.user_attrs for trial in known[:number])


def grid(search: Search) -> list[dict[str, Any]] | None:
    """The points of a grid in order; None of another search."""
    if search.sampler != "grid":
        return None
    choices = (distribution.choices for distribution in search.space.values())
    products = itertools.product(*choices)
    return [dict(zip(search.space, point, strict=True)) for point in products]


class IndexedSampler(optuna.samplers.BaseSampler):
    """The sampler of a search, seeded for each trial by its index."""

    def __init__(self, search: Search, points: Sequence[Mapping[str, Any]] | None) -> None:
        self._search, self._points = search, points

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the sampler; see Optuna."""
        index = draw_index(self._search.optuna_study.get_trials(deepcopy=False), trial.number)
        if self._points is not None:
            self._point = self._points[min(index, len(self._points) - 1)]
        # Hashed, as the first numbers of neighbouring seeds are similar.
        seed = int(store.digest(self._search.plan["seed"], index)[:8], 16)
        self._sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            if self._search.sampler == "bayesian"
            else optuna.samplers.RandomSampler(seed)
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together; see Optuna."""
        found: dict[str, BaseDistribution] = (
            self._sampler.infer_relative_search_space(study, trial) if self._points is None else {}
        )
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw these parameters; see Optuna."""
        drawn: dict[str, Any] = self._sampler.sample_relative(study, trial, search_space)
        return drawn

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw another parameter; see Optuna."""
        if self._points is not None:
            return self._point[param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def find_twin(search: Search, trial: Trial) -> FrozenTrial | None:
    """The first earlier trial with the same parameters that has ended or runs.

    Also one whose parameters another flow is about to draw: they may be the same.
    """
    for other in search.optuna_study.get_trials(deepcopy=False)[: trial.number]:
        drawn = other.state.is_finished() or len(other.params) == len(search.space)
        if state_of(other) not in NOT_TRAINED and (not drawn or other.params == trial.params):
            return other
    return None


def copy_result(study: optuna.Study, trial: Trial, twin: FrozenTrial) -> None:
    """Give a trial the result of its twin: the same training again would have the same result."""
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    for name in ("history", "error"):
        if name in twin.user_attrs:
            trial.set_user_attr(name, twin.user_attrs[name])
    trial.set_user_attr("same_as", twin.number)
    study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, twin.state)
    get_run_logger().info("trial %d equals trial %d: not trained", trial.number, twin.number)
