"""What the ranks of a training share through TensorFlow's collectives, and how its end is reported.

Everything that decides the course of a training comes from rank 0: its clock, its disk. Each
function here is called by all ranks, in the same order; in a training of one process it only
returns rank 0's value.
"""

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import distribute_lib
from tensorflow.python.distribute.collective_all_reduce_strategy import (
    CollectiveAllReduceExtended,
)
from tensorflow.python.eager import context

from ostinato.errors import TrainingError
from ostinato.task import Part
from ostinato.training import cluster as clusters
from ostinato.training.cluster import Cluster

ABORTED = ("Collective ops is aborted by", "coordination", "heartbeat")
"""Parts of TensorFlow's messages where another rank is the cause."""

CHUNK = 1 << 26  # bytes in one broadcast
ENDED = "a rank of this training has ended"
RING = tf.distribute.experimental.CommunicationImplementation.RING
NCCL = tf.distribute.experimental.CommunicationImplementation.NCCL


@functools.cache
def strategy(cluster: Cluster, kind: str, devices: int) -> tf.distribute.Strategy:
    """The strategy over the devices of all ranks, once they are all there.

    A process has one, which stays: its servers cannot be started again.

    Args:
        cluster: the ranks.
        kind: GPU, whose sums NCCL makes, or CPU.
        devices: of each rank.

    Raises:
        TrainingError: ranks are missing, or TensorFlow has started already.
    """
    # TensorFlow uses one CPU device of each worker, and all of its GPUs. Only this private method
    # chooses them; where it is gone, the law of two devices for each rank fails.

    class Extended(CollectiveAllReduceExtended):
        def _initialize_local_devices(
            self, resolver: object, worker: str
        ) -> tuple[tuple[str, ...], str]:
            return tuple(f"{worker}/device:{kind}:{i}" for i in range(devices)), kind

    class AllRanks(tf.distribute.MultiWorkerMirroredStrategy):
        def __init__(self) -> None:
            extended = Extended(self, resolver, options)
            distribute_lib.Strategy.__init__(self, extended)

    agreement = f"{devices} {kind}, TensorFlow {tf.__version__}"
    clusters.wait_for_ranks(cluster, agreement, clusters.timeout_s())
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": cluster.addresses}),
        task_type="worker",
        task_id=cluster.rank,
        num_accelerators={kind: devices} if kind == "GPU" else {},
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=NCCL if kind == "GPU" else RING
    )
    try:
        return AllRanks()
    except RuntimeError as error:
        raise TrainingError(
            f"{cluster.names([cluster.rank])}: {error}; enter the runtime before any other "
            "computation of the process"
        ) from None
    except tf.errors.OpError as error:
        raise TrainingError(
            f"{cluster.names([cluster.rank])} cannot start its server: {error.message}"
        ) from None


def part() -> Part:
    """This rank's part of every batch."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None:
        return Part()
    return Part(resolver.task_id, resolver.cluster_spec().num_tasks("worker"))


def of_rank_0(value: float) -> float:
    """Rank 0's value, on all ranks."""
    if part().ranks == 1:
        return value
    return float(np.frombuffer(_broadcast(np.float64(value).tobytes()), np.float64)[0])


def open_file(path: Path) -> IO[bytes] | None:
    """A file of rank 0, open for reading on all ranks; None if rank 0 has no such file."""
    mine = part()
    if mine.ranks == 1:
        return path.open("rb") if path.exists() else None
    content = path.read_bytes() if mine.rank == 0 and path.exists() else None
    size = int(of_rank_0(-1 if content is None else len(content)))
    if size < 0:
        return None
    content = content or bytes(size)
    return io.BytesIO(b"".join(_broadcast(content[i : i + CHUNK]) for i in range(0, size, CHUNK)))


def _broadcast(content: bytes) -> bytes:
    """Rank 0's content; the others give as many bytes, which do not matter."""
    padded = content + bytes(-len(content) % 4)
    numbers = np.frombuffer(padded, np.int32)
    if part().rank:
        numbers = np.zeros_like(numbers)
    # A sum with zeros, of integers because it is exact.
    total = tf.distribute.get_strategy().reduce("SUM", tf.constant(numbers), axis=None)
    return bytes(total.numpy().tobytes()[: len(content)])


@contextlib.contextmanager
def end_together(cluster: Cluster) -> Iterator[None]:
    """Enter and end a training with all ranks: if one fails, all fail and know which.

    Raises:
        TrainingError: another rank has ended.
    """
    try:
        yield
        of_rank_0(0)  # all wait until rank 0 has written its files
    except tf.errors.OpError as error:
        if not any(text in error.message for text in ABORTED):
            _report_error(cluster, str(error))
            raise
        message = _cause(cluster, error.message)
        _report_error(cluster, message)
        raise TrainingError(message) from None
    except BaseException as error:
        _report_error(cluster, f"{cluster.names([cluster.rank])}: {type(error).__name__}: {error}")
        raise


def _cause(cluster: Cluster, message: str) -> str:
    """What has ended this training, from an error of TensorFlow."""
    if reported := re.search(rf"{ENDED}: .*", message):
        return reported.group()
    ended = clusters.unreachable(cluster)
    if not ended:
        tasks = {int(task) for task in re.findall(r"/task:(\d+)", message)}
        ended = sorted(tasks - {cluster.rank})
    return f"{ENDED}: {cluster.names(ended) or 'TensorFlow does not say which'}; {clusters.RESUMES}"


def _report_error(cluster: Cluster, message: str) -> None:
    """Tell the other ranks why this one ends; where rank 0 has ended, nobody can be told."""
    text = message if message.startswith(ENDED) else f"{ENDED}: {message}; {clusters.RESUMES}"
    with contextlib.suppress(tf.errors.OpError):
        context.context().report_error_to_cluster(tf.errors.ABORTED, text.replace("\n", " "))
