"""QuickDraw's bitmaps as a data set of tensorflow-datasets."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8

from ostinato.data.files import expanded
from ostinato.download import inside
from ostinato.errors import SourceError
from ostinato.sketches.formats.raw import RawManifest
from ostinato.sketches.sources import files
from ostinato.sketches.sources.categories import QUICKDRAW
from ostinato.sketches.sources.files import Categories
from ostinato.units import Count, Location, Seconds

SIDE = 28  # height and width of a bitmap in pixels


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    data_dir: str | None,
    base_url: Location,
    categories: Categories,
    per_class: Count,
    max_concurrency: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Write the first ``per_class`` 28x28 bitmaps of each category as a TFDS data set.

    The builder of ``quickdraw_bitmap`` in tensorflow-datasets (TFDS) downloads all 37 GB before it
    writes an example. This source reads the data set from the ``data_dir`` in which that has been
    done, or else downloads only the needed rows of the builder's files. TFDS writes them in its
    own layout.

    Args:
        folder: gets ``quickdraw_bitmap/3.0.0`` with the features image, label and key_id (a hash
            of bitmap and label, because Google provides none), and the manifest.
        scratch: holds the downloads until all are complete.
        seed: not used.
        data_dir: TFDS's data folder in which ``quickdraw_bitmap`` is prepared, or null.
        base_url: used if ``data_dir`` is null: a URL or a local folder that holds
            ``full/numpy_bitmap/<category>.npy``.
        categories: names, or all 345.
        per_class: bitmaps per category; all bitmaps of a file that has fewer.
        max_concurrency: simultaneous downloads.
        timeout: seconds without data after which a download is considered broken.
        retries: further attempts of a broken download.

    Raises:
        SourceError: an unknown category, no prepared data set in ``data_dir``, or a broken file.
        DownloadError: a download fails; completed ones stay in ``scratch``.
    """
    import tensorflow_datasets

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    names = files.select_categories(categories, QUICKDRAW)
    images: Iterator[tuple[str, np.ndarray]]
    if data_dir is None:
        urls = {
            inside(scratch, f"{name}.npy"): files.join(
                base_url, "full", "numpy_bitmap", f"{name}.npy"
            )
            for name in names
        }
        files.download(
            urls,
            lambda: _BitmapRows(per_class),
            max_concurrency=max_concurrency,
            timeout=timeout,
            retries=retries,
        )
        files.refuse_truncated(path for path in urls if _read_bitmaps(path, per_class) is None)
        images = _downloaded(urls, per_class)
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
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [
        files.raw_file(path, None, None, relative=path.relative_to(folder).as_posix(), text=False)
        for path in written
    ]
    RawManifest(
        source="tfds",
        format="tfds",
        form=None,
        categories=names,
        files=entries,
        licence=files.GOOGLE,
        per_class=per_class,
        dataset=Path(built.data_dir).relative_to(folder).as_posix(),
        counts={name: counts[name] for name in names},
    ).write(folder)


class _BitmapRows:
    """The first ``count`` bitmaps of an .npy file as a part to download; its header has the offset.

    See `ostinato.download.Part`.
    """

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


def _read_bitmaps(path: Path, count: int) -> UInt8[np.ndarray, "bitmap pixel"] | None:
    """The first ``count`` bitmaps of an .npy file; None if it is broken or truncated."""
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


def _downloaded(
    paths: Iterable[Path], count: int
) -> Iterator[tuple[str, UInt8[np.ndarray, " pixel"]]]:
    """Category and pixels of the first ``count`` bitmaps of valid .npy files."""
    for path in paths:
        for image in cast(np.ndarray, _read_bitmaps(path, count)):
            yield path.stem, image


def _prepared(
    data_dir: str, names: list[str], count: int
) -> Iterator[tuple[str, UInt8[np.ndarray, "height width 1"]]]:
    """Category and pixels of the first ``count`` bitmaps of ``names`` that TFDS has prepared."""
    import tensorflow_datasets

    builder = tensorflow_datasets.builder(
        "quickdraw_bitmap", data_dir=expanded(data_dir), try_gcs=False
    )
    if not builder.is_prepared():
        raise SourceError(
            f"{data_dir}: contains no prepared quickdraw_bitmap; set data_dir: null to read it "
            "from base_url, or run `tfds build quickdraw_bitmap --data_dir` there"
        )
    labels = builder.info.features["label"].names
    left = dict.fromkeys(names, count)
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)  # the stored order
    for example in tensorflow_datasets.as_numpy(builder.as_dataset("train", read_config=order)):
        name = labels[example["label"]]
        if left.get(name):
            left[name] -= 1
            yield name, example["image"]
            if not any(left.values()):
                return
