"""Reuse the compiled steps of earlier trainings: tracing takes most of the time of a small one."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ostinato.training.steps import Step

Runs = tuple[Any, Any]
"""The compiled training step and the compiled test step."""

MAX_KEPT = 8  # compiled trainings, of 20 to 60 MB each


@dataclass(frozen=True)
class _Compiled:
    step: Step
    peaks: Sequence[tf.Variable]
    share: tf.Variable
    runs: Runs


class Graphs:
    """The compiled steps of the trainings of a process, each with its step and its variables.

    A later training with the same key runs in the variables of the first one: they get the values
    of the new step, so its results are those of a training that compiles its own graphs.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Compiled] = OrderedDict()
        self._key = ""

    def select(self, key: str) -> None:
        """Name the graphs of the next training.

        Args:
            key: a digest of all that its graphs depend on: everything but the values of variables,
                the peaks of the learning rate, and the lengths of the training and of its batches.
        """
        self._key = key

    def compiled(
        self,
        step: Step,
        peaks: Sequence[float],
        share: float,
        compile_steps: Callable[[Step, Sequence[Any], Any], Runs],
    ) -> tuple[Step, Runs]:
        """The step to train and its compiled forms.

        Args:
            step: of the new training, untrained; its models and optimisers have all variables.
            peaks: the highest learning rate of each optimiser.
            share: of an example in the whole training.
            compile_steps: maps the step and variables for the other two to compiled steps.
        """
        if self._key not in self._kept:
            of_peaks, of_share = (
                [tf.Variable(peak) for peak in peaks],
                tf.Variable(share, dtype="float64"),
            )
            compiled = _Compiled(step, of_peaks, of_share, compile_steps(step, of_peaks, of_share))
            self._kept[self._key] = compiled
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(self._key)
        compiled = self._kept[self._key]
        if compiled.step is not step:
            for old, new in zip(_variables(compiled.step), _variables(step), strict=True):
                old.assign(new.value)
            for variable, peak in zip(compiled.peaks, peaks, strict=True):
                variable.assign(peak)
            compiled.share.assign(share)
        return compiled.step, compiled.runs


def _variables(step: Step) -> list[keras.Variable]:
    owners = (*step.models, *step.optimizers)
    return [variable for owner in owners for variable in owner.variables]
