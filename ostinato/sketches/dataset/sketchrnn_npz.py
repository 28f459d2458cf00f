"""Read SketchRNN's ``.npz`` files, which contain pickles, without executing their code.

Ha and Eck 2017, A Neural Representation of Sketch Drawings, arXiv 1704.03477. A file holds three
arrays, train, valid and test. Each is an object array of stroke-3 arrays (point, 3), or one array
(drawing, point, 3) where all drawings have the same number of points.
"""

import io
import math
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.errors import ArchiveError
from ostinato.sketches.formats.strokes import MAX_COORDINATE

KEYS = ("train", "valid", "test")
MAX_BYTES = 1 << 30  # of a file when inflated; ten times the largest published file


def read_npz(path: Path) -> dict[str, list[np.ndarray]]:
    """Read the drawings of the splits train, valid and test, unchanged.

    Returns:
        For each split a list of arrays (point, 3): dx, dy, and 1 if the pen lifts after the point,
        in the numeric type of the file.

    Raises:
        ArchiveError: not such a file, more than `MAX_BYTES` when inflated, or a pickle that
            contains anything but arrays of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            wanted = [f"{key}.npy" for key in KEYS]
            if missing := [name for name in wanted if name not in sizes]:
                found = ", ".join(sorted(sizes)) or "nothing"
                raise ArchiveError(
                    f"{path}: contains no {', '.join(missing)}, found {found}; expected the arrays "
                    f"{', '.join(KEYS)}, of which one may be empty"
                )
            if sum(sizes[name] for name in wanted) > MAX_BYTES:
                raise ArchiveError(f"{path}: inflates to more than {MAX_BYTES >> 20} MiB")
            contents = {key: archive.read(f"{key}.npy") for key in KEYS}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(
            f"{path}: not a complete .npz file: {error}; download or copy it again"
        ) from None
    drawings = {}
    for key, content in contents.items():
        try:
            drawings[key] = _drawings(content)
        except ArchiveError as error:
            raise ArchiveError(f"{path}: {key}.npy: {error}") from None
        # A broken pickle can raise any exception of Python and NumPy.
        except Exception as error:
            raise ArchiveError(f"{path}: {key}.npy: not a pickle of arrays: {error!r}") from None
    return drawings


class _Array:
    """The state of a pickled array; ``value`` converts it after its type has been checked."""

    __slots__ = ("state",)

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self) -> Any:
        """The array, or the list of an object array's elements."""
        *_, shape, dtype, fortran, content = self.state
        if dtype.code.startswith("O"):
            return content
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode("latin1")
        if not re.fullmatch("b1|[iuf][1248]", dtype.code):
            raise ArchiveError(f"contains an array of {dtype.code!r}; only numbers are accepted")
        plain = np.frombuffer(content, np.dtype(dtype.code).newbyteorder(dtype.order))
        return plain.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """The state of a pickled element type."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *arguments: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Encoded:
    """Bytes that Python 3 has written with protocol 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise ArchiveError("sets the state of bytes")


# NumPy's own classes are not used, because their __setstate__ trusts the flags and types in the
# pickle. Each stand-in defines __setstate__; without it the pickle could set its attributes.
STANDINS = {
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


# The pure Python unpickler, not the one in C: its memo is a dict, so a huge memo index in a
# malicious file allocates nothing. 30,000 drawings take 0.4 s.
class _Numbers(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STANDINS:
            raise ArchiveError(f"contains {module}.{name}; only arrays of numbers are accepted")
        return STANDINS[module, name]


def _drawings(content: bytes) -> list[np.ndarray]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ArchiveError(f"expected version 1.0 of the .npy format, found {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if 0 in shape:
        return []
    if dtype == np.dtype(object):
        drawings = _unpickled(stream, shape)
    elif dtype.kind in "biuf" and len(shape) == 3:
        if math.prod(shape) * dtype.itemsize > len(content):
            raise ArchiveError(f"is shorter than its shape {shape}")
        stream.seek(0)
        drawings = list(np.lib.format.read_array(stream, allow_pickle=False))
    else:
        raise ArchiveError(
            f"expected an object array of drawings, found an array {shape} of {dtype}"
        )
    for index, drawing in enumerate(drawings):
        _check_drawing(index, drawing)
    return drawings


def _unpickled(stream: io.BytesIO, shape: tuple[int, ...]) -> list[Any]:
    """The elements of an object array, or the drawings of one that holds all numbers itself."""
    outer = _Numbers(stream, encoding="latin1").load()
    values = outer.value() if isinstance(outer, _Array) else None
    if not isinstance(values, list) or len(values) != math.prod(shape):
        raise ArchiveError(f"expected an object array of the shape {shape}")
    if len(shape) == 3 and all(type(value) in (bool, int, float) for value in values):
        return list(np.array(values, np.float64).reshape(shape))
    if len(shape) != 1:
        raise ArchiveError(f"expected an object array of drawings, found the shape {shape}")
    return [value.value() if isinstance(value, _Array) else value for value in values]


def _check_drawing(index: int, drawing: object) -> None:
    if not isinstance(drawing, np.ndarray):
        raise ArchiveError(
            f"drawing {index} is not an array but a {type(drawing).__name__}; expected an array "
            "(point, 3)"
        )
    if drawing.ndim != 2 or drawing.shape[1] != 3:
        raise ArchiveError(
            f"drawing {index} is an array {drawing.shape}; expected (point, 3): dx, dy, and 1 "
            "where the pen lifts after the point (convert stroke-5 to stroke-3)"
        )
    if not np.isfinite(drawing).all():
        raise ArchiveError(f"drawing {index} contains a number that is not finite")
    if np.any(np.abs(drawing[:, :2].astype(np.float64)) > MAX_COORDINATE):
        raise ArchiveError(f"drawing {index} has an offset beyond {MAX_COORDINATE:,.0f} pixels")
    if wrong := drawing[(drawing[:, 2] != 0) & (drawing[:, 2] != 1), 2].tolist():
        raise ArchiveError(
            f"drawing {index} has {wrong[0]} in its third column; expected 1 where the pen lifts "
            "after the point, else 0"
        )
