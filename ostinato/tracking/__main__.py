"""Mirror the results of studies in MLflow: ``python -m ostinato.tracking [STUDY ...]``."""

import argparse
import sys

from ostinato.errors import OstinatoError
from ostinato.study import Study, check_tables, studies
from ostinato.tracking import relocation
from ostinato.tracking.client import address, brief, failures, lock, masked, root
from ostinato.tracking.mirror import left_out, mirror


def main(arguments: list[str]) -> None:
    """Mirror studies, or all of the checkout, and print what was logged."""
    parser = argparse.ArgumentParser(prog="python -m ostinato.tracking", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="params files; none: all")
    parser.add_argument(
        "--relocate",
        action="store_true",
        help="after the checkout was moved or copied: point mlflow.db to the files in it",
    )
    parsed = parser.parse_args(arguments)
    try:
        if parsed.relocate:
            with lock(f"{relocation.DATABASE}.lock"):
                print(f"{relocation.relocate(root())} paths point to {root()} now")
            return
        refused = [line for path in parsed.studies or studies() for line in log(Study.load(path))]
    except OstinatoError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except FileNotFoundError:
        raise
    except failures() as error:
        sys.exit(f"Cannot log to {masked(address())}: {brief(error)}")
    if refused:
        sys.exit(f"{len(refused)} results are not in {masked(address())}; the first: {refused[0]}")


def log(study: Study) -> list[str]:
    """Mirror a study and print what was logged; returns a line for each refused result."""
    refused = []
    check_tables(study)
    for name, missing, error in mirror(study):
        state = f"not logged: {error}" if error else "logged" if missing else "already complete"
        print(f"{study.name}/{name}: {state}")
        if error:
            refused.append(f"{study.name}/{name}: {error}")
    for name in left_out(study):
        print(
            f"{study.name}/{name}: left out, as {study.path} has no entry of this name any more; "
            "to log it, put the entry back"
        )
    return refused


if __name__ == "__main__":
    main(sys.argv[1:])
