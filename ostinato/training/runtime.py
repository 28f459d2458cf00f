"""Where models are built and trained: seeds, precision, threads and devices."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from ostinato.errors import TrainingError
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
    """Set the seed, precision, threads and devices of the block.

    Keras' names and seeds are reset, so the same build creates the same variables. Build models in
    the block: with several devices, each device gets a copy of their variables.

    Args:
        seed: of initial weights and of all other random draws while a model is built.
        machine: devices and threads.
        precision: Keras' dtype policy; the previous policy is restored at the end.

    Raises:
        TrainingError: there are fewer devices, or TensorFlow has started with other threads.
    """
    _set_threads("intra", machine.intra_op)
    _set_threads("inter", machine.inter_op)
    devices = machine.devices
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_op_determinism()
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        kind = "GPU" if gpus else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(names) < devices:
            raise TrainingError(
                f"{DEVICES}: {devices} requested, {len(names)} {kind} available; use a lower number"
            )
        # On CPU any other reduction fails when a process makes a second strategy.
        reduction = None if gpus else tf.distribute.ReductionToOneDevice()
        strategy = tf.distribute.MirroredStrategy(names[:devices], cross_device_ops=reduction)
    policy = keras.config.dtype_policy()
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    try:
        with strategy.scope() if devices > 1 else contextlib.nullcontext():
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
    )


def reseed(layers: Sequence[keras.layers.Layer], seed: int, epoch: int) -> None:
    """Make the random draws of layers (dropout) a function of (seed, epoch), device by device.

    Args:
        layers: models or layers; the states of their ``keras.random.SeedGenerator`` are set.
        seed: of the training.
        epoch: from 1.
    """
    strategy = tf.distribute.get_strategy()
    variables = [variable for layer in layers for variable in layer.variables]
    states = [v for v in variables if v.name == "seed_generator_state"]
    for index, state in enumerate(states):
        for rank, part in enumerate(strategy.experimental_local_results(state.value)):
            drawn = np.random.SeedSequence((seed, epoch, index, rank)).generate_state(1)[0]
            part.assign([drawn, 0])


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
