"""SketchRNN's ``.npz`` files (Ha and Eck 2017, arXiv 1704.03477)."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ostinato.data.files import expanded
from ostinato.download import Whole, inside, is_url
from ostinato.errors import SourceError
from ostinato.sketches.formats.raw import RawManifest
from ostinato.sketches.sources.files import GOOGLE, categories_of, download, move, raw_file
from ostinato.units import Count, Location, Seconds

QUICKDRAW = "storage.googleapis.com/quickdraw_dataset/"
"""In the URLs of Google's drawings; the licence of other files is not known."""


def sketchrnn(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    files: list[Location],
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download SketchRNN's ``.npz`` files with their own train, valid and test splits.

    They contain pickled arrays. The files are not opened here; the prepare stage reads them with
    an unpickler that only accepts arrays of numbers.

    Args:
        folder: gets the files and the manifest.
        scratch: holds the downloads until all are complete.
        seed: not used.
        files: URLs or local paths. A file's category is its name up to the first dot.
        max_concurrency: simultaneous downloads.
        timeout: seconds without data after which a download is considered broken.
        retries: further attempts of a broken download.

    Raises:
        SourceError: no files, or two of one category.
        DownloadError: a download fails; completed ones stay in ``scratch``.
    """
    names = [
        unquote(urlsplit(file).path).rpartition("/")[2] if is_url(file) else Path(file).name
        for file in files
    ]
    stems = [name.partition(".")[0] for name in names]
    if not files or len(set(stems)) < len(stems):
        raise SourceError(f"files: expected one or more files of different names, found {names}")
    files = [file if is_url(file) else str(expanded(file)) for file in files]
    urls = {inside(scratch, name): file for name, file in zip(names, files, strict=True)}
    download(urls, Whole, max_concurrency=max_concurrency, timeout=timeout, retries=retries)
    entries = [
        raw_file(path, stem, url, text=False)
        for stem, (path, url) in sorted(zip(stems, urls.items(), strict=True))
    ]
    RawManifest(
        source="sketchrnn",
        format="npz",
        form=None,
        categories=categories_of(entries),
        files=entries,
        licence=GOOGLE if all(QUICKDRAW in file for file in files) else None,
    ).write(folder)
    move(urls, folder)
