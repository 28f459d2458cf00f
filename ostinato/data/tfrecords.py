"""Read TFRecord files as a tf.data pipeline."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

BUFFER_BYTES = 1 << 20


def read(files: Sequence[str]) -> "tf.data.Dataset":
    """The records of files in their order, as a data set of serialised examples (scalar strings).

    Autotuning is off, here and in what is derived from the data set: with it, the end of an
    iterator waits for a thread whose sleep doubles to 60 s.

    Args:
        files: TFRecord files.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.TFRecordDataset(files, buffer_size=BUFFER_BYTES).with_options(options)
