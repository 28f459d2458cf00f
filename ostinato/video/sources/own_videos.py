"""The source ``folder``: the user's own videos."""

import logging
import shutil
from collections import Counter, defaultdict
from pathlib import Path

from ostinato.data.files import FileList, describe, expanded, is_ignored, list_files, printable
from ostinato.errors import RejectedVideoError, SourceError
from ostinato.progress import track
from ostinato.units import Location
from ostinato.video.formats.container import VIDEO_SUFFIXES
from ostinato.video.formats.images import IMAGE_SUFFIXES, series_of
from ostinato.video.formats.raw import RawReject
from ostinato.video.sources.manifest import describe_video, write_manifest
from ostinato.video.sources.split_list import read_split_list

LOG = logging.getLogger(__name__)

SPLIT_NAMES = {"test", "testing", "train", "training", "val", "valid", "validation"}

EXPECTED = (
    f"expected one folder per class, of videos ({', '.join(sorted(VIDEO_SUFFIXES))}) or of folders "
    f"of numbered images ({', '.join(sorted(IMAGE_SUFFIXES))})"
)


def folder(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    path: Location,
    ignore: list[str],
    test: Location | None,
) -> None:
    """Copy the user's own videos from one folder per class, the layout of UCF101 and HMDB51.

    In the folder of a class, and in its subfolders, a video is a file or a folder of numbered
    images. Every other file is counted by the reason why it is not read.

    Args:
        folder: receives copies under the same relative paths, and the manifest.
        scratch: not used.
        seed: not used.
        path: the folder that contains the folders of the classes.
        ignore: names, or patterns of names such as ``*-old``, of files and folders that are left
            out; a folder without videos must be named here.
        test: a file that lists the test videos, one ``class/name`` a line, such as UCF101's
            ``testlist01.txt``, or a folder with HMDB51's lists of one split, one for each class;
            all other videos are training videos. None: no list.

    Raises:
        SourceError: the folder is missing, it or the folder of a class has no videos, the folders
            are not classes, a link leads out of it, or a listed video is missing.
    """
    root = expanded(path).resolve()
    found = list_files(root, VIDEO_SUFFIXES | IMAGE_SUFFIXES, ignore)
    videos = _videos_of(found)
    if not videos:
        raise SourceError(f"{root}: found no videos; {EXPECTED}{_other_files(found.skipped)}")
    _check_classes(found, videos, ignore)
    listed = None if test is None else read_split_list(test, [*videos])
    if listed is not None:
        unused = [file for name in listed.unused for file in videos.pop(name)]
        found.skip(unused, "unused in the list of test videos")
    entries = []
    for name, files in track(videos.items(), "copying", unit="videos"):
        for file in files:
            target = folder / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        split = None if listed is None else "test" if name in listed.test else "train"
        entries.append(describe_video(folder, Path(name), Path(name).parts[0], split=split))
    rejects = [RawReject(name, "unreadable", reason) for name, reason in found.faults().items()]
    details = {"skipped": dict(Counter(found.skipped.values()))} if found.skipped else {}
    write_manifest(folder, "folder", None, entries, details, rejects)
    LOG.info("%d videos; %s", len(videos), found.summary())


def _videos_of(found: FileList) -> dict[str, list[Path]]:
    """The files of each video, by its path relative to the root; files of no video are skipped."""
    videos: dict[str, list[Path]] = {}
    folders: dict[Path, list[Path]] = defaultdict(list)
    stems: dict[str, set[str]] = defaultdict(set)
    outside: list[Path] = []
    beside: list[Path] = []
    thumbnails: list[Path] = []
    unnumbered: list[Path] = []
    for file in found.files:
        relative = file.relative_to(found.root)
        is_image = file.suffix.lower() in IMAGE_SUFFIXES
        if len(relative.parts) == 1:
            outside.append(file)
        elif is_image and len(relative.parts) == 2:
            beside.append(file)
        elif is_image:
            folders[relative.parent].append(file)
        else:
            videos[relative.as_posix()] = [file]
            stems[relative.parts[0]].add(file.stem)
    for relative, images in folders.items():
        named = {image.stem for image in images if not image.stem.isdecimal()}
        if named and named <= stems[relative.parts[0]]:
            thumbnails += images
            continue
        try:
            series = series_of(images)
        except RejectedVideoError:
            series = images  # `prepare` rejects it, with the reason
        unnumbered += set(images) - set(series)
        videos[relative.as_posix()] = series
    found.skip(outside, "in no folder of a class")
    found.skip(beside, "images in no folder of a video")
    found.skip(thumbnails, "thumbnails of videos")
    found.skip(unnumbered, "images without a number")
    return dict(sorted(videos.items(), key=lambda item: Path(item[0])))


def _check_classes(found: FileList, videos: dict[str, list[Path]], ignore: list[str]) -> None:
    """Refuse folders that are no classes, and classes that would vanish."""
    root = found.root
    paths = [Path(name) for name in videos]
    counts = Counter(path.parts[0] for path in paths)
    direct = {path.parts[0] for path in paths if len(path.parts) == 2}
    deeper = {path.parts[1] for path in paths if len(path.parts) > 2}
    if splits := sorted(name for name in counts.keys() - direct if name.lower() in SPLIT_NAMES):
        raise SourceError(
            f"{root}: {', '.join(splits)}: folders of splits; expected one folder per class. Move "
            "the folders of the classes to one level, and list the test videos in a file for `test`"
        )
    if len(counts) == 1 and not direct and len(deeper) > 1:
        (only,) = counts
        raise SourceError(
            f"{root}: found one folder, {only}; expected one folder per class; did you mean "
            f"`path: {root / only}`?"
        )
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and not is_ignored(p.name, ignore)]
    for empty in (p for p in folders if p.name not in counts):
        name = printable(Path(empty.name))
        inside = {file: why for file, why in found.skipped.items() if file.startswith(f"{name}/")}
        raise SourceError(
            f"{printable(empty)}: found no videos; {EXPECTED}{_other_files(inside)}. "
            f"If it is no class, set `ignore: [{name}]`"
        )


def _other_files(skipped: dict[str, str]) -> str:
    return f". Files that are not read: {describe(skipped)}" if skipped else ". It has no files"
