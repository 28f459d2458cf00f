"""The embedded drawings, which need no network."""

from hashlib import blake2b
from pathlib import Path

import numpy as np

from ostinato import store
from ostinato.download import inside
from ostinato.progress import track
from ostinato.sketches.formats import quickdraw
from ostinato.sketches.formats.raw import RawManifest
from ostinato.sketches.sources import generator
from ostinato.sketches.sources.files import Categories, categories_of, raw_file, select_categories
from ostinato.units import Count

POINT_MS, STROKE_MS = 16, 400  # between two points of a drawing, and between two strokes


def doodles(
    folder: Path, scratch: Path, seed: int, *, categories: Categories, per_class: Count
) -> None:
    """Generate drawings by rule (`generator.drawing`), as raw drawings with times.

    A drawing depends only on the seed, its category and its index, so a larger ``per_class``
    extends the set and keeps the existing drawings.

    Args:
        folder: gets ``<category>.ndjson`` and the manifest.
        scratch: not used.
        seed: of the drawings.
        categories: names, or all that the generator can draw.
        per_class: drawings per category.

    Raises:
        SourceError: a category that the generator cannot draw.
    """
    entries = []
    names = select_categories(categories, generator.CATEGORIES)
    for name in track(names, "drawing", unit="categories"):
        path = inside(folder, f"{name}.ndjson")
        store.write_bytes(path, b"".join(_line(name, i, seed) for i in range(per_class)))
        entries.append(raw_file(path, name, None))
    RawManifest(
        source="doodles",
        format="ndjson",
        form="raw",
        categories=categories_of(entries),
        files=entries,
        licence="drawn by Ostinato, free of rights",
        per_class=per_class,
    ).write(folder)


def _line(category: str, index: int, seed: int) -> bytes:
    """The ndjson line of a drawing."""
    digest = blake2b(f"{seed}/{category}/{index}".encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, index, *category.encode()])
    strokes = generator.drawing(category, rng)
    times, time = [], 0
    for stroke in strokes:
        ticks = time + POINT_MS * np.arange(len(stroke))
        time = int(ticks[-1]) + STROKE_MS
        times.append(ticks.tolist())
    key = f"{int.from_bytes(digest) % 10**16:016}"
    return quickdraw.write_line(key=key, word=category, strokes=strokes, times=times)
