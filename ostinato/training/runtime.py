"""Where models are built and trained: seeds, precision, threads and devices."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from ostinato.errors import TrainingError
from ostinato.units import Count


@contextlib.contextmanager
def runtime(
    seed: int,
    *,
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"],
    devices: Count,
    intra_op: Count | None,
    inter_op: Count | None,
) -> Iterator[tf.distribute.Strategy]:
    """Set the seed, precision, threads and devices of the block.

    Keras' names and seeds are reset, so the same build creates the same variables. Build models in
    the block: with several devices, each device gets a copy of their variables.

    Args:
        seed: of initial weights and of all other random draws while a model is built.
        precision: Keras' dtype policy; the previous policy is restored at the end.
        devices: number of GPUs, or of (logical) CPU devices where there is no GPU.
        intra_op: threads within an operation; null leaves TensorFlow's choice. Bidirectional
            stacks were 1.1 to 1.4 times faster on 2 cores with 1 here and 2 for ``inter_op``.
        inter_op: operations that run in parallel; null leaves TensorFlow's choice.

    Raises:
        TrainingError: there are fewer devices, or TensorFlow has started with other threads.
    """
    _set_threads("intra", intra_op)
    _set_threads("inter", inter_op)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_op_determinism()
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        kind = "GPU" if gpus else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(names) < devices:
            raise TrainingError(
                f"runtime.devices: {devices} requested, {len(names)} {kind} available; "
                "use a lower number"
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
            f"runtime.{kind}_op: TensorFlow has started with {current or 'its own number of'} "
            f"threads and cannot change to {threads}; enter the runtime before any other "
            "computation, or use null"
        ) from None
