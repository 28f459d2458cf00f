"""Where parallel text comes from: one function per value of ``source``.

Each is called as ``source(folder, scratch, seed, *, ...)``. It fills the empty ``folder`` with raw
files, as they are, and a ``manifest.json``; ``scratch`` keeps, from one try to the next, what a
broken download has got so far; ``seed`` is not used by any: nothing here is random. The manifest
tells the format, the languages (from, to), and of each file its path, split (or null), bytes,
SHA-256 and where it came from. It holds no times, so the same input gives the same bytes.
"""

import importlib.metadata
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from ostinato import store
from ostinato.download import Whole, fetch_all, inside, is_url
from ostinato.errors import DownloadError, SourceError, UnreachableError
from ostinato.params import near
from ostinato.units import Count, Languages, Seconds

SPLITS = ("train", "validation", "test")
MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}

Entry = dict[str, Any]


def gettext(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    original: str,
    packages: list[str],
    path: str | None,
) -> None:
    """Catalogs of messages, ``.po`` and ``.mo``, of installed Python packages or of a folder.

    A catalog is ``<language>/LC_MESSAGES/<domain>.po`` or ``<language>.po``; one of a country
    (``fr_FR``) serves for its language. Where a catalog is there as both, the ``.po`` is taken: it
    says which messages are uncertain.

    Args:
        folder: gets the catalogs, under the package's name, and the manifest.
        scratch: not used.
        seed: not used.
        languages: from and to, as in the catalogs' paths; one of them is ``original``.
        original: the language of the messages that programs hold (msgid), mostly ``en``.
        packages: names of installed packages.
        path: a folder that is searched as well, or null.

    Raises:
        SourceError: a package that is not installed, or without a catalog of the language.
    """
    if original not in languages:
        raise SourceError(f"original: {original!r} is not one of the languages {languages}")
    other = languages[1] if languages[0] == original else languages[0]
    found: dict[str, tuple[Path, str]] = {}
    for name in packages:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise SourceError(f"packages: {name} is not installed: `pip install {name}`") from None
        files = {file.as_posix(): Path(str(file.locate())) for file in package.files or ()}
        catalogs = _catalogs(files, other)
        if not catalogs:
            raise SourceError(f"packages: {name} {package.version} has no catalog for {other!r}")
        origin = f"{name} {package.version}"
        found |= {f"{name}/{relative}": (files[relative], origin) for relative in catalogs}
    if path is not None:
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise SourceError(f"path: {path}: no such folder")
        files = {p.relative_to(root).as_posix(): p for p in root.rglob("*.[mp]o")}
        catalogs = _catalogs(files, other)
        if not catalogs:
            raise SourceError(f"path: {path} has no catalog for {other!r}")
        found |= {f"path/{relative}": (files[relative], path) for relative in catalogs}
    if not found:
        raise SourceError("packages and path: name at least one package or a folder")
    entries = []
    for relative, (source, origin) in sorted(found.items()):
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        entries.append(_file(folder, relative, None, origin))
    _finish(folder, "gettext", "gettext", languages, entries, original=original)


def moses(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    base_url: str,
    files: dict[Literal["train", "validation", "test", "all"], str],
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Two files of lines a split, line by line translations of each other, plain or ``.gz``.

    Args:
        folder: gets the files and the manifest.
        scratch: gets the transfers until all are whole.
        seed: not used.
        languages: from and to.
        base_url: a URL or a local folder that holds the files.
        files: a file's name for each split, with ``{language}`` in it; "all" is to be split.
        max_concurrency: transfers at the same time.
        timeout: seconds of silence after which a transfer counts as broken.
        retries: further tries of a broken transfer.

    Raises:
        SourceError: a name without ``{language}``, or two files of one name.
        DownloadError: files that could not be had; those that could stay in ``scratch``.
    """
    if not files or not all("{language}" in name for name in files.values()):
        raise SourceError(f"files: expected names with {{language}} in them, found {files}")
    wanted = {
        name.replace("{language}", language): (split, language)
        for split, name in files.items()
        for language in languages
    }
    if len(wanted) < 2 * len(files):
        raise SourceError(f"files: names of different splits are the same: {files}")
    urls = {inside(scratch, name): _join(base_url, name) for name in wanted}
    _get(urls, max_concurrency, timeout, retries)
    entries = []
    for (split, language), (arrived, url) in zip(wanted.values(), urls.items(), strict=True):
        shutil.move(arrived, folder / arrived.name)
        entry = _file(folder, arrived.name, None if split == "all" else split, url)
        entries.append(entry | {"language": language})
    _finish(folder, "moses", "moses", languages, entries)


def multi30k(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    base_url: str,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Multi30k, task 1, with its own splits: descriptions of pictures in en, de, fr and cs.

    Elliott et al. 2016, arXiv 1605.00459. ``base_url`` is a URL or a folder of the layout of
    github.com/multi30k/dataset, ``data/task1/raw``: ``train.en.gz``, ``val.en.gz`` and
    ``test_2016_flickr.en.gz``. The rest is as for `moses`.
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


def tsv(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    file: str,
    columns: list[Count],
    timeout: Seconds,
    retries: Count,
) -> None:
    """A table of lines with tabs between its columns, as Tatoeba's and Anki's, zipped or not.

    ``file`` is a URL or a local path (``.tsv``, ``.txt``, ``.gz``, or a ``.zip`` with one table in
    it); ``columns`` are those of the two languages, the first is 1: [1, 2] for manythings.org/anki,
    [2, 4] for Tatoeba's own exports. The rest is as for `moses`.

    Raises:
        SourceError: not two different columns.
        DownloadError: the file could not be had.
    """
    if len(set(columns)) != 2 or len(columns) != 2:
        raise SourceError(f"columns: expected two different ones, found {columns}")
    entry = _one(folder, scratch, file, timeout, retries)
    _finish(folder, "tsv", "tsv", languages, [entry], columns=columns)


def tmx(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    file: str,
    timeout: Seconds,
    retries: Count,
) -> None:
    """A translation memory, TMX 1.4, plain or ``.gz``.

    ``file`` is a URL or a local path. A variant of a country (``fr-CA``) serves for its language.
    The rest is as for `moses`.

    Raises:
        DownloadError: the file could not be had.
    """
    entry = _one(folder, scratch, file, timeout, retries)
    _finish(folder, "tmx", "tmx", languages, [entry])


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    dataset: str,
    data_dir: str | None,
) -> None:
    """Any translation data set of tensorflow-datasets, e.g. ``ted_hrlr_translate/pt_to_en``.

    Args:
        folder: gets two files of lines for each split, and the manifest.
        scratch: where TFDS prepares the data set, unless ``data_dir`` is given.
        seed: not used.
        languages: from and to, in either order of the data set's own.
        dataset: name and config of the builder.
        data_dir: TFDS's data folder, or null.

    Raises:
        SourceError: no such builder, it has not these languages, its download fails, or a text
            holds a line break.
    """
    import tensorflow_datasets

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        builder = tensorflow_datasets.builder(
            dataset, data_dir=data_dir or scratch / "tfds", try_gcs=False
        )
    except (tensorflow_datasets.core.registered.DatasetNotFoundError, ValueError) as error:
        raise SourceError(f"dataset: {dataset}: {str(error).splitlines()[0]}") from None
    known = set(builder.info.features)
    if missing := [language for language in languages if language not in known]:
        raise SourceError(f"languages: {dataset} has no {missing[0]!r}; {near(missing[0], known)}")
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # requests', urllib's, the builder's own: whatever it uses
        hint = "Without a network there is the embedded source: set fetch's `source: gettext`."
        raise SourceError(f"{dataset}: cannot be prepared: {error}. {hint}") from error
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)  # as stored, every time
    entries = []
    for split in builder.info.splits:
        stream = tensorflow_datasets.as_numpy(builder.as_dataset(split, read_config=order))
        paths = [folder / f"{split}.{language}" for language in languages]
        with paths[0].open("wb") as first, paths[1].open("wb") as second:
            for number, example in enumerate(stream):
                texts = [example[language] for language in languages]
                if any(re.search(rb"[\r\n]", text) for text in texts):
                    raise SourceError(f"{dataset}, {split}, example {number}: a line break")
                first.write(texts[0] + b"\n")
                second.write(texts[1] + b"\n")
        for path, language in zip(paths, languages, strict=True):
            entry = _file(folder, path.name, split if split in SPLITS else None, dataset)
            entries.append(entry | {"language": language})
    _finish(folder, "tfds", "moses", languages, entries)


def _catalogs(files: Iterable[str], language: str) -> list[str]:
    """Those of the paths that are catalogs of a language; ``.mo`` where there is no ``.po``."""
    own = rf"(.*/)?{re.escape(language)}([_-]\w+)?(/LC_MESSAGES/[^/]+)?\.[mp]o"
    chosen = [file for file in files if re.fullmatch(own, file)]
    sources = {file for file in chosen if file.endswith(".po")}
    return [file for file in chosen if file in sources or f"{file[:-3]}.po" not in sources]


def _join(base: str, name: str) -> str:
    return f"{base.rstrip('/')}/{name}" if is_url(base) else str(Path(base).expanduser() / name)


def _one(folder: Path, scratch: Path, where: str, timeout: float, retries: int) -> Entry:
    """Get the one file of a source."""
    name = unquote(urlsplit(where).path).rpartition("/")[2] if is_url(where) else Path(where).name
    arrived = inside(scratch, name)
    place = where if is_url(where) else str(Path(where).expanduser())
    _get({arrived: place}, 1, timeout, retries)
    shutil.move(arrived, folder / name)
    return _file(folder, name, None, where)


def _get(urls: Mapping[Path, str], at_once: int, timeout: float, retries: int) -> None:
    part: Callable[[], Whole] = Whole
    try:
        fetch_all(urls, part, max_concurrency=at_once, timeout=timeout, retries=retries)
    except UnreachableError as error:
        hint = "Without a network there is the embedded source: set fetch's `source: gettext`."
        raise UnreachableError(f"{error}. {hint}") from error
    except DownloadError as error:
        raise DownloadError(f"{error}\nThe others are kept for the next try.") from error


def _file(folder: Path, relative: str, split: str | None, origin: str) -> Entry:
    path = folder / relative
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    return {
        "path": relative,
        "split": split,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "origin": origin,
    }


def _finish(
    folder: Path, source: str, format: str, languages: list[str], files: list[Entry], **more: Any
) -> None:
    about = {"source": source, "format": format, "languages": languages, **more, "files": files}
    store.write_json(folder / "manifest.json", about)
