"""TODO."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import keras
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
    """Where models are built and trained: seeds, precision, threads and devices.

    Keras' names and seeds begin afresh, so that the same build gives the same variables. Models
    must be built inside, for ``devices`` to hold their variables.

    Args:
        seed: of weights and of anything else that is drawn while a model is built.
        precision: Keras' dtype policy; the former one comes back at the end.
        devices: GPUs to train on, or (logical) CPU devices where there is no GPU.
        intra_op: threads within an operation; null leaves TensorFlow's choice. Bidirectional
            stacks were 1.1 to 1.4 times faster on 2 cores with 1 here and 2 for ``inter_op``.
        inter_op: operations that run at once.

    Raises:
        TrainingError: fewer devices than asked for, or TensorFlow has started with other threads.
    """
    for kind, asked in (("intra", intra_op), ("inter", inter_op)):
        present = getattr(tf.config.threading, f"get_{kind}_op_parallelism_threads")()
        if asked is None or asked == present:
            continue
        try:
            getattr(tf.config.threading, f"set_{kind}_op_parallelism_threads")(asked)
        except RuntimeError:
            raise TrainingError(
                f"runtime.{kind}_op: TensorFlow has started with {present or 'its own number of'} "
                f"threads, so {asked} cannot be set; enter runtime before anything else computes, "
                "or use null"
            ) from None
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_op_determinism()
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        kind = "GPU" if gpus else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(names) < devices:
            raise TrainingError(f"runtime.devices: {devices} asked for, {len(names)} {kind} there")
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
