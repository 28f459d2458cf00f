"""What describes the computer and not the experiment: devices and threads, from the environment.

They are no parameters: another machine uses all that it has, and does not train again because of
them. Imports no TensorFlow.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from ostinato import store
from ostinato.errors import DataError, SettingError
from ostinato.training.cluster import Cluster, this_cluster

DEVICES = "OSTINATO_DEVICES"
INTRA_OP, INTER_OP = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"  # TensorFlow's own names
GPU = "OSTINATO_GPU"
REQUIRED = "required"  # the only value of GPU


@dataclass(frozen=True)
class Machine:
    """Devices and threads of a training.

    Args:
        devices: number of GPUs, or of (logical) CPU devices where there is no GPU.
        intra_op: threads within an operation; None leaves TensorFlow's choice.
        inter_op: operations that run in parallel; None leaves TensorFlow's choice.
        cluster: the processes that share the training, each with as many devices.
    """

    devices: int = 1
    intra_op: int | None = None
    inter_op: int | None = None
    cluster: Cluster = Cluster()


@dataclass(frozen=True)
class DeviceRecord:
    """What a training ran on: the content of ``training.json``.

    Args:
        device: GPU or CPU.
        names: of the GPUs; empty on a CPU.
        cores: processor cores that the process may use.
        intra_op: threads within an operation; None: TensorFlow's choice.
        inter_op: operations in parallel; None: TensorFlow's choice.
        precision: Keras' dtype policy.
        tensorflow: its version.
        ranks: processes that shared the training; the rest describes rank 0.
    """

    device: Literal["GPU", "CPU"]
    names: tuple[str, ...]
    cores: int
    intra_op: int | None
    inter_op: int | None
    precision: str
    tensorflow: str
    ranks: int = 1

    def __str__(self) -> str:
        """One line, for the log."""
        return f"{self.title()}, {self.precision}, TensorFlow {self.tensorflow}"

    def title(self) -> str:
        """The devices in words."""
        ranks = f"{self.ranks} ranks of " if self.ranks > 1 else ""
        if self.device == "GPU":
            return f"{ranks}{len(self.names)} GPU ({', '.join(self.names)})"
        threads = {"intra_op": self.intra_op, "inter_op": self.inter_op}
        known = [f"{name} {number}" for name, number in threads.items() if number]
        return f"{ranks}CPU ({', '.join([f'cores {self.cores}', *known])})"

    def tags(self) -> dict[str, str]:
        """The tags of the training's run in MLflow."""
        return {"device": self.title(), "tensorflow": self.tensorflow}

    def write(self, path: Path) -> None:
        """Write the record as JSON; ``ranks`` only where there are several."""
        values = asdict(self)
        if self.ranks == 1:
            del values["ranks"]
        store.write_json(path, values)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            DataError: the file is no record.
        """
        try:
            values = store.read_json(path)
            return cls(**{**values, "names": tuple(values["names"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: no record of a training: {error}; train again") from None


def this_machine(
    environment: Mapping[str, str] | None = None, *, cores: int | None = None
) -> Machine:
    """The devices and threads of this computer, and the ranks of the training.

    On one or two cores an operation has one thread, and as many operations as cores run in
    parallel: bidirectional stacks were 1.1 to 1.4 times faster so on 2 cores. With more cores the
    number of threads is TensorFlow's choice.

    Args:
        environment: with the variables OSTINATO_DEVICES, TF_NUM_INTRAOP_THREADS and
            TF_NUM_INTEROP_THREADS, which come first, and those of `this_cluster`; None: the one of
            this process.
        cores: of the computer; None: those that this process may use.

    Raises:
        SettingError: a variable is no integer from 1, or describes no ranks.
    """
    environment = os.environ if environment is None else environment
    cores = available_cores() if cores is None else cores
    few = cores <= 2
    return Machine(
        devices=_number(environment, DEVICES) or 1,
        intra_op=_number(environment, INTRA_OP) or (1 if few else None),
        inter_op=_number(environment, INTER_OP) or (cores if few else None),
        cluster=this_cluster(environment),
    )


def gpu_required() -> bool:
    """Whether OSTINATO_GPU says that a process without a GPU must fail.

    Raises:
        SettingError: the variable has another value than "required".
    """
    value = os.environ.get(GPU, "")
    if value not in ("", REQUIRED):
        raise SettingError(f"{GPU}: found {value!r}; expected {REQUIRED!r}, or no such variable")
    return value == REQUIRED


def available_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise SettingError(f"{name}: found {text!r}; expected an integer from 1")
    return int(text)
