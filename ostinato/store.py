"""Arrays, tables, models and figures to and from a folder: atomic, without pickle, reproducible.

Identical content gives identical bytes, so that DVC sees a change only where there is one. A file
appears under its name when it is whole; a killed process leaves at most a hidden temporary file.

Only the folders in which the project keeps its results are written to (`OWN`), below the working
directory: a path that leads elsewhere is an error. The environment variable OSTINATO_FOLDERS may
name other folders, separated as in PATH.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from jaxtyping import Int64

from ostinato.errors import MissingFileError, StoreError

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from matplotlib.figure import Figure

FOLDERS = "OSTINATO_FOLDERS"
OWN = ("data", "results", "ensembles", "report", "report.md", "scratch", "dvc.lock", ".dvc/tmp")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry


_private: set[str] = set()  # folders of this process that it may write to, from any thread


def own_path(path: Path) -> Path:
    """``path`` as an absolute one, if it is in `OWN` or below a folder of OSTINATO_FOLDERS.

    Links are not followed: ``data`` may be a link to another disk.

    Raises:
        StoreError: it is elsewhere.
    """
    absolute, here = Path(os.path.abspath(path)), Path.cwd()  # noqa: PTH100 - not through links
    others = [os.path.abspath(p) for p in os.environ.get(FOLDERS, "").split(os.pathsep) if p]  # noqa: PTH100
    others += _private
    names = [*OWN, *(f".partial.{name}" for name in OWN)]  # a folder that is being written
    parts = absolute.relative_to(here).parts if absolute.is_relative_to(here) else ()
    study = Path(*parts[:2]) if parts[:1] == ("recipes",) else Path()
    own = any(absolute.is_relative_to(here / study / name) for name in names)
    if not own and not any(other in map(str, absolute.parents) for other in others):
        raise StoreError(
            f"{absolute}: not written and not removed, as it is in none of the folders that the "
            f"project writes to, {', '.join(OWN)} in {here}; run in the checkout, or name the "
            f"folder in the variable {FOLDERS}"
        )
    return absolute


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder in the checkout's ``scratch``, removed in the end."""
    scratch = own_path(Path("scratch"))
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield Path(folder)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """An empty folder of the system's temporary folder that this process may write to.

    It is removed in the end.
    """
    with tempfile.TemporaryDirectory(prefix="ostinato-") as folder:
        _private.add(folder)
        try:
            yield Path(folder)
        finally:
            _private.remove(folder)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; takes its name when the block ends well.

    Raises:
        StoreError: the path is not one of the project.
    """
    path = own_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial.{uuid4().hex}.{path.name}")  # others may write it too
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; replaces ``path`` when the block ends well.

    Raises:
        StoreError: the path is not one of the project.
    """
    path = own_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial.{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def link(file: Path, path: Path) -> None:
    """Give a file another name; a copy where the disk has no hard links, or is another one."""
    try:
        own_path(path).hardlink_to(file)
    except OSError:
        with atomic_file(path) as temporary:
            shutil.copyfile(file, temporary)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the order given; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def existing(path: Path) -> Path:
    """``path``, if there is such a file or folder.

    Raises:
        MissingFileError: there is none.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; run `dvc repro` or `dvc pull`")
    return path


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        MissingFileError: there is no such file.
        StoreError: it is not JSON.
    """
    try:
        return json.loads(existing(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: not JSON: {error}; `dvc repro` writes it again") from None


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV without its index; floats in full precision."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as ``.npz``, without object arrays and without times."""
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            _add(archive, f"{name}.npy", content.getvalue())


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Read an ``.npz`` of plain arrays; pickled ones are refused.

    Args:
        path: of the file.
        names: of the arrays to read; none for all.

    Raises:
        MissingFileError: there is no such file.
    """
    # Opened here, as np.load leaves a torn file open.
    with existing(path).open("rb") as file:
        return load_arrays(file, *names)


def load_arrays(file: IO[bytes], *names: str) -> dict[str, np.ndarray]:
    """The arrays of an open ``.npz``, or those with the given names; pickled ones are refused."""
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names or archive.files}


def array_begin(path: Path, name: str) -> int:
    """Where the values of an array begin in an ``.npz`` that `write_arrays` has written."""
    with existing(path).open("rb") as file, zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as member:
            np.lib.format.read_magic(member)
            np.lib.format.read_array_header_1_0(member)
            head = member.tell()
        file.seek(entry.header_offset + 26)  # of the zip's local header: two lengths
        extra = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
        return entry.header_offset + 30 + extra + head


def read_spans(
    path: Path, begins: Int64[np.ndarray, " span"], ends: Int64[np.ndarray, " span"]
) -> list[bytes]:
    """Read parts of a file, and nothing else of it; neighbouring parts are read at once.

    Args:
        path: of the file.
        begins: first byte of each part; they rise.
        ends: the byte after each part.

    Raises:
        MissingFileError: there is no such file.
        StoreError: the file is shorter.
    """
    found: list[bytes] = []
    breaks = np.flatnonzero(begins[1:] != ends[:-1]) + 1
    firsts, lasts = [0, *breaks.tolist()], [*breaks.tolist(), len(begins)]
    starts, stops = begins.tolist(), ends.tolist()
    with existing(path).open("rb", buffering=0) as file:
        for first, last in zip(firsts, lasts, strict=True):
            start = starts[first]
            file.seek(start)
            content = file.read(stops[last - 1] - start)
            if len(content) < stops[last - 1] - start:
                raise StoreError(
                    f"{path}: found {start + len(content)} bytes; expected {stops[last - 1]} or "
                    "more; `dvc repro` writes it again"
                )
            parts = zip(starts[first:last], stops[first:last], strict=True)
            found += [content[begin - start : end - start] for begin, end in parts]
    return found


def write_model(path: Path, model: "keras.Model") -> None:
    """Write a ``.keras`` file whose bytes depend on the model alone.

    Keras notes the date of saving, the times of its zip entries and ids of Python objects; they
    are set to constants or numbered in order of their first appearance.
    """
    with atomic_file(path) as temporary:
        raw = path.with_name(f".partial.raw.{path.name}")
        try:
            model.save(raw)
            with zipfile.ZipFile(raw) as source, zipfile.ZipFile(temporary, "w") as target:
                for name in sorted(source.namelist()):
                    content = source.read(name)
                    if name.endswith(".json"):
                        content = _normalised(content)
                    _add(target, name, content)
        finally:
            raw.unlink(missing_ok=True)


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a matplotlib figure as PNG, without the version that matplotlib would sign it with."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi="figure", metadata={"Software": None})


def read_model(path: Path) -> "keras.Model":
    """Read a ``.keras`` file; code in it (lambdas) is refused.

    Custom layers must be registered: import the module of the model, or ``ostinato.layers``,
    before.

    Raises:
        MissingFileError: there is no such file.
    """
    existing(path)
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def remove(folder: Path) -> None:
    """Delete a folder of temporary state, if it is there.

    It disappears as a whole: another process finds all of it or nothing, and cannot add to it.

    Raises:
        StoreError: the folder is not one of the project.
    """
    folder = own_path(folder)
    if folder.exists():
        removed = folder.rename(folder.with_name(f".removed.{uuid4().hex}"))
        shutil.rmtree(removed)


def digest(*contents: Any) -> str:
    """A short name for contents: bytes, folders, files, or anything that JSON can hold."""
    state = blake2b(digest_size=16)
    for content in contents:
        if isinstance(content, Path) and content.is_dir():
            for file in sorted(p for p in content.rglob("*") if p.is_file()):
                state.update(file.relative_to(content).as_posix().encode() + b"\0")
                state.update(digest(file).encode())
        elif isinstance(content, Path):
            with content.open("rb") as opened:
                while block := opened.read(1 << 20):
                    state.update(block)
        elif isinstance(content, bytes):
            state.update(content)
        else:
            state.update(json.dumps(content, sort_keys=True).encode())
        state.update(b"\0")
    return state.hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


def _normalised(content: bytes) -> bytes:
    ids: dict[int, int] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: ids.setdefault(item, len(ids))
                if key == "shared_object_id"
                else "1980-01-01@00:00:00"
                if key == "date_saved"
                else walk(item)
                for key, item in value.items()
            }
        return [walk(item) for item in value] if isinstance(value, list) else value

    return json.dumps(walk(json.loads(content))).encode()
