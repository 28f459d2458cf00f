"""Helpers of the sources of drawings: categories, downloads and raw files."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ostinato.data.files import expanded
from ostinato.download import Part, fetch_all, is_url
from ostinato.errors import DownloadError, SourceError, UnreachableError
from ostinato.params import near
from ostinato.sketches.formats.raw import RawFile

Categories = list[str] | Literal["all"]

GOOGLE = "CC BY 4.0 (Google, The Quick, Draw! Dataset)"
"""The licence of the drawings of `quickdraw`, `sketchrnn` and `tfds`."""


def select_categories(categories: Categories, available: Sequence[str]) -> list[str]:
    """The requested categories, sorted.

    Raises:
        SourceError: a category is unknown or repeated, or there is none.
    """
    if categories == "all":
        return sorted(available)
    if unknown := [name for name in categories if name not in available]:
        hints = [f"{name!r}: {near(name, available)}" for name in unknown]
        raise SourceError("\n  ".join(["unknown categories:", *hints]))
    if not categories or len(set(categories)) < len(categories):
        raise SourceError(f"categories: expected different names, found {categories}")
    return sorted(categories)


def join(base: str, *parts: str) -> str:
    """The URL or path of a file below a base URL or folder."""
    if is_url(base):
        return "/".join([base.rstrip("/"), *map(quote, parts)])
    return str(expanded(base).joinpath(*parts))


def download(
    urls: Mapping[Path, str],
    part: Callable[[], Part],
    *,
    max_concurrency: int,
    timeout: float,
    retries: int,
) -> None:
    """Download files (`ostinato.download.fetch_all`).

    Raises:
        UnreachableError: there is no network; the message names the embedded source.
        DownloadError: some files failed; the others are kept for the next attempt.
    """
    try:
        fetch_all(urls, part, max_concurrency=max_concurrency, timeout=timeout, retries=retries)
    except UnreachableError as error:
        hint = "The embedded source needs no network: set `source: doodles` in the fetch block."
        raise UnreachableError(f"{error}. {hint}") from error
    except DownloadError as error:
        raise DownloadError(f"{error}\nThe other files are kept for the next attempt.") from error


def refuse_truncated(paths: Iterable[Path]) -> None:
    """Delete files that are truncated at their origin, so the next attempt downloads them again.

    Raises:
        SourceError: there is such a file.
    """
    if truncated := list(paths):
        for path in truncated:
            path.unlink()
        raise SourceError(
            f"{', '.join(path.name for path in truncated)}: truncated at the origin, the file ends "
            "in the middle of a drawing. Repair it there, lower per_class or leave it out."
        )


def raw_file(
    path: Path,
    category: str | None,
    url: str | None,
    *,
    relative: str | None = None,
    text: bool = True,
) -> RawFile:
    """The manifest's entry of a file.

    Args:
        path: of the file.
        category: of its drawings; None if they differ.
        url: of its download, if any.
        relative: its path in the raw folder; None: its name.
        text: whether its lines are counted; a last line without a line feed counts.
    """
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
        file.seek(0)
        while text and (chunk := file.read(1 << 20)):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return RawFile(
        path=path.name if relative is None else relative,
        category=category,
        bytes=path.stat().st_size,
        sha256=sha256,
        lines=lines + (last != b"\n") if text else None,
        url=url,
    )


def categories_of(files: Iterable[RawFile]) -> list[str]:
    """The categories of files, sorted."""
    return sorted({file.category for file in files if file.category is not None})


def move(paths: Iterable[Path], folder: Path) -> None:
    """Move files into a folder, on another file system too."""
    for path in paths:
        shutil.move(path, folder / path.name)
