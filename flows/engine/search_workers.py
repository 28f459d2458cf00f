"""The processes that train the trials of a flow: each trains one trial after another."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import optuna
from prefect.logging import get_run_logger

from flows.engine import commands, devices
from ostinato.policies import RetryPolicy

STOP = json.dumps({"stop": True})
STOP_GRACE_S = 5.0  # a pruned trial has this time to reach the end of its epoch
MAX_GROWTH_BYTES = 1 << 30  # of a worker's memory since its first trial


class Workers:
    """The workers of a flow; those without a trial wait for the next one.

    Args:
        policy: of the run's stage: whether a trial gets a GPU.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._idle: list[_Worker] = []
        self._taken = 0
        self._lock = threading.Lock()  # of the two

    @contextmanager
    def take(self) -> Iterator["_Worker"]:
        """Take a worker for a trial: an idle one, or a fresh one."""
        with self._lock:
            self._taken += 1
            worker = self._idle.pop() if self._idle else None
        usable = False
        try:
            if worker and worker.unusable():  # ended while it was idle
                worker.close()
                worker = None
            worker = worker or _Worker(self._policy)
            try:
                yield worker
            finally:
                if reason := worker.unusable():
                    get_run_logger().info("the next trial gets a fresh process: %s", reason)
                    worker.close()
                else:
                    usable = True
        finally:
            with self._lock:
                self._taken -= 1
                if worker and usable:
                    self._idle.append(worker)

    def keep(self, trials: int) -> None:
        """Stop the idle workers that no trial needs, and release their devices.

        Args:
            trials: that run, also those that have not taken their worker yet.
        """
        while True:
            with self._lock:
                if not self._idle or len(self._idle) + self._taken <= trials:
                    return
                worker = self._idle.pop()
            worker.close()

    def close(self) -> None:
        """Stop all idle workers, and release their devices."""
        self.keep(0)


class _Worker:
    """A process of `stages.trial train`, and the devices that are reserved for it.

    The devices stay reserved between two trials, as TensorFlow keeps the memory of a GPU.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._reserved = ExitStack()
        # The context in which the devices are reserved must also release them.
        self._context = copy_context()
        reservation = devices.reserve_for(policy)
        env = self._context.run(self._reserved.enter_context, reservation)
        argv = (sys.executable, "-m", "stages.trial", "train")
        try:
            self._command = self._context.run(commands.Command, *argv, env=env, takes_input=True)
        except BaseException:
            self._context.run(self._reserved.close)
            raise
        self._memory: list[int] = []  # after each trial
        self._busy = False

    def train(
        self, plan: Mapping[str, Any], folder: Path, on_line: Callable[[str], object]
    ) -> commands.Output:
        """Train a trial.

        Args:
            plan: of the trial.
            folder: of its checkpoints.
            on_line: called with each line of its output.

        Returns:
            The output, with the code 0 where the training was completed. Otherwise it has failed,
            and the worker has ended.

        Raises:
            StoppedError: the flow has ended.
            TrialPruned: ``on_line`` has raised it. The worker ends the training after its epoch, or
                is stopped after STOP_GRACE_S.
        """
        self._busy = True
        lines: list[str] = []
        pruned: optuna.TrialPruned | None = None
        interrupted = threading.Event()

        def interrupt() -> None:
            interrupted.set()
            self._command.interrupt()

        timer = threading.Timer(STOP_GRACE_S, interrupt)
        self._command.write(json.dumps({"plan": plan, "folder": str(folder)}))
        try:
            for line in self._command.lines():
                if line.startswith('{"ended"'):
                    timer.cancel()
                    self._busy = interrupted.is_set()  # it is about to end
                    self._memory.append(json.loads(line)["memory"])
                    break
                lines.append(line)
                if pruned:
                    continue
                try:
                    on_line(line)
                except optuna.TrialPruned as error:
                    pruned = error
                    self._command.write(STOP)
                    timer.start()
        finally:
            timer.cancel()
        self._command.check_flow()
        if pruned:
            raise pruned
        return commands.Output(self._command.code if self._busy else 0, lines)

    def unusable(self) -> str:
        """Why it cannot train another trial; empty where it can."""
        if self._busy or self._command.ended:
            return "the last one has ended"
        if not self._memory:
            return ""
        grown = self._memory[-1] - self._memory[0]
        if grown > MAX_GROWTH_BYTES:
            return f"the last one has grown by {grown >> 20} MiB in {len(self._memory)} trials"
        return ""

    def close(self) -> None:
        """Stop it and release its devices."""
        self._command.stop()
        self._context.run(self._reserved.close)
