"""Where drawings come from: one function per value of ``source``.

Each is called as ``source(folder, scratch, seed, *, ...)``. It fills the empty ``folder`` with raw
files and a ``manifest.json``; ``scratch`` keeps, from one try to the next, what a broken download
has got so far; ``seed`` is where all randomness starts. The manifest tells of each file its path,
category, bytes, SHA-256, lines and URL. It holds no times, so the same input gives the same bytes.
"""

import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import orjson
from tqdm import tqdm

from ostinato import store
from ostinato.download import Lines, Part, Whole, fetch_all, inside, is_url
from ostinato.errors import DownloadError, SourceError, UnreachableError
from ostinato.params import near
from ostinato.sketches.sources import generator
from ostinato.sketches.sources.categories import QUICKDRAW
from ostinato.units import Count, Seconds

Categories = list[str] | Literal["all"]
Form = Literal["simplified", "raw"]

GOOGLE = "CC BY 4.0 (Google, The Quick, Draw! Dataset)"
LICENCES = {  # of what the sources draw on; one's own folder has one's own
    "quickdraw": GOOGLE,
    "sketchrnn": GOOGLE,
    "tfds": GOOGLE,
    "doodles": "drawn by Ostinato, free of rights",
}
TYPICAL = {"simplified": 500, "raw": 3500}  # bytes of a drawing's line, the first guess
SIDE = 28  # pixels of a bitmap
TICK, PAUSE = 16, 400  # ms between two points of an embedded drawing, and between its strokes


def quickdraw(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    base_url: str,
    form: Form,
    categories: Categories,
    per_class: Count,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """The first ``per_class`` drawings of each category of The Quick, Draw! Dataset, as they are.

    Args:
        folder: gets ``<category>.ndjson`` and the manifest.
        scratch: gets the transfers until all are whole.
        seed: not used.
        base_url: a URL or a local folder that holds ``full/<form>/<category>.ndjson``.
        form: Google's simplification, or the raw drawings with times.
        categories: names, or "all" 345.
        per_class: drawings per category; all of a file that holds fewer.
        max_concurrency: transfers at the same time.
        timeout: seconds of silence after which a transfer counts as broken.
        retries: further tries of a broken transfer.

    Raises:
        SourceError: an unknown category, or files that end in the middle of a drawing.
        DownloadError: files that could not be had; those that could stay in ``scratch``.
    """
    urls = {
        inside(scratch, f"{name}.ndjson"): _join(base_url, "full", form, f"{name}.ndjson")
        for name in _chosen(categories, QUICKDRAW)
    }
    _get(urls, lambda: Lines(per_class, TYPICAL[form]), max_concurrency, timeout, retries)
    _refuse(path for path in urls if _cut(path))
    files = [_file(path, path.stem, url) for path, url in urls.items()]
    _finish(folder, files, "quickdraw", "ndjson", form, {"per_class": per_class})
    _move(urls, folder)


def sketchrnn(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    files: list[str],
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """SketchRNN's ``.npz`` files with their own train, valid and test, as they are.

    They hold pickled arrays, which nothing here opens; ``examples.npz`` does, and admits numbers
    alone. ``files`` are URLs or local paths; a file's category is its name up to the first dot.
    The rest is as for `quickdraw`.

    Raises:
        SourceError: no files, or two of one category.
        DownloadError: files that could not be had.
    """
    names = [
        unquote(urlsplit(w).path).rpartition("/")[2] if is_url(w) else Path(w).name for w in files
    ]
    stems = [name.partition(".")[0] for name in names]
    if not files or len(set(stems)) < len(stems):
        raise SourceError(f"files: expected one or more files of different names, found {names}")
    urls = {inside(scratch, name): where for name, where in zip(names, files, strict=True)}
    _get(urls, Whole, max_concurrency, timeout, retries)
    entries = [
        _file(path, stem, url) | {"lines": None}
        for stem, (path, url) in sorted(zip(stems, urls.items(), strict=True))
    ]
    _finish(folder, entries, "sketchrnn", "npz", None, {})
    _move(urls, folder)


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    data_dir: str | None,
    base_url: str,
    categories: Categories,
    per_class: Count,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """The first ``per_class`` 28x28 bitmaps of each category, as a tensorflow-datasets data set.

    TFDS's own builder of ``quickdraw_bitmap`` downloads all 37 GB before it writes an example.
    Here the data set is taken from the ``data_dir`` where that has been done; else the wanted
    rows are read from the files that the builder would get, and written by TFDS in its layout.

    ``folder`` gets ``quickdraw_bitmap/3.0.0`` with the features image, label and key_id (a hash of
    the bitmap and its label, since Google gives none). ``data_dir`` is TFDS's data folder in which
    ``quickdraw_bitmap`` is prepared, or None; without it, ``base_url`` is a URL or a local folder
    that holds ``full/numpy_bitmap/<category>.npy``. The rest is as for `quickdraw`.

    Raises:
        SourceError: an unknown category, nothing prepared in ``data_dir``, or broken files.
        DownloadError: files that could not be had.
    """
    import tensorflow_datasets

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    names = _chosen(categories, QUICKDRAW)
    images: Iterator[tuple[str, np.ndarray]]
    if data_dir is None:
        urls = {
            inside(scratch, f"{name}.npy"): _join(base_url, "full", "numpy_bitmap", f"{name}.npy")
            for name in names
        }
        _get(urls, lambda: _Rows(per_class), max_concurrency, timeout, retries)
        _refuse(path for path in urls if _bitmaps(path, per_class) is None)
        images = _rows(urls, per_class)
    else:
        images = _prepared(data_dir, names, per_class)
    counts: Counter[str] = Counter()

    def examples() -> Iterator[tuple[str, dict[str, Any]]]:
        for name, image in images:
            key = blake2b(name.encode() + image.tobytes(), digest_size=8).hexdigest()
            yield (
                f"{name}_{counts[name]}",
                {"image": image.reshape(SIDE, SIDE, 1), "label": name, "key_id": key},
            )
            counts[name] += 1

    stock = tensorflow_datasets.builder_cls("quickdraw_bitmap")
    features = tensorflow_datasets.features
    built = tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name=stock.name,
        version=stock.VERSION,
        description="Bitmaps of The Quick, Draw! Dataset, the first of each category.",
        homepage="https://github.com/googlecreativelab/quickdraw-dataset",
        features=features.FeaturesDict(
            {
                "image": features.Image(shape=(SIDE, SIDE, 1)),
                "label": features.ClassLabel(names=names),
                "key_id": features.Text(),
            }
        ),
        split_datasets={"train": examples()},
        data_dir=folder,
        download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False),
    )
    place = Path(built.data_dir).relative_to(folder)
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [
        _file(path, None, None) | {"path": path.relative_to(folder).as_posix(), "lines": None}
        for path in written
    ]
    numbers = {"dataset": place.as_posix(), "counts": {name: counts[name] for name in names}}
    _finish(folder, files, "tfds", "tfds", None, numbers | {"per_class": per_class}, names)


def folder(
    folder: Path, scratch: Path, seed: int, *, path: str, form: Form, label: Literal["file", "word"]
) -> None:
    """The user's own drawings: ``.ndjson`` files in QuickDraw's schema, in a folder or below it.

    Copies keep their relative paths. ``form`` says whether strokes are [x, y] simplified as
    Google's, or [x, y, t] raw. ``label``: the category is the "file"'s name without its ending
    (the manifest's categories), or each line's "word" (the manifest has none then).

    Raises:
        SourceError: no such folder, no such files in it, or a link that leads out of it.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"{path}: no such folder")
    found = sorted(p for p in root.rglob("*.ndjson") if p.is_file())
    if not found:
        raise SourceError(f"{path}: holds no .ndjson files")
    if out := [str(p) for p in found if not p.resolve().is_relative_to(root)]:
        raise SourceError(f"{', '.join(out)}: leads out of {path}; copy the file there instead")
    files = []
    for source in found:
        relative = source.relative_to(root)
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        entry = _file(target, source.stem if label == "file" else None, None)
        files.append(entry | {"path": relative.as_posix()})
    _finish(folder, files, "folder", "ndjson", form, {})


def doodles(
    folder: Path, scratch: Path, seed: int, *, categories: Categories, per_class: Count
) -> None:
    """The embedded drawings (``generator.drawing``), as raw ones with times.

    ``categories`` are names, or "all" that the generator can draw. The drawing of a category at
    an index depends on the seed alone, so that a larger ``per_class`` extends the set and leaves
    the rest as it was.

    Raises:
        SourceError: a category that the generator cannot draw.
    """
    files = []
    for name in tqdm(_chosen(categories, generator.CATEGORIES), unit="category", disable=None):
        path = inside(folder, f"{name}.ndjson")
        store.write_bytes(path, b"".join(_doodle(name, i, seed) for i in range(per_class)))
        files.append(_file(path, name, None))
    _finish(folder, files, "doodles", "ndjson", "raw", {"per_class": per_class})


def _doodle(category: str, index: int, seed: int) -> bytes:
    key = blake2b(f"{seed}/{category}/{index}".encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, index, *category.encode()])
    strokes, time = [], 0
    for stroke in generator.drawing(category, rng):
        times = time + TICK * np.arange(len(stroke))
        time = int(times[-1]) + PAUSE
        strokes.append([*np.round(stroke, 1).T.tolist(), times.tolist()])
    return orjson.dumps(
        {
            "word": category,
            "countrycode": "ZZ",  # ISO 3166: no country
            "timestamp": "1970-01-01 00:00:00.00000 UTC",
            "recognized": True,
            "key_id": f"{int.from_bytes(key) % 10**16:016}",
            "drawing": strokes,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _chosen(categories: Categories, known: Sequence[str]) -> list[str]:
    if categories == "all":
        return sorted(known)
    if unknown := [name for name in categories if name not in known]:
        hints = [f"{name!r}: {near(name, known)}" for name in unknown]
        raise SourceError("\n  ".join(["unknown categories:", *hints]))
    if not categories or len(set(categories)) < len(categories):
        raise SourceError(f"categories: expected different names, found {categories}")
    return sorted(categories)


def _join(base: str, *parts: str) -> str:
    if is_url(base):
        return "/".join([base.rstrip("/"), *map(quote, parts)])
    return str(Path(base).expanduser().joinpath(*parts))


def _get(
    urls: Mapping[Path, str],
    part: Callable[[], Part],
    at_once: int,
    timeout: float,
    retries: int,
) -> None:
    try:
        fetch_all(urls, part, max_concurrency=at_once, timeout=timeout, retries=retries)
    except UnreachableError as error:
        hint = "Without a network there is the embedded source: set fetch's `source: doodles`."
        raise UnreachableError(f"{error}. {hint}") from error
    except DownloadError as error:
        raise DownloadError(f"{error}\nThe others are kept for the next try.") from error


def _cut(path: Path) -> bool:
    """Whether a file of lines ends in the middle of one."""
    with path.open("rb") as file:
        last = b"".join(deque(file, maxlen=1))
    if last.endswith(b"\n") or not last:
        return False
    try:
        orjson.loads(last)
    except orjson.JSONDecodeError:
        return True
    return False


def _refuse(paths: Iterable[Path]) -> None:
    """Delete files that were cut off before they came here, so that the next try gets them anew."""
    if cut := list(paths):
        for path in cut:
            path.unlink()
        raise SourceError(
            f"{', '.join(path.name for path in cut)}: cut off at the source, the file ends in the "
            "middle of a drawing. Mend it there, ask for fewer per_class or leave it out."
        )


class _Rows:
    """The first ``count`` rows of bitmaps of an .npy file: its header says where they begin."""

    def __init__(self, count: int) -> None:
        self.wanted, self.read, self.head = count * SIDE**2, 0, b""

    def _end(self) -> int:
        return 10 + int.from_bytes(self.head[8:10], "little") + self.wanted

    def take(self, chunk: bytes) -> int | None:
        self.head = (self.head + chunk[:10])[:10]
        before, self.read = self.read, self.read + len(chunk)
        return self._end() - before if len(self.head) == 10 and self._end() <= self.read else None

    def guess(self) -> int:
        return (self._end() if len(self.head) == 10 else 128 + self.wanted) - self.read


def _bitmaps(path: Path, count: int) -> np.ndarray | None:
    """The first ``count`` bitmaps (row, pixel) of an .npy file; None if it is broken or cut."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            return None
        if version != (1, 0) or dtype != np.uint8 or len(shape) != 2 or shape[1] != SIDE**2:
            return None
        rows = min(shape[0], count)
        pixels = np.fromfile(file, np.uint8, rows * SIDE**2)
        return pixels.reshape(rows, SIDE**2) if pixels.size == rows * SIDE**2 else None


def _rows(paths: Iterable[Path], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """The first ``count`` bitmaps of each of the .npy files, which ``_bitmaps`` can read."""
    for path in paths:
        for image in cast(np.ndarray, _bitmaps(path, count)):
            yield path.stem, image


def _prepared(data_dir: str, names: list[str], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """The first ``count`` bitmaps of each of ``names`` of the data set that TFDS has prepared."""
    import tensorflow_datasets

    builder = tensorflow_datasets.builder(
        "quickdraw_bitmap", data_dir=Path(data_dir).expanduser(), try_gcs=False
    )
    if not builder.is_prepared():
        raise SourceError(
            f"{data_dir}: holds no prepared quickdraw_bitmap; set data_dir: null to read it from "
            "base_url, or run `tfds build quickdraw_bitmap --data_dir` there"
        )
    labels = builder.info.features["label"].names
    left = dict.fromkeys(names, count)
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)  # as stored, every time
    for example in tensorflow_datasets.as_numpy(builder.as_dataset("train", read_config=order)):
        name = labels[example["label"]]
        if left.get(name):
            left[name] -= 1
            yield name, example["image"]
            if not any(left.values()):
                return


def _file(path: Path, category: str | None, url: str | None) -> dict[str, Any]:
    """What the manifest tells of a file; a last line without a line feed counts."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
        file.seek(0)
        while chunk := file.read(1 << 20):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return {
        "path": path.name,
        "category": category,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "lines": lines + (last != b"\n"),
        "url": url,
    }


def _finish(
    folder: Path,
    files: list[dict[str, Any]],
    source: str,
    format: str,
    form: str | None,
    numbers: Mapping[str, Any],
    categories: list[str] | None = None,
) -> None:
    found = {file["category"] for file in files} - {None}
    store.write_json(
        folder / "manifest.json",
        {
            "source": source,
            "licence": LICENCES.get(source),
            "format": format,
            "form": form,
            "categories": sorted(found) if categories is None else categories,
            **numbers,
            "files": files,
        },
    )


def _move(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        shutil.move(path, folder / path.name)
