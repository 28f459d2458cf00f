"""Where models are built and trained: seeds, precision, threads and devices."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from ostinato.errors import TrainingError
from ostinato.training import ranks
from ostinato.training.machine import (
    DEVICES,
    INTER_OP,
    INTRA_OP,
    DeviceRecord,
    Machine,
    available_cores,
)

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@contextlib.contextmanager
def runtime(
    seed: int, machine: Machine, *, precision: Precision
) -> Iterator[tf.distribute.Strategy]:
    """Set the seed, precision, threads, devices and ranks of the block.

    Keras' names and seeds are reset, so the same build creates the same variables. Build models in
    the block: with several devices, each device gets a copy of their variables. With several ranks
    the block begins when all are there, and ends when all have left it.

    Args:
        seed: of initial weights and of all other random draws while a model is built.
        machine: devices and threads.
        precision: Keras' dtype policy; the previous policy is restored at the end.

    Raises:
        TrainingError: there are fewer devices, TensorFlow has started with other threads, a rank
            does not come, or another rank has ended.
    """
    _set_threads("intra", machine.intra_op)
    _set_threads("inter", machine.inter_op)
    devices = machine.devices
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_op_determinism()
    kind = "GPU" if gpus else "CPU"
    strategy = tf.distribute.get_strategy()
    several = devices > 1 or machine.cluster.ranks > 1
    if machine.cluster.ranks > 1:
        # TensorFlow must not start before the ranks' strategy, as the names of devices make it do.
        _check(devices, _configured(kind), kind)
        strategy = ranks.strategy(machine.cluster, kind, devices)
    elif devices > 1:
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        _check(devices, len(names), kind)
        # On CPU any other reduction fails when a process makes a second strategy.
        reduction = None if gpus else tf.distribute.ReductionToOneDevice()
        strategy = tf.distribute.MirroredStrategy(names[:devices], cross_device_ops=reduction)
    policy = keras.config.dtype_policy()
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    try:
        with contextlib.ExitStack() as stack:
            if several:
                stack.enter_context(strategy.scope())
            if machine.cluster.ranks > 1:
                stack.enter_context(ranks.end_together(machine.cluster))
            yield strategy
    finally:
        keras.config.set_dtype_policy(policy)


def device_record(machine: Machine, precision: str) -> DeviceRecord:
    """The devices that a training on this machine uses."""
    gpus = tf.config.list_physical_devices("GPU")[: machine.devices]
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return DeviceRecord(
        device="GPU" if gpus else "CPU",
        names=tuple(
            str(found.get("device_name", gpu.name))
            for gpu, found in zip(gpus, details, strict=True)
        ),
        cores=available_cores(),
        intra_op=machine.intra_op,
        inter_op=machine.inter_op,
        precision=precision,
        tensorflow=tf.__version__,
        ranks=machine.cluster.ranks,
    )


def reseed(layers: Sequence[keras.layers.Layer], seed: int, epoch: int) -> None:
    """Make the random draws of layers (dropout) a function of (seed, epoch), device by device.

    Devices count over all ranks: two ranks of one device draw as one rank of two does.

    Args:
        layers: models or layers; the states of their ``keras.random.SeedGenerator`` are set.
        seed: of the training.
        epoch: from 1.
    """
    strategy = tf.distribute.get_strategy()
    variables = [variable for layer in layers for variable in layer.variables]
    states = [v for v in variables if v.name == "seed_generator_state"]
    for index, state in enumerate(states):
        copies = strategy.experimental_local_results(state.value)
        for replica, copy in enumerate(copies, ranks.part().rank * len(copies)):
            drawn = np.random.SeedSequence((seed, epoch, index, replica)).generate_state(1)[0]
            copy.assign([drawn, 0])


def _check(devices: int, available: int, kind: str) -> None:
    if available < devices:
        raise TrainingError(
            f"{DEVICES}: {devices} requested, {available} {kind} available; use a lower number"
        )


def _configured(kind: str) -> int:
    """The number of logical devices, without starting TensorFlow."""
    found = tf.config.list_physical_devices(kind)
    configured = [tf.config.get_logical_device_configuration(device) for device in found]
    return sum(len(parts or ["whole"]) for parts in configured)


def _set_threads(kind: Literal["intra", "inter"], threads: int | None) -> None:
    current = getattr(tf.config.threading, f"get_{kind}_op_parallelism_threads")()
    if threads is None or threads == current:
        return
    try:
        getattr(tf.config.threading, f"set_{kind}_op_parallelism_threads")(threads)
    except RuntimeError:
        raise TrainingError(
            f"{INTRA_OP if kind == 'intra' else INTER_OP}: TensorFlow has started with "
            f"{current or 'its own number of'} threads and cannot change to {threads}; enter the "
            "runtime before any other computation, or leave TensorFlow's choice"
        ) from None
