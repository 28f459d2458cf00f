"""What `maintain` has freed, or would free in a dry run."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ostinato.errors import OstinatoError

VACUUM_TIMEOUT_S = 30.0  # for the lock of a database that a server uses


class MaintenanceError(OstinatoError):
    """A store could not be cleaned; nothing was deleted that it still needs."""


@dataclass(frozen=True)
class Freed:
    """Objects of one kind that were deleted.

    Args:
        store: the store that held them: DVC, MLflow, Prefect or scratch.
        what: the kind of object.
        count: number of objects.
        size: bytes that were freed; None where they are not known, as on another machine.
        note: a remark for the report, such as the reason why nothing was deleted.
    """

    store: str
    what: str
    count: int = 0
    size: int | None = None
    note: str = ""


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_dir() and not path.is_symlink():
        return sum(size_of(inner) for inner in path.iterdir())
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # removed meanwhile
        return 0


def readable(size: int) -> str:
    """A number of bytes with its unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def vacuum(store: str, file: Path, fraction: float, dry_run: bool) -> Freed:
    """Return the unused pages of an SQLite database to the file system.

    SQLite locks out writers meanwhile, so a database with few unused pages stays as it is. A
    server may have the database open: SQLite waits for its transaction, and the server for SQLite.

    Args:
        store: that the database belongs to.
        file: of the database.
        fraction: of the database that has to be unused; below it nothing is done.
        dry_run: only report.
    """
    what, before = f"unused pages of {file.name}", size_of(file)
    try:
        with closing(sqlite3.connect(file, timeout=VACUUM_TIMEOUT_S)) as database:
            ((pages,),) = database.execute("PRAGMA freelist_count").fetchall()
            ((page_size,),) = database.execute("PRAGMA page_size").fetchall()
            if not pages or pages * page_size < fraction * before:
                return Freed(store, what, size=0)
            if dry_run:
                return Freed(store, what, pages, pages * page_size)
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:  # locked, or no room for the copy
        return Freed(store, what, size=0, note=f"not now: {error}; the next run tries again")
    return Freed(store, what, pages, before - size_of(file))
