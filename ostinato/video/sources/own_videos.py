"""The source ``folder``: the user's own videos."""

import re
import shutil
from pathlib import Path

from tqdm import tqdm

from ostinato.errors import SourceError
from ostinato.video.sources.manifest import (
    IMAGE_SUFFIXES,
    describe_video,
    images_in,
    write_manifest,
)

VIDEO_SUFFIXES = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def folder(folder: Path, scratch: Path, seed: int, *, path: str, test: str | None) -> None:
    """Copy the user's own videos from one folder per class, the layout of UCF101 and HMDB51.

    In the folder of a class, a video is a file or a folder of numbered images.

    Args:
        folder: receives copies under the same relative paths, and the manifest.
        scratch: not used.
        seed: not used.
        path: the folder that contains the folders of the classes.
        test: a file that lists the test videos, one ``class/name`` a line, such as UCF101's
            ``testlist01.txt``; all other videos are training videos. None: no list.

    Raises:
        SourceError: the folder is missing or has no videos, a link leads out of it, or a listed
            video is missing.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"path: {path}: no such folder")
    videos = [
        (label.name, video)
        for label in sorted(p for p in root.iterdir() if p.is_dir())
        for video in sorted(label.iterdir())
        if video.suffix.lower() in VIDEO_SUFFIXES or images_in(video)
    ]
    if not videos:
        raise SourceError(
            f"path: {path}: found no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and no folders "
            f"of images ({', '.join(sorted(IMAGE_SUFFIXES))}); expected one folder per class"
        )
    test_videos = set() if test is None else _read_list(Path(test))
    available = {video.relative_to(root).as_posix() for _, video in videos}
    if missing := sorted(test_videos - available):
        raise SourceError(f"test: {test} lists {missing[0]}, which is not in {path}")
    entries = []
    for label, video in tqdm(videos, "copying", unit="video", disable=None):
        relative = video.relative_to(root)
        for file in images_in(video) or [video]:
            if not file.resolve().is_relative_to(root):
                raise SourceError(f"{file}: links to a file outside {path}; copy that file there")
            target = folder / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        split = "test" if relative.as_posix() in test_videos else "train"
        entries.append(
            describe_video(folder, relative, label, split=None if test is None else split)
        )
    write_manifest(folder, "folder", None, entries)


def _read_list(path: Path) -> set[str]:
    """Read a list of videos; UCF101's training lists have a class number after each name."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise SourceError(f"test: {path}: no such file") from None
    return {re.sub(r"\s+\d+$", "", line.strip()) for line in lines if line.strip()}
