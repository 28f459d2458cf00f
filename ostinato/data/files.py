"""List the files in a folder of the user: those to read, and the reason of each other one."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ostinato.errors import SourceError

SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found"}
"""Names, in lower case, of what operating systems leave in folders."""

HIDDEN = "hidden"
BROKEN_LINK = "a broken link"
UNREADABLE = "not readable: permission denied"
NOT_UTF8 = "the name is not UTF-8"

FAULTS = (BROKEN_LINK, UNREADABLE, NOT_UTF8)
"""Reasons that concern data, which the list of rejects should hold, not files of another kind."""


@dataclass
class FileList:
    """The files below a folder.

    Args:
        root: the folder.
        files: those to read, sorted.
        skipped: the reason of each other file, by its printable path relative to the folder.
    """

    root: Path
    files: list[Path]
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, files: Iterable[Path], reason: str) -> None:
        """Move files from those to read to those that are skipped."""
        chosen = set(files)
        if not chosen:
            return
        self.files = [file for file in self.files if file not in chosen]
        for file in sorted(chosen):
            self.skipped[printable(file.relative_to(self.root))] = reason

    def faults(self) -> dict[str, str]:
        """The skipped files that can not be read although they should, with the reason."""
        return {path: reason for path, reason in self.skipped.items() if reason in FAULTS}

    def summary(self) -> str:
        """One line: the number of files to read, and of the others by reason, with examples."""
        line = f"{self.root}: {len(self.files)} files are read"
        if not self.skipped:
            return line
        return f"{line}, {len(self.skipped)} are not: {describe(self.skipped)}"


def describe(skipped: dict[str, str], examples: int = 2) -> str:
    """The number of skipped files by reason, the most frequent first, each with examples.

    Args:
        skipped: the reason of each file.
        examples: number of files to name for each reason.
    """
    paths = defaultdict(list)
    for path, reason in skipped.items():
        paths[reason].append(path)
    parts = []
    for reason, named in sorted(paths.items(), key=lambda item: (-len(item[1]), item[0])):
        more = ", ..." if len(named) > examples else ""
        parts.append(f"{len(named)} {reason} ({', '.join(sorted(named)[:examples])}{more})")
    return "; ".join(parts)


def printable(path: Path) -> str:
    """A path with ``/``, in one line; bytes that are not UTF-8 are shown as ``\\xff``."""
    text = os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: repr(control[0])[1:-1], text)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden, or made by the system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_ignored(name: str, ignore: Collection[str] = ()) -> bool:
    """Whether a name is hidden, or matches a pattern of those to ignore."""
    return is_hidden(name) or any(fnmatchcase(name, pattern) for pattern in ignore)


def list_files(root: Path, endings: Collection[str], ignore: Collection[str] = ()) -> FileList:
    """List all files below a folder, in subfolders too; each is read, or counted with its reason.

    Skipped, with the reason: names that begin with a dot and `SYSTEM_NAMES` (of files, or of a
    folder that contains them), ignored ones, other endings, and faults: broken links, files
    without permission, names that are not UTF-8. The case of an ending does not matter.

    Args:
        root: the folder.
        endings: of the files to read, in lower case, such as ``.ndjson``.
        ignore: patterns of names (of files or folders, at any depth), such as ``*-old``.

    Raises:
        SourceError: there is no such folder, or a link leads out of it.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder")
    root = root.resolve()
    found = FileList(root, [])
    for file in _walk(root, root, (root,)):
        if reason := _reason(root, file, tuple(endings), ignore):
            found.skipped[printable(file.relative_to(root))] = reason
        else:
            found.files.append(file)
    found.files.sort()
    return found


def _walk(root: Path, folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files below a folder; a link to a folder that contains it is not followed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        yield folder
        return
    for entry in found:
        path = folder / entry.name
        target = Path(os.path.realpath(path)) if entry.is_symlink() else path
        if not target.is_relative_to(root):
            raise SourceError(
                f"{printable(path)}: links to a file outside {root}; copy that file there"
            )
        if not target.is_dir():
            yield path
        elif target not in above:
            yield from _walk(root, path, (*above, target))


def _reason(
    root: Path, file: Path, endings: tuple[str, ...], ignore: Collection[str]
) -> str | None:
    """Why a file is not read; None if it is."""
    relative = file.relative_to(root)
    if any(map(is_hidden, relative.parts)):
        return HIDDEN
    if any(is_ignored(name, ignore) for name in relative.parts):
        return "ignored by params.yaml"
    if not file.is_dir() and not file.name.lower().endswith(endings):
        suffix = printable(Path(file.suffix.lower()))
        return f"with the ending {suffix}" if file.suffix else "without an ending"
    try:
        relative.as_posix().encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    if not file.exists():
        return BROKEN_LINK
    if not file.is_file() and not file.is_dir():
        return "no regular file"  # such as a pipe, which would block its reader
    return None if os.access(file, os.R_OK) else UNREADABLE


def expanded(path: str) -> Path:
    """The path with the home folder in place of ``~`` or ``~user``.

    Raises:
        SourceError: there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SourceError(f"{path}: there is no such home folder; write the whole path") from None
