"""The embedded sources: drawings of ostinato/sketches, rendered as videos."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from ostinato import params, store
from ostinato.errors import MalformedError, SourceError
from ostinato.progress import track
from ostinato.sketches import sources as sketches
from ostinato.sketches.formats.quickdraw import Drawing, read_folder
from ostinato.sketches.formats.raw import RawManifest
from ostinato.task import Json
from ostinato.video.formats.raw import RawReject
from ostinato.video.sources.encoding import write_video
from ostinato.video.sources.manifest import describe_video, write_manifest
from ostinato.video.sources.rendering import ORDERS, Pace, play, render

LOG = logging.getLogger(__name__)

FRAME_RATE = 10  # frames/s of the files

PenWidth = Annotated[float, Field(gt=0, le=64)]
"""Width of the pen, in pixels."""
Size = Annotated[int, Field(ge=4, le=1024)]
"""Height and width of a frame, in pixels."""
Frames = Annotated[int, Field(ge=2, le=1024)]
"""Number of frames of a rendered video."""


def _checked(block: dict[str, Any]) -> dict[str, Any]:
    if problems := params.fetch_problems(sketches, block):
        raise ValueError("; ".join(f"{problem.key}: {problem.message}" for problem in problems))
    return block


Drawings = Annotated[dict[str, Any], AfterValidator(_checked)]
"""A fetch block of ostinato/sketches/sources."""


@dataclass
class Origin:
    """Where the drawings come from, as the manifest records it.

    Args:
        source: a function of ostinato/sketches/sources.
        licence: of the drawings.
        rejects: the lines that hold no drawing, with reasons; found while the drawings are read.
    """

    source: str
    licence: str | None
    rejects: list[RawReject] = field(default_factory=list)

    def reject(self, file: str, line: int, reason: str) -> None:
        """Record a line that holds no drawing."""
        self.rejects.append(RawReject(f"{file}:{line}", "unreadable", reason))

    def details(self) -> dict[str, Json]:
        """The entries of the manifest of the videos."""
        malformed = len(self.rejects)
        return {
            "drawings": {"source": self.source, "licence": self.licence, "malformed": malformed}
        }


def animated_sketches(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    drawings: Drawings,
    frames: Frames,
    size: Size,
    pen: PenWidth,
    pace: Pace,
) -> None:
    """Render drawings stroke by stroke, as they were drawn; the class is the drawing's category.

    A drawing keeps its key, which is the same in a data set of strokes.

    Args:
        folder: receives ``<category>/<key>.gif`` and the manifest.
        scratch: of the source of the drawings.
        seed: of the source of the drawings.
        drawings: a fetch block of ostinato/sketches/sources: ``source``, and its parameters under
            its name. It must provide strokes; ``doodles`` is embedded.
        frames: of a video; the last one shows the whole drawing.
        size: height and width, in pixels.
        pen: width of the pen, in pixels.
        pace: "ink": the drawing grows by equal lengths of its line; "time": as it was drawn.

    Raises:
        SourceError: the source has no strokes, or no times although the pace is "time".
    """
    entries = []
    origin, found = _read_drawings(scratch, seed, drawings)
    for file, line, label, drawing in found:
        key, strokes = drawing.key, [stroke.T for stroke in drawing.strokes]
        if pace == "time":
            if any(len(stroke) < 3 for stroke in strokes):
                raise SourceError(
                    f"pace: {file}:{line}: drawing {key} has no times; set `pace: ink`"
                )
            if np.any(np.diff(np.concatenate([stroke[2] for stroke in strokes])) < 0):
                origin.reject(file, line, "its times go back; set `pace: ink`")
                continue
        film = render(strokes, frames=frames, size=size, pen=pen, pace=pace)
        path = write_video(folder, label, key, film[..., None], FRAME_RATE)
        entries.append(describe_video(folder, path, label, key=key, group=key))
    write_manifest(
        folder, "animated_sketches", origin.licence, entries, origin.details(), origin.rejects
    )


def order(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    drawings: Drawings,
    frames: Frames,
    size: Size,
    pen: PenWidth,
) -> None:
    """Render each drawing once in each order of ``rendering.ORDERS``; the class is the order.

    Only the order of the frames distinguishes the classes (`rendering.play`), so a model that
    ignores time has an accuracy of 1/5. All videos of a drawing are one group.

    Args:
        folder: receives ``<order>/<key>.gif`` and the manifest.
        scratch: of the source of the drawings.
        seed: of the source of the drawings, and of the random positions and starts.
        drawings: as for `animated_sketches`.
        frames: of a video.
        size: height and width, in pixels.
        pen: width of the pen, in pixels.

    Raises:
        SourceError: the source has no strokes.
    """
    entries = []
    origin, found = _read_drawings(scratch, seed, drawings)
    for *_, drawing in found:
        key, strokes = drawing.key, [stroke.T for stroke in drawing.strokes]
        film = render(strokes, frames=frames, size=size, pen=pen, pace="ink")
        for label in ORDERS:
            digest = blake2b(f"{seed}/{key}/{label}".encode(), digest_size=8).digest()
            constant, start = np.random.default_rng(list(digest)).integers(frames, size=2)
            clip = play(film, label, int(constant), int(start))
            path = write_video(folder, label, key, clip[..., None], FRAME_RATE)
            entries.append(describe_video(folder, path, label, key=f"{key}/{label}", group=key))
    write_manifest(folder, "order", origin.licence, entries, origin.details(), origin.rejects)


def _read_drawings(
    scratch: Path, seed: int, block: Mapping[str, Any]
) -> tuple[Origin, Iterator[tuple[str, int, str, Drawing]]]:
    """Fetch drawings into the scratch folder and iterate over them; removes them at the end.

    The iterator yields file, line, category and drawing, by the rules of a data set of strokes: of
    identical drawings of a category, the first.

    Args:
        scratch: of the source of the drawings.
        seed: of that source.
        block: a fetch block of ostinato/sketches/sources.

    Raises:
        SourceError: the source provides no strokes.
    """
    source = params.entry(block, "source")
    fetch = params.bind(params.function(sketches, source), params.entry(block, source))
    folder = scratch / "drawings"
    store.remove(folder)
    folder.mkdir()
    fetch(folder, scratch, seed)
    manifest = RawManifest.read(folder)
    if manifest.format != "ndjson":
        raise SourceError(
            f"drawings: {source} provides {manifest.format}, which has no strokes to render; "
            "use a source of ndjson, such as doodles"
        )
    origin = Origin(source, manifest.licence)

    def found() -> Iterator[tuple[str, int, str, Drawing]]:
        places: dict[str, str] = {}  # by key
        copies: set[bytes] = set()  # digests of category and strokes
        missing = set(manifest.categories)
        read = 0
        drawings = track(read_folder(folder, manifest), "rendering", unit="drawings")
        for file, line, category, drawing in drawings:
            if isinstance(drawing, MalformedError):
                origin.reject(file, line, str(drawing))
                continue
            read += 1
            ink = [stroke[:, :2].tobytes() for stroke in drawing.strokes]
            content = blake2b(b"".join([category.encode(), *(blake2b(i).digest() for i in ink)]))
            if content.digest() in copies:
                continue
            copies.add(content.digest())
            place = f"{file}:{line}"
            if (first := places.setdefault(drawing.key, place)) != place:
                raise SourceError(
                    f"drawings: {first} and {place} have the same key_id {drawing.key!r}; expected "
                    "another for each drawing of all files, such as the file's name and a number"
                )
            missing.discard(category)
            yield file, line, category, drawing
        if missing or not places:
            lost = ", ".join(map(repr, sorted(missing))) or "any category"
            reasons = [f"\n  {reject.path}: {reject.found}" for reject in origin.rejects[:3]]
            raise SourceError(
                f"drawings: no drawing is left of {lost}; {len(origin.rejects)} lines are malformed"
                f", all others have no ink{''.join(reasons)}"
            )
        if read > len(places):
            LOG.info("%d copies of drawings of the same category are left out", read - len(places))
        store.remove(folder)

    return origin, found()
