"""The user's own drawings."""

import logging
import re
import shutil
from pathlib import Path
from typing import Literal

from ostinato.data.files import FAULTS, describe, expanded, list_files, printable
from ostinato.errors import SourceError
from ostinato.sketches.formats import quickdraw
from ostinato.sketches.formats.raw import Form, RawManifest
from ostinato.sketches.sources.files import categories_of, raw_file
from ostinato.units import Location

LOG = logging.getLogger(__name__)


def folder(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    path: Location,
    form: Form,
    label: Literal["file", "word"],
) -> None:
    """Copy the user's own drawings: ``.ndjson`` files in QuickDraw's schema.

    Args:
        folder: gets copies, with their relative paths, and the manifest.
        scratch: not used.
        seed: not used.
        path: a folder; files in its subfolders are included, hidden ones are left out.
        form: whether strokes are [x, y], simplified as Google's, or raw: [x, y, t].
        label: the category of a drawing is the "file"'s name without its suffix, or the line's
            "word" (the manifest lists no categories then).

    Raises:
        SourceError: no such folder, no such files in it, a link that leads out of it, or files that
            cannot be read or as a whole are not ndjson in UTF-8.
    """
    found = list_files(expanded(path), {".ndjson"})
    if label == "word":
        found.skip([file for file in found.files if not file.stat().st_size], "empty")
    faults = {
        name: reason
        for name, reason in found.skipped.items()
        if reason in FAULTS and name.lower().endswith(".ndjson")
    }
    for file in found.files:
        name = printable(file.relative_to(found.root))
        if reason := quickdraw.layout_fault(file):
            faults[name] = reason
        elif label == "file" and re.search(quickdraw.CONTROLS, file.stem):
            faults[name] = "a class name has no line break; rename the file"
    if faults:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in sorted(faults.items()))
        raise SourceError(f"{path}: files of drawings that cannot be read:\n  {reasons}")
    if not found.files:
        raise SourceError(
            f"{path}: contains no .ndjson files; found {describe(found.skipped) or 'nothing'}"
        )
    entries = []
    for file in found.files:
        relative = file.relative_to(found.root)
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        category = file.stem.strip() if label == "file" else None
        entries.append(raw_file(target, category, None, relative=relative.as_posix()))
    if found.skipped:
        LOG.info("%s", found.summary())
    RawManifest(
        source="folder",
        format="ndjson",
        form=form,
        categories=categories_of(entries),
        files=entries,
    ).write(folder)
