"""A checkout that was moved or copied: its database has the absolute paths of the old place.

MLflow records where the files of each experiment, run, model and version are, so a moved checkout
would go on writing to the folder that it came from. `check` finds this before anything is written,
and `relocate` (``python -m ostinato.tracking --relocate``) replaces the old paths.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ostinato.errors import TrackingError

DATABASE = "mlflow.db"  # in the checkout
ARTIFACTS = "mlartifacts"  # the folder of all files that MLflow has, in the checkout
COLUMNS = {  # of MLflow's tables, with the place of files
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def check(client: Any, root: Path) -> None:
    """Compare the place of the files that a checkout's own database knows with the checkout.

    Args:
        client: of the database in the checkout.
        root: the checkout.

    Raises:
        TrackingError: an experiment's files are in another checkout.
    """
    from mlflow.entities import ViewType

    for experiment in client.search_experiments(view_type=ViewType.ALL):
        former = _checkout_of(experiment.artifact_location)
        if former and former.resolve() != root:
            raise TrackingError(
                f"{root / DATABASE} was made in {former}, and this checkout is {root}: it was "
                "moved or copied. Nothing is read from the old place or written to it; run "
                f"`python -m ostinato.tracking --relocate`, which points the database to "
                f"{root / ARTIFACTS}"
            )


def check_location(experiment: str, location: str) -> None:
    """Check that the place of an experiment's files is on this computer, if it is a local one.

    Args:
        experiment: its name.
        location: its place, an address.

    Raises:
        TrackingError: the checkout that it is in does not exist.
    """
    former = _checkout_of(location)
    if former and not former.exists():
        raise TrackingError(
            f"experiment {experiment!r} keeps its files in {location}, and there is no {former}: "
            "the database was moved, or is that of another computer"
        )


def database_file(address: str) -> Path | None:
    """The file of an SQLite database; None for another address."""
    kind, _, path = address.partition(":///")
    return Path(path).resolve() if kind == "sqlite" else None


def relocate(root: Path) -> int:
    """Point the database of a moved checkout to the files in it; returns the number of paths.

    Args:
        root: the checkout.

    Raises:
        TrackingError: the checkout has no database.
    """
    if not (root / DATABASE).exists():
        raise TrackingError(f"{root / DATABASE}: no such database; there is nothing to relocate")
    changed = 0
    new = (root / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(root / DATABASE)) as database, database:
        locations = database.execute("SELECT artifact_location FROM experiments").fetchall()
        for former in {_checkout_of(location) for (location,) in locations} - {None}:
            assert former
            old = (former / ARTIFACTS).as_uri()
            for table, columns in COLUMNS.items():
                for column in columns if old != new else ():
                    done = database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, len(old) + 1, f"{old}/"),
                    )
                    changed += done.rowcount
    return changed


def _checkout_of(location: str | None) -> Path | None:
    """The checkout whose folder of files holds a location; None for any other location."""
    parts = urlsplit(location or "")
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or path.parent.name != ARTIFACTS:
        return None
    return path.parent.parent
