"""The Quick, Draw! Dataset of Google: 345 categories of drawings, as ndjson."""

from pathlib import Path

from ostinato.download import Lines, inside
from ostinato.sketches.formats.quickdraw import is_truncated
from ostinato.sketches.formats.raw import Form, RawManifest
from ostinato.sketches.sources import files
from ostinato.sketches.sources.categories import QUICKDRAW
from ostinato.sketches.sources.files import Categories
from ostinato.units import Count, Location, Seconds

LINE_BYTES = {"simplified": 500, "raw": 3500}
"""Typical bytes of a drawing's line, by form: the first guess of a download's size."""


def quickdraw(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    base_url: Location,
    form: Form,
    categories: Categories,
    per_class: Count,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download the first ``per_class`` drawings of each category of The Quick, Draw! Dataset.

    Args:
        folder: gets ``<category>.ndjson`` and the manifest.
        scratch: holds the downloads until all are complete.
        seed: not used.
        base_url: a URL or a local folder that holds ``full/<form>/<category>.ndjson``.
        form: Google's simplification, or the raw drawings with times.
        categories: names, or all 345.
        per_class: drawings per category; all drawings of a file that has fewer.
        max_concurrency: simultaneous downloads.
        timeout: seconds without data after which a download is considered broken.
        retries: further attempts of a broken download.

    Raises:
        SourceError: an unknown category, or a file that is truncated at its origin.
        DownloadError: a download fails; completed ones stay in ``scratch``.
    """
    urls = {
        inside(scratch, f"{name}.ndjson"): files.join(base_url, "full", form, f"{name}.ndjson")
        for name in files.select_categories(categories, QUICKDRAW)
    }
    files.download(
        urls,
        lambda: Lines(per_class, LINE_BYTES[form]),
        max_concurrency=max_concurrency,
        timeout=timeout,
        retries=retries,
    )
    files.refuse_truncated(path for path in urls if is_truncated(path))
    entries = [files.raw_file(path, path.stem, url) for path, url in urls.items()]
    RawManifest(
        source="quickdraw",
        format="ndjson",
        form=form,
        categories=files.categories_of(entries),
        files=entries,
        licence=files.GOOGLE,
        per_class=per_class,
    ).write(folder)
    files.move(urls, folder)
