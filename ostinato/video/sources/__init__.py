"""Where videos come from: one function per value of ``source``.

Each is called as ``source(folder, scratch, seed, *, ...)``. It fills the empty ``folder`` with
videos, in a folder for each class, and a ``manifest.json``; ``scratch`` keeps, from one try to the
next, what a broken download has got so far; ``seed`` is where all randomness starts. The manifest
tells of each video its path (a file, or a folder of numbered images), class, key, group (the
recording that it belongs to; or null, where only its name may tell), split (or null), bytes and
SHA-256. It holds no times, so the same input gives the same bytes.
"""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b, file_digest, sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from tqdm import tqdm

from ostinato import params, store
from ostinato.download import inside
from ostinato.errors import SourceError
from ostinato.sketches import sources as sketches
from ostinato.units import Count
from ostinato.video.sources import playing
from ostinato.video.sources.playing import ORDERS, Pace

SPLITS = ("train", "validation", "test")
VIDEOS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
FILM = 10  # frames a second of generated videos; a GIF counts in hundredths of a second
TFDS_RATE = 25  # of those whose data set does not tell it

Pen = Annotated[float, Field(gt=0, le=64)]
"""Width of a pen, in pixels."""
Size = Annotated[int, Field(ge=4, le=1024)]
"""Height and width of a picture, in pixels."""
Frames = Annotated[int, Field(ge=2, le=1024)]
"""Frames of a generated video."""


def _checked_drawings(block: dict[str, Any]) -> dict[str, Any]:
    if problems := params.fetch_problems(sketches, block):
        raise ValueError("; ".join(f"{problem.key}: {problem.message}" for problem in problems))
    return block


Drawings = Annotated[dict[str, Any], AfterValidator(_checked_drawings)]
"""A fetch block of ostinato/sketches/sources."""
Entry = dict[str, Any]
Strokes = list[NDArray[np.float64]]


def folder(folder: Path, scratch: Path, seed: int, *, path: str, test: str | None) -> None:
    """The user's own videos: a folder for each class, as UCF101 and HMDB51 are laid out.

    In a class's folder a video is a file (``VIDEOS``) or a folder of numbered images (``IMAGES``).

    Args:
        folder: gets copies, with their relative paths, and the manifest.
        scratch: not used.
        seed: not used.
        path: the folder that holds the classes' folders.
        test: a file that lists the test videos, one in a line as ``class/name``, such as UCF101's
            ``testlist01.txt``; all others are for training then. Or null.

    Raises:
        SourceError: no such folder, no videos in it, a link that leads out of it, or a listed
            video that is not there.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise SourceError(f"path: {path}: no such folder")
    found = [
        (label.name, video)
        for label in sorted(p for p in root.iterdir() if p.is_dir())
        for video in sorted(label.iterdir())
        if video.suffix.lower() in VIDEOS or _images(video)
    ]
    if not found:
        raise SourceError(
            f"path: {path}: holds no folders of videos ({', '.join(sorted(VIDEOS))}) or of "
            f"folders of images ({', '.join(sorted(IMAGES))}), one folder for each class"
        )
    listed = set() if test is None else _listed(Path(test))
    names = {video.relative_to(root).as_posix() for _, video in found}
    if missing := sorted(listed - names):
        raise SourceError(f"test: {test} lists what {path} does not hold: {missing[0]}")
    entries = []
    for label, video in tqdm(found, "copying", unit="video", disable=None):
        relative = video.relative_to(root)
        for source in _images(video) or [video]:
            if not source.resolve().is_relative_to(root):
                raise SourceError(f"{source}: leads out of {path}; copy the file there instead")
            target = folder / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        split = None if test is None else "test" if relative.as_posix() in listed else "train"
        entries.append(_entry(folder, relative, label, split=split))
    _finish(folder, "folder", None, entries)


def tfds(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    dataset: str,
    data_dir: str | None,
    per_class: Count | None,
) -> None:
    """Any video data set of tensorflow-datasets, e.g. ``ucf101`` or ``moving_mnist``.

    Its splits are kept, if it has more than one. It tells no recordings: the test split is apart
    as far as its makers saw to it, but validation may share some with training. It takes the room
    of all pictures; UCF101 as its files (``folder``) takes less, and tells the recordings.

    Args:
        folder: gets the videos without loss, and the manifest.
        scratch: where TFDS prepares the data set, unless ``data_dir`` is given.
        seed: not used.
        dataset: name and config of the builder.
        data_dir: TFDS's data folder, or null.
        per_class: videos of each class in each split at most, the first ones; or null.

    Raises:
        SourceError: no such builder, one without a video, or its download fails.
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
    known = tensorflow_datasets.features
    features = dict(builder.info.features)
    videos = [name for name, kind in features.items() if isinstance(kind, known.Video)]
    labels = [name for name, kind in features.items() if isinstance(kind, known.ClassLabel)]
    if len(videos) != 1 or len(labels) > 1:
        raise SourceError(
            f"dataset: {dataset}: expected one video and at most one label, found the features "
            f"{', '.join(features)}"
        )
    try:
        builder.download_and_prepare(
            download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # requests', urllib's, the builder's own: whatever it uses
        hint = "Without a network there is the embedded source: `source: animated_sketches`."
        raise SourceError(f"{dataset}: cannot be prepared: {error}. {hint}") from error
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)  # as stored, every time
    entries = []
    for split in builder.info.splits:
        own = split if split in SPLITS and len(builder.info.splits) > 1 else None
        counts: Counter[str] = Counter()
        stream = tensorflow_datasets.as_numpy(builder.as_dataset(split, read_config=order))
        for example in stream:
            # Without a label all are of one class, which has the data set's name.
            label = features[labels[0]].int2str(example[labels[0]]) if labels else builder.name
            if per_class is not None and counts[label] >= per_class:
                continue
            name = f"{split}_{counts[label]:06d}"
            counts[label] += 1
            relative = _write(folder, label, name, example[videos[0]], TFDS_RATE)
            entries.append(_entry(folder, relative, label, split=own))
    _finish(folder, "tfds", None, entries, dataset=dataset)


def animated_sketches(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    drawings: Drawings,
    frames: Frames,
    size: Size,
    pen: Pen,
    pace: Pace,
) -> None:
    """Drawings played back as they were drawn, stroke by stroke; a class is a category.

    A drawing keeps its key, by which it is the same one as in a data set of strokes.

    Args:
        folder: gets ``<category>/<key>.gif`` and the manifest.
        scratch: of the source of the drawings.
        seed: of the source of the drawings.
        drawings: a fetch block of ostinato/sketches/sources: ``source``, and under its name what
            it takes. Any that gives strokes will do; ``doodles`` is embedded.
        frames: of a video; the last shows the whole drawing.
        size: height and width, in pixels.
        pen: its width, in pixels.
        pace: the drawing grows by equal lengths of "ink", or in "time" as it was drawn.

    Raises:
        SourceError: a source without strokes, or without the times that the pace asks for.
    """
    entries = []
    about, found = _drawings(scratch, seed, drawings)
    for label, key, strokes in found:
        if pace == "time" and any(len(stroke) < 3 for stroke in strokes):
            raise SourceError(f"pace: drawing {key} has no times; set `pace: ink`")
        film = playing.drawn(strokes, frames=frames, size=size, pen=pen, pace=pace)
        relative = _write(folder, label, key, film[..., None], FILM)
        entries.append(_entry(folder, relative, label, key=key, group=key))
    _finish(folder, "animated_sketches", about["licence"], entries, drawings=about)


def order(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    drawings: Drawings,
    frames: Frames,
    size: Size,
    pen: Pen,
) -> None:
    """Each drawing once in each of the orders of ``playing.ORDERS``, which are the classes.

    Only the order of the frames tells them apart (``playing.played``): a model that ignores time
    is right once in five. All videos of a drawing are one group. Arguments, and the rest, are as
    for `animated_sketches`.
    """
    entries = []
    about, found = _drawings(scratch, seed, drawings)
    for _, key, strokes in found:
        film = playing.drawn(strokes, frames=frames, size=size, pen=pen, pace="ink")
        for label in ORDERS:
            chance = blake2b(f"{seed}/{key}/{label}".encode(), digest_size=8).digest()
            still, start = np.random.default_rng(list(chance)).integers(frames, size=2)
            clip = playing.played(film, label, int(still), int(start))
            relative = _write(folder, label, key, clip[..., None], FILM)
            entries.append(_entry(folder, relative, label, key=f"{key}/{label}", group=key))
    _finish(folder, "order", about["licence"], entries, drawings=about)


def _drawings(
    scratch: Path, seed: int, block: dict[str, Any]
) -> tuple[dict[str, Any], Iterator[tuple[str, str, Strokes]]]:
    """What there is to be told of a source of drawings; and category, key and strokes of each."""
    name = params.entry(block, "source")
    fetch = params.bind(params.function(sketches, name), params.entry(block, name))
    aside = scratch / "drawings"
    store.remove(aside)
    aside.mkdir()
    fetch(aside, scratch, seed)
    told = store.read_json(aside / "manifest.json")
    if told["format"] != "ndjson":
        raise SourceError(f"drawings: {name} gives {told['format']}, which cannot be played back")
    about = {"source": name, "licence": told["licence"], "malformed": 0}

    def found() -> Iterator[tuple[str, str, Strokes]]:
        for file in tqdm(told["files"], "playing", unit="file", disable=None):
            with (aside / file["path"]).open("rb") as lines:
                for line in filter(bytes.strip, lines):
                    try:
                        drawing = _drawing(line, file["category"])
                    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                        about["malformed"] += 1
                        continue
                    yield drawing
        store.remove(aside)

    return about, found()


def _drawing(line: bytes, category: str | None) -> tuple[str, str, Strokes]:
    """Category, key and strokes of a drawing in QuickDraw's schema, or any of four errors."""
    told = orjson.loads(line)
    strokes = [np.array(stroke, np.float64) for stroke in told["drawing"]]
    if not strokes or any(s.ndim != 2 or len(s) < 2 or not s.size for s in strokes):
        raise ValueError("no strokes")
    return category or told["word"], str(told["key_id"]), strokes


def _images(path: Path) -> list[Path]:
    """The images in a folder; none where it is no folder of such."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)


def _listed(path: Path) -> set[str]:
    """The videos that a list names; UCF101's train lists have a number behind each."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise SourceError(f"test: {path}: no such file") from None
    return {re.sub(r"\s+\d+$", "", line.strip()) for line in lines if line.strip()}


def _write(folder: Path, label: str, name: str, film: NDArray[np.uint8], rate: int) -> Path:
    """Write a film (frame, height, width, channel) without loss; its path in the folder.

    Grey ones become GIFs, which any browser shows; colours, FFV1.
    """
    import av

    grey = film.shape[3] == 1
    ending, codec, pixels = (".gif", "gif", "gray") if grey else (".mkv", "ffv1", "bgr0")
    path = inside(inside(folder, label), f"{name}{ending}")
    path.parent.mkdir(exist_ok=True)
    bitexact = {"fflags": "+bitexact"}  # no version and no random id in the file
    with av.open(str(path), "w", container_options=bitexact) as container:
        stream = container.add_stream(codec, rate, options={"flags": "+bitexact"})
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for picture in film:
            frame = av.VideoFrame.from_ndarray(
                picture[..., 0] if grey else picture, "gray" if grey else "rgb24"
            )
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return path.relative_to(folder)


def _entry(
    folder: Path,
    relative: Path,
    label: str,
    *,
    key: str | None = None,
    group: str | None = None,
    split: str | None = None,
) -> Entry:
    """What the manifest tells of a video; its path is its key unless it has another."""
    path = folder / relative
    if path.is_dir():
        parts = [p.read_bytes() for p in _images(path)]
        size, digest = sum(map(len, parts)), sha256(b"".join(parts)).hexdigest()
    else:
        with path.open("rb") as file:
            size, digest = path.stat().st_size, file_digest(file, "sha256").hexdigest()
    return {
        "path": relative.as_posix(),
        "class": label,
        "key": relative.as_posix() if key is None else key,
        "group": group,
        "split": split,
        "bytes": size,
        "sha256": digest,
    }


def _finish(
    folder: Path, source: str, licence: str | None, entries: Iterable[Entry], **more: Any
) -> None:
    videos = list(entries)
    if not videos:
        raise SourceError(f"{more.get('dataset', source)}: holds no videos")
    if twice := [key for key, n in Counter(e["key"] for e in videos).items() if n > 1]:
        raise SourceError(f"videos of the same key: {', '.join(twice[:3])}")
    about = {"source": source, "licence": licence, **more}
    classes = sorted({entry["class"] for entry in videos})
    store.write_json(folder / "manifest.json", {**about, "classes": classes, "videos": videos})
