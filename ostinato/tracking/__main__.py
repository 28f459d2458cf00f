"""Mirror the results of studies in MLflow: ``python -m ostinato.tracking [STUDY ...]``."""

import sys

from ostinato.errors import OstinatoError
from ostinato.study import Study, studies
from ostinato.tracking.client import brief, masked, uri
from ostinato.tracking.mirror import mirror


def main(paths: list[str]) -> None:
    """Mirror the studies ``paths``, or all of the checkout, and print what was logged."""
    try:
        for path in paths or studies():
            study = Study.load(path)
            for name, missing in mirror(study):
                print(f"{study.name}/{name}: {'logged' if missing else 'already complete'}")
    except OstinatoError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Exception as error:
        sys.exit(f"Cannot log to {masked(uri())}: {brief(error)}")


if __name__ == "__main__":
    main(sys.argv[1:])
