"""Assign videos to splits by recording, stable while the data set grows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ostinato.errors import DataError
from ostinato.video.formats.raw import RawVideo

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class AssignedVideo(RawVideo):
    """A raw video whose recording and split are known."""

    group: str
    split: str


def assign_splits(
    videos: Sequence[RawVideo], pattern: str | None, validation: float, test: float
) -> list[AssignedVideo]:
    """Assign each video to a recording and a split, and order the videos by a hash of their keys.

    A video of the source's test split stays there. Any other video is assigned by `unit_hash` of
    its group, so all videos of a recording are in one split and stay there when videos are added.

    Args:
        videos: of the raw data.
        pattern: regular expression whose only group matches the recording in a file's stem.
        validation: fraction of the groups.
        test: fraction of the groups; ignored where the source has a test split.

    Raises:
        DataError: the pattern is wrong or matches nothing, or the source puts a recording into two
            splits.
    """
    try:
        recording = re.compile(pattern or r"(?!)()")
    except re.error as error:
        raise DataError(f"group: {pattern}: not a regular expression: {error}") from None
    if recording.groups != 1:
        raise DataError(
            f"group: {pattern}: expected one group in parentheses, found {recording.groups}"
        )
    has_test = any(video.split == "test" for video in videos)
    bounds = (0.0, validation) if has_test else (test, test + validation)
    matches = [recording.search(Path(video.path).stem) for video in videos]
    unknown = [video for video in videos if not video.group]
    if pattern and unknown and not any(match and match[1] for match in matches):
        raise DataError(
            f"group: {pattern} matches no file name, such as {Path(unknown[0].path).stem}; correct "
            "it, or set `group: null` if every video is a recording of its own"
        )
    assigned = []
    for video, match in zip(videos, matches, strict=True):
        group = video.group or (match and match[1]) or video.key
        split = video.split or "train"
        if split == "train":
            split = SPLITS[2 - np.searchsorted(bounds, unit_hash(group), side="right")]
        assigned.append(AssignedVideo(video.path, video.label, video.key, group, split))
    split_of_group: dict[str, str] = {}
    for video in assigned:
        first = split_of_group.setdefault(video.group, video.split)
        if first != video.split:
            raise DataError(
                f"{video.path}: its recording {video.group!r} is in the splits {video.split} and "
                f"{first}; correct the list of test videos, or set `group`"
            )
    return sorted(assigned, key=lambda video: digest(video.key))


def unit_hash(name: str) -> float:
    """Hash a name to a number that is uniform in [0, 1), the same on every machine.

    FNV-1a (Fowler, Noll and Vo 1991) with the finaliser of SplitMix64 (Steele, Lea and Flood
    2014). Data sets of strokes use the same hash, so a drawing is in the same split in both.
    """
    h, mask = 0xCBF29CE484222325, (1 << 64) - 1
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & mask
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & mask
    h = (h ^ h >> 27) * 0x94D049BB133111EB & mask
    return ((h ^ h >> 31) >> 11) * 2.0**-53


def digest(key: str | bytes) -> bytes:
    """The hash of a video's key: orders the videos and seeds random frame sampling."""
    content = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return blake2b(content, digest_size=8).digest()


def video_rng(key: str | bytes) -> np.random.Generator:
    """The random generator for the frames of a video, equal in `prepare` and in serving."""
    return np.random.default_rng(list(digest(key)))
