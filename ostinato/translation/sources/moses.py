"""Line-aligned text files, as Moses and OPUS use them; Multi30k."""

import shutil
from pathlib import Path
from typing import Literal

from ostinato import download
from ostinato.errors import SourceError
from ostinato.translation.sources import common
from ostinato.units import Count, Languages, Location, Seconds

MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


def moses(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    base_url: Location,
    files: dict[Literal["train", "validation", "test", "all"], str],
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download line-aligned text files, plain or packed, one for each language and split.

    Args:
        folder: for the files and the manifest.
        scratch: keeps partial downloads.
        seed: not used.
        languages: source and target.
        base_url: URL or local folder of the files.
        files: for each split the file's name, with ``{language}`` in it; "all" is to be split.
        max_concurrency: transfers at the same time.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        SourceError: a name without ``{language}``, or the same name twice.
        DownloadError: files cannot be downloaded; the others stay in ``scratch``.
    """
    if not files or not all("{language}" in name for name in files.values()):
        raise SourceError(f"files: expected names that contain {{language}}, found {files}")
    wanted = {
        name.replace("{language}", language): (split, language)
        for split, name in files.items()
        for language in languages
    }
    if len(wanted) < 2 * len(files):
        raise SourceError(f"files: two splits have the same file: {files}")
    urls = {download.inside(scratch, name): common.location(base_url, name) for name in wanted}
    common.fetch(urls, max_concurrency, timeout, retries)
    entries = []
    for (split, language), (downloaded, url) in zip(wanted.values(), urls.items(), strict=True):
        shutil.move(downloaded, folder / downloaded.name)
        file_split = None if split == "all" else split
        entries.append(common.entry(folder, downloaded.name, file_split, url, language=language))
    common.write_manifest(folder, "moses", "moses", languages, entries)


def multi30k(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    base_url: Location,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download Multi30k, task 1, with its own splits: image captions in en, de, fr and cs.

    Elliott et al. 2016, arXiv 1605.00459. ``base_url`` is a URL or a folder with the layout of
    github.com/multi30k/dataset, ``data/task1/raw``: ``train.en.gz``, ``val.en.gz`` and
    ``test_2016_flickr.en.gz``. The other arguments are those of `moses`.
    """
    moses(
        folder,
        scratch,
        seed,
        languages=languages,
        base_url=base_url,
        files={split: f"{stem}.{{language}}.gz" for split, stem in MULTI30K.items()},  # type: ignore[misc]
        max_concurrency=max_concurrency,
        timeout=timeout,
        retries=retries,
    )
