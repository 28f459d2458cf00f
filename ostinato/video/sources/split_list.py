"""Read published lists of test videos: UCF101's and HMDB51's.

UCF101 has one file for all classes, ``class/name`` a line; in its lists of training videos, the
number of the class follows. HMDB51 has a file for each class, ``<class>_test_split<n>.txt``, with
``name <use>`` a line: 1 is training, 2 is test, 0 is unused.
"""

import codecs
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ostinato.data.files import expanded
from ostinato.errors import SourceError

HMDB_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
UNUSED, TRAINING, TEST = 0, 1, 2  # HMDB51's numbers


@dataclass
class SplitList:
    """The listed videos, by their path.

    Args:
        test: of the test split.
        unused: of no split.
    """

    test: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)


class _Names:
    """Finds the videos that lines name."""

    def __init__(self, videos: Sequence[str]) -> None:
        self.exact = {_normal(video): video for video in videos}
        self.stems: dict[str, list[str]] = defaultdict(list)
        self.names: dict[str, list[str]] = defaultdict(list)
        for name, video in self.exact.items():
            self.stems[_without_ending(name)].append(video)
            self.names[PurePosixPath(_without_ending(name)).name].append(video)

    def find(self, text: str) -> str | None:
        """The video of a path ``class/name``; None if there is none, or not exactly one.

        Folders in front of the class are left out. A video with another ending is the listed one,
        because data sets are often converted.
        """
        parts = _normal(text).replace("\\", "/").split("/")
        for start in range(len(parts) - 1):
            name = "/".join(parts[start:])
            if name in self.exact:
                return self.exact[name]
            if len(same := self.stems[_without_ending(name)]) == 1:
                return same[0]
        return None

    def find_name(self, text: str, label: str | None) -> str | None:
        """The video of a file name without its class, which must be unique in all classes.

        Args:
            text: the name.
            label: the class, if the name of the list has it.
        """
        if label and (video := self.find(f"{label}/{text}")):
            return video
        same = self.names[PurePosixPath(_without_ending(_normal(text))).name]
        return same[0] if len(same) == 1 else None


def read_split_list(test: str, videos: Sequence[str]) -> SplitList:
    """Read a list, or lists, of test videos.

    Args:
        test: a file, or a folder with the lists of one of HMDB51's splits.
        videos: paths ``class/name`` of all videos.

    Raises:
        SourceError: there is no such file, the folder has no lists or those of several splits, a
            list is not UTF-8, names no test video or a missing one, or a number has no meaning.
    """
    path = expanded(test)
    if not path.exists():
        raise SourceError(f"test: {test}: no such file")
    files = _hmdb_lists(path) if path.is_dir() else [path]
    names, listed = _Names(videos), SplitList()
    for file in files:
        _read_file(file, names, listed)
    if not listed.test:
        raise SourceError(f"test: {test} lists no test video; set `test: null` to split at random")
    return listed


def _hmdb_lists(folder: Path) -> list[Path]:
    """The lists in a folder, which must be those of one split."""
    lists = {file: HMDB_LIST.fullmatch(file.name) for file in sorted(folder.iterdir())}
    numbers = {file: match[2] for file, match in lists.items() if match}
    if not numbers:
        raise SourceError(
            f"test: {folder}: found no lists of HMDB51, <class>_test_split<n>.txt; expected these, "
            "or a file such as UCF101's testlist01.txt"
        )
    if len(splits := sorted(set(numbers.values()))) > 1:
        raise SourceError(
            f"test: {folder}: found the lists of the splits {', '.join(splits)}; copy those of "
            "one split into a folder of their own, and set `test` to it"
        )
    return list(numbers)


def _read_file(file: Path, names: _Names, listed: SplitList) -> None:
    lines = list(_lines(file))
    match = HMDB_LIST.fullmatch(file.name)
    label = match[1] if match else None
    labels: dict[str, str] = {}  # UCF101's number of each class
    missing = []
    for number, line in lines:
        text, behind = line, None
        has_class = bool(re.search(r"[/\\]", line))
        video = names.find(line) if has_class else names.find_name(line, label)
        if video is None and (numbered := re.fullmatch(r"(.*\S)\s+(\d+)", line)):
            text, behind = numbered.groups()
            video = names.find(text) if has_class else names.find_name(text, label)
        if video is None:
            missing.append((number, line))
        elif behind is None:
            listed.test.add(video)
        elif has_class:  # the number of the class
            name = PurePosixPath(video).parts[0]
            if labels.setdefault(name, behind) != behind:
                raise SourceError(
                    f"test: {file}, line {number}: found the numbers {labels[name]} and {behind} "
                    f"behind videos of {name}; expected the number of the class, which is the same "
                    "for all, or none"
                )
            listed.test.add(video)
        elif int(behind) in (UNUSED, TRAINING, TEST):
            {UNUSED: listed.unused, TRAINING: set(), TEST: listed.test}[int(behind)].add(video)
        else:
            raise SourceError(
                f"test: {file}, line {number}: found {behind} behind a name without a class; "
                "expected HMDB51's 1 (training), 2 (test) or 0 (unused)"
            )
    if missing:
        number, text = missing[0]
        example = next(iter(names.exact.values()))
        raise SourceError(
            f"test: {file} lists {text} (line {number}), which is not in `path`, or not once; "
            f"{len(missing)} of {len(lines)} lines are not found. Expected names such as {example}"
        )


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers, from 1, without blank ones."""
    content = file.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
        wrong = len(content) if "\0" not in text else content.index(b"\0")
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong < len(content):
        number = content[:wrong].count(b"\n") + 1
        raise SourceError(f"test: {file}, line {number}: not UTF-8; save the list as UTF-8")
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            yield number, line.strip()


def _normal(name: str) -> str:
    """A name whose accents are composed, as most systems write them; macOS decomposes them."""
    return unicodedata.normalize("NFC", name)


def _without_ending(name: str) -> str:
    """A path without the ending of its last part."""
    return re.sub(r"\.\w{1,4}$", "", name)
