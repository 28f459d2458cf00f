"""TFRecord files: their records as a tf.data pipeline, or by number through an index beside them.

The index of a file is an ``.npy`` array with a row for each record: ``end``, where the record ends
in the file, and ``lengths``, its lengths as batches are sorted by them. It is read through a memory
map, so an index of any size takes no memory.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, Integer

from ostinato import store
from ostinato.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

BUFFER_BYTES = 1 << 20
HEAD_BYTES, TAIL_BYTES = 12, 4  # around a record: its length with a checksum; its checksum


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


def index_file(file: Path) -> Path:
    """The path of a file's index: data.tfrecord-00000-of-00001 has data.index-00000-of-00001.npy.

    Args:
        file: a TFRecord file.
    """
    return file.with_name(file.name.replace(".tfrecord-", ".index-") + ".npy")


def write_index(
    file: Path,
    sizes: Sequence[int] | Integer[np.ndarray, " record"],
    lengths: Integer[np.ndarray, "record _"],
) -> None:
    """Write the index of a TFRecord file.

    Args:
        file: the TFRecord file.
        sizes: bytes of each record.
        lengths: of each record, by which batches are sorted and to which they are padded.
    """
    fields = [("end", "<u8"), ("lengths", "<u4", (lengths.shape[1],))]
    index = np.empty(len(lengths), fields)
    index["end"] = np.cumsum(np.asarray(sizes, np.int64) + HEAD_BYTES + TAIL_BYTES)
    index["lengths"] = lengths
    content = BytesIO()
    np.lib.format.write_array(content, index, allow_pickle=False)
    store.write_bytes(index_file(file), content.getvalue())


def sizes(framed: bytes) -> list[int]:
    """The bytes of each record in the content of a TFRecord file."""
    found, at = [], 0
    while at < len(framed):
        found.append(int.from_bytes(framed[at : at + 8], "little"))
        at += found[-1] + HEAD_BYTES + TAIL_BYTES
    return found


class Records:
    """The records of TFRecord files, numbered in the order of the files.

    Args:
        files: with an index each.

    Raises:
        DataError: an index is missing, or belongs to another file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._indices = [_open_index(file) for file in files]
        self._ends = np.cumsum([len(index) for index in self._indices], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def lengths(self, numbers: Int64[np.ndarray, " record"]) -> Int64[np.ndarray, "record _"]:
        """The lengths of records in the index."""
        columns = self._indices[0]["lengths"].shape[1]
        found = np.empty((len(numbers), columns), np.int64)
        files = np.searchsorted(self._ends, numbers, side="right")
        for file, index in enumerate(self._indices):
            chosen = np.flatnonzero(files == file)
            rows = numbers[chosen] - self._ends[file] + len(index)
            found[chosen] = index["lengths"][rows]
        return found

    def read(self, numbers: Int64[np.ndarray, " record"]) -> list[bytes]:
        """The content of records, checked as TensorFlow does.

        Args:
            numbers: of the records; they rise.

        Raises:
            DataError: a record is damaged.
        """
        found: list[bytes] = []
        bounds = np.searchsorted(numbers, [0, *self._ends])
        for file, index in enumerate(self._indices):
            rows = numbers[bounds[file] : bounds[file + 1]] - self._ends[file] + len(index)
            if len(rows):
                ends = index["end"][rows].astype(np.int64)
                begins = np.where(rows > 0, index["end"][rows - 1], 0).astype(np.int64)
                found += _contents(self._files[file], begins, ends)
        return found


def _open_index(file: Path) -> Any:
    path = index_file(file)
    if not path.exists():
        raise DataError(f"{path}: no index of {file.name}; `dvc repro` prepares the data again")
    large = path.stat().st_size > BUFFER_BYTES  # an empty array cannot be mapped
    index = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
    expected, found = int(index["end"][-1]) if len(index) else 0, file.stat().st_size
    if found != expected:
        raise DataError(
            f"{file}: found {found} bytes; expected {expected}, as its index says; "
            "`dvc repro` prepares the data again"
        )
    return index


def _contents(
    file: Path, begins: Int64[np.ndarray, " record"], ends: Int64[np.ndarray, " record"]
) -> list[bytes]:
    """The records between bytes of a file, without their frames."""
    import google_crc32c

    found = []
    for begin, framed in zip(begins, store.read_spans(file, begins, ends), strict=True):
        content = framed[HEAD_BYTES:-TAIL_BYTES]
        crc = google_crc32c.value(content)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        size, stored = framed[:8], framed[-TAIL_BYTES:]
        if size != len(content).to_bytes(8, "little") or stored != masked.to_bytes(4, "little"):
            raise DataError(
                f"{file}, byte {begin}: the record is damaged; `dvc repro` prepares the data again"
            )
        found.append(content)
    return found
