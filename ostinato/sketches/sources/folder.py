"""The user's own drawings."""

import shutil
from pathlib import Path
from typing import Literal

from ostinato.errors import SourceError
from ostinato.sketches.formats.raw import Form, RawManifest
from ostinato.sketches.sources.files import categories_of, raw_file


def folder(
    folder: Path, scratch: Path, seed: int, *, path: str, form: Form, label: Literal["file", "word"]
) -> None:
    """Copy the user's own drawings: ``.ndjson`` files in QuickDraw's schema.

    Args:
        folder: gets copies, with their relative paths, and the manifest.
        scratch: not used.
        seed: not used.
        path: a folder; files in its subfolders are included.
        form: whether strokes are [x, y], simplified as Google's, or raw: [x, y, t].
        label: the category of a drawing is the "file"'s name without its suffix, or the line's
            "word" (the manifest lists no categories then).

    Raises:
        SourceError: no such folder, no such files in it, or a link that leads out of it.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"{path}: no such folder")
    found = sorted(p for p in root.rglob("*.ndjson") if p.is_file())
    if not found:
        raise SourceError(f"{path}: contains no .ndjson files")
    if out := [str(p) for p in found if not p.resolve().is_relative_to(root)]:
        raise SourceError(f"{', '.join(out)}: links out of {path}; copy the file there instead")
    entries = []
    for source in found:
        relative = source.relative_to(root)
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        category = source.stem if label == "file" else None
        entries.append(raw_file(target, category, None, relative=relative.as_posix()))
    RawManifest(
        source="folder",
        format="ndjson",
        form=form,
        categories=categories_of(entries),
        files=entries,
    ).write(folder)
