"""Folders of numbered images: which images are the frames of a video, and their order.

This module alone says what a series is. A name is read as text with numbers in it: ``frame10.png``
follows ``frame9.png``.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from ostinato.errors import RejectedVideoError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

TIMESTAMP = re.compile(
    r"(?:19|20)\d\d\D?(?:0\d|1[0-2])\D?[0-3]\d\D{0,3}[0-2]\d\D?[0-5]\d(?:\D?[0-5]\d)?"
)
"""A date and a time of day, in a name such as ``IMG_20230115_123456``."""


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, without hidden ones, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def series_of(images: Iterable[Path]) -> list[Path]:
    """The images that are the frames of a video, in order; images without a number are left out.

    The names of a series differ in their numbers only. If several numbers of a name vary, one of
    them must number the images in the same order as all of them do, or the names are timestamps.

    Args:
        images: of one folder.

    Raises:
        RejectedVideoError: there is no image, there are several series, or the order is unclear.
    """
    images = sorted(images)
    if not images:
        raise RejectedVideoError("no frames", "the folder holds no images")
    if len(images) == 1:
        return images
    by_text: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_text[re.sub(r"\d+", "#", image.stem)].append(image)
    series = {text: found for text, found in by_text.items() if "#" in text}
    if not series:
        raise RejectedVideoError("unreadable", f"images without numbers, such as {_names(images)}")
    if len(series) > 1:
        raise _several(found[0] for found in series.values())
    (frames,) = series.values()
    numbers = {frame: tuple(map(int, re.findall(r"\d+", frame.stem))) for frame in frames}
    frames.sort(key=lambda frame: numbers[frame])
    for before, after in pairwise(frames):
        if numbers[before] == numbers[after]:
            raise _several((before, after))
    columns = zip(*(numbers[frame] for frame in frames), strict=True)
    varying = [column for column in columns if len(set(column)) > 1]
    consecutive = any(list(column) == sorted(set(column)) for column in varying)
    if not consecutive and not all(TIMESTAMP.search(frame.stem) for frame in frames):
        first = varying[0]
        raise _several(frames[first.index(value)] for value in dict.fromkeys(first))
    return frames


def _several(images: Iterable[Path]) -> RejectedVideoError:
    return RejectedVideoError(
        "unreadable",
        f"several series of images, such as {_names(list(images))}; move each into its own folder",
    )


def _names(images: list[Path]) -> str:
    return " and ".join(image.name for image in images[:2])
