"""scratch/: what stages leave there that were killed and will not be continued."""

import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from flows.engine.freed import Freed, size_of
from ostinato.study import Study, studies

DAY_S = 86_400.0


def clean_scratch(days: float, dry_run: bool) -> Iterator[Freed]:
    """Remove leftovers of trainings, downloads and temporary folders; searches stay.

    The leftover of a run or data set that the study no longer has goes at once, another one when
    nothing has changed in it for some days.

    Args:
        days: without a change.
        dry_run: only report.
    """
    since = time.time() - days * DAY_S
    for what, found in {
        "checkpoints of trainings that no longer exist": _leftovers("train", since),
        "downloads that were not continued": _leftovers("fetch", since),
        "temporary folders and marks": _temporary(since),
    }.items():
        paths = list(found)
        size = sum(map(size_of, paths))
        if not dry_run:
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield Freed("scratch", what, len(paths), size)


def _leftovers(stage: str, since: float) -> Iterator[Path]:
    """The folders scratch/STAGE/NAME/DIGEST of all studies that nothing will continue."""
    for study in (Study.load(path) for path in studies()):
        names: Collection[str] = study.params["runs" if stage == "train" else "data"]
        for folder in study.scratch(stage).glob("*"):
            if folder.name not in names:
                yield folder
            elif folder.is_dir():
                yield from (inner for inner in folder.iterdir() if _changed(inner) < since)


def _temporary(since: float) -> Iterator[Path]:
    """Temporary folders of killed processes, and marks of params files that passed the check."""
    for study in (Study.load(path) for path in studies()):
        for pattern in ("tmp*", "checked/*"):
            for path in study.scratch().glob(pattern):
                if _changed(path) < since:
                    yield path


def _changed(path: Path) -> float:
    """The time of the last change of a file, or of anything in a folder."""
    times = [inner.lstat().st_mtime for inner in path.rglob("*")] if path.is_dir() else []
    return max([path.lstat().st_mtime, *times])
