"""What the sources share: downloads, and the manifest of the raw files."""

import shutil
from collections.abc import Callable, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ostinato import store
from ostinato.data.files import expanded
from ostinato.download import Whole, fetch_all, inside, is_url
from ostinato.errors import DownloadError, UnreachableError
from ostinato.task import Json

OFFLINE_HINT = "Without a network, use the embedded data: set the fetch block's `source: gettext`."

Entry = dict[str, Json]
"""A raw file in the manifest: path, split, bytes, sha256, origin and, if it has one, language."""


def location(base: str, name: str) -> str:
    """The URL or path of the file ``name`` in the URL or folder ``base``."""
    return f"{base.rstrip('/')}/{name}" if is_url(base) else str(expanded(base) / name)


def fetch_one(folder: Path, scratch: Path, file: str, timeout: float, retries: int) -> Entry:
    """Download or copy the only file of a source into ``folder``; return its manifest entry.

    Raises:
        DownloadError: it cannot be downloaded.
    """
    name = unquote(urlsplit(file).path).rpartition("/")[2] if is_url(file) else Path(file).name
    downloaded = inside(scratch, name)
    origin = file if is_url(file) else str(expanded(file))
    fetch({downloaded: origin}, 1, timeout, retries)
    shutil.move(downloaded, folder / name)
    return entry(folder, name, None, file)


def fetch(
    locations: Mapping[Path, str], max_concurrency: int, timeout: float, retries: int
) -> None:
    """Download or copy files.

    Args:
        locations: URL or path of each file.
        max_concurrency: transfers at the same time.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        DownloadError: files cannot be downloaded; the others stay for the next attempt.
    """
    part: Callable[[], Whole] = Whole
    try:
        fetch_all(
            locations, part, max_concurrency=max_concurrency, timeout=timeout, retries=retries
        )
    except UnreachableError as error:
        raise UnreachableError(f"{error}. {OFFLINE_HINT}") from error
    except DownloadError as error:
        raise DownloadError(f"{error}\nThe other files are kept for the next attempt.") from error


def entry(folder: Path, relative: str, split: str | None, origin: str, **more: Json) -> Entry:
    """The manifest entry of a file.

    Args:
        folder: of the raw files.
        relative: path of the file in it.
        split: train, validation or test; None if the pairs are to be split.
        origin: URL, path or package.
        **more: further values, such as the language.
    """
    path = folder / relative
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    return {
        "path": relative,
        "split": split,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "origin": origin,
        **more,
    }


def write_manifest(
    folder: Path, source: str, format: str, languages: list[str], files: list[Entry], **more: Json
) -> None:
    """Write the manifest, which `ostinato.translation.formats.parallel_text.RawManifest` reads.

    It contains no times, so the same input gives the same bytes.
    """
    content: dict[str, Any] = {"source": source, "format": format, "languages": languages}
    store.write_json(folder / "manifest.json", {**content, **more, "files": files})
