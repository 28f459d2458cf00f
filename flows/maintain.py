"""Free space: delete what is too old from Prefect, MLflow, DVC's cache and scratch/. Nightly.

Never deleted: what a version in the model registry with an alias (champion, previous champion,
challenger), a commit of git, or the working tree needs. Each store is cleaned by itself; where one
cannot be, the flow says so, cleans the others, and fails in the end. DVC's cache is cleaned only
where MLflow answers and has a champion: without it, nobody knows what a champion needs.

By hand: ``python -m flows.maintain [--dry-run]``.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows.engine import (
    cache_retention,
    checkout,
    mlflow_retention,
    prefect_retention,
    scratch_retention,
)
from flows.engine.candidates import Target
from flows.engine.commands import StoppedError
from flows.engine.errors import fails_with_message
from flows.engine.freed import Freed, MaintenanceError, readable
from flows.promote import promotion_lock
from ostinato.errors import OstinatoError
from ostinato.study import Study
from ostinato.tracking.client import masked

Days = Annotated[float, Field(ge=0)]


@flow(name="maintain", validate_parameters=True)
@fails_with_message
def maintain(
    prefect_days: Days = 30.0,
    mlflow_days: Days = 90.0,
    undo_days: Days = 7.0,
    scratch_days: Days = 14.0,
    vacuum_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1,
    dry_run: bool = False,
) -> Any:
    """Delete what is too old and what nothing needs, and say how much that frees.

    Args:
        prefect_days: Days after which a flow run is deleted that has ended, with its artifacts.
        mlflow_days: Days after which a version without an alias, and a run that neither a version
            nor a commit needs, are marked as deleted.
        undo_days: Days for which MLflow can restore a run that is marked as deleted.
        scratch_days: Days after which a checkpoint or download is deleted that nothing continues,
            and a run that still counts as running in MLflow is marked as killed.
        vacuum_fraction: Part of an SQLite database that has to be unused before it is rewritten.
        dry_run: Only report what would be deleted.

    Returns:
        A row for each kind of object: store, what, count, bytes and note.
    """
    logger = get_run_logger()
    rows: list[Freed] = []
    errors: list[str] = []

    def attempt(store: str, clean: Iterable[Freed]) -> None:
        try:
            rows.extend(clean)  # also those before an error
        except StoppedError:
            raise
        except (OstinatoError, httpx.HTTPError, OSError) as error:
            errors.append(f"{store}: {masked(str(error))}")
            rows.append(Freed(store, "error", note=errors[-1]))
            logger.error(errors[-1])

    with checkout.checkout():
        attempt("scratch", scratch_retention.clean_scratch(scratch_days, dry_run))
        days = (mlflow_days, undo_days, scratch_days)
        attempt("MLflow and DVC", clean_results(*days, vacuum_fraction, dry_run))
    attempt("Prefect", prefect_retention.clean_server(prefect_days, vacuum_fraction, dry_run))
    size = readable(sum(row.size or 0 for row in rows))
    summary = f"{'would free' if dry_run else 'freed'} at least {size}; {summarize(rows)}"
    logger.info(summary)
    table = [
        {
            "store": row.store,
            "what": row.what,
            "count": row.count,
            "freed": "" if row.size is None else readable(row.size),
            "note": row.note,
        }
        for row in rows
    ]
    create_table_artifact(table, key="maintain", description="\n\n".join([summary, *errors]))
    if errors:
        raise MaintenanceError("\n".join([*errors, summary]))
    return Completed(message=summary, data=[vars(row) for row in rows])


def clean_results(
    days: float, undo_days: float, lost_days: float, vacuum_fraction: float, dry_run: bool
) -> Iterator[Freed]:
    """Clean MLflow, then DVC's cache of what no version came from any more."""
    referenced = cache_retention.referenced()
    found = mlflow_retention.read_registry(days)
    yield from mlflow_retention.restore_runs(found.kept, dry_run)
    needed = referenced | mlflow_retention.needed_md5s(found.kept)
    yield mlflow_retention.end_lost_runs(lost_days, dry_run)
    yield mlflow_retention.mark_versions(found, promotion_lock_of, dry_run)
    yield from mlflow_retention.mark_runs(found, needed, days, dry_run)
    yield from mlflow_retention.collect_garbage(undo_days, vacuum_fraction, dry_run)
    if found.champions:
        yield from cache_retention.clean_cache(needed, dry_run)
    else:
        note = "not cleaned: MLflow has no champion of this checkout; run `dvc gc` by hand"
        yield Freed("DVC", "objects", note=note)


@contextmanager
def promotion_lock_of(study: str, data: str) -> Iterator[None]:
    """Exclude promotions of a data set's model."""
    with promotion_lock(Target(Study(Path(study), {}), data)):
        yield


def summarize(rows: list[Freed]) -> str:
    """The kinds of objects of which there are any, in one line."""
    found = [f"{row.store}: {row.count:,} {row.what}" for row in rows if row.count]
    return "; ".join(found) or "nothing to delete"


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.maintain", description=__doc__)
    for name in ("prefect", "mlflow", "undo", "scratch"):
        parser.add_argument(f"--{name}-days", type=float, metavar="DAYS")
    parser.add_argument("--vacuum-fraction", type=float, metavar="FRACTION")
    parser.add_argument("--dry-run", action="store_true", help="only report")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    state: Any = maintain(**given, return_state=True)
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
