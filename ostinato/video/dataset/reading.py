"""One video to clips: which frames are wanted, and these decoded, cut to shape and checked.

What a file says of itself is read before any picture is decoded: pictures larger than allowed are
refused by their header, and by the decoder again, should the header lie. Files are opened as
videos or images alone, never as a playlist that could name other files.
"""

import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction as Exact
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ostinato.errors import RejectedVideoError

if TYPE_CHECKING:
    import av

FORMATS = (
    "asf,avi,flv,gif,matroska,webm,mov,mp4,mpeg,mpegts,ogg,"
    "bmp_pipe,gif_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
IMAGE_RATE = 25  # numbered images a second, as they do not tell
CUT = 0.75  # a video that is over before this share of the time that its header tells is cut off
LONGEST = 1e6  # s; a video that claims more has false times
PADDING = 1 << 16  # pixels that a decoder may add to the smallest picture
WITHIN = 1e-6  # s; times are the same within this
UPRIGHT = (1, 0, 0, 0, 1)  # how a picture is turned that is not

Pixels = Annotated[int, Field(ge=1, le=4096)]
"""Height or width of a picture."""
Frames = Annotated[int, Field(ge=1, le=4096)]
"""Frames of a clip."""
PerSecond = Annotated[float, Field(gt=0, le=1000)]
"""Frames a second."""
Choice = Literal["uniform", "random", "centred"]
Colour = Literal["grey", "rgb"]

REASONS = ("unreadable", "too large", "no frames", "changes size", "truncated", "corrupt")


class Sampling(NamedTuple):
    """Which frames become a clip, and their shape.

    Attributes:
        frames: of a clip, at most; all of a shorter video.
        rate: frames a second to choose from, at each instant the picture that is shown then; or
            None: the video's own, whatever their distances in time.
        sample: "uniform": spread evenly over the whole; "centred" or "random": one after the
            other, in the middle or from anywhere.
        clips: into which the video is cut, equal in time, each sampled by itself.
        height: of a frame, in pixels: pictures are scaled, and what does not fit the shape is cut
            off on both sides.
        width: of a frame.
        colour: "grey" has one channel, "rgb" three.
        largest: pixels of a picture; a larger one is refused before it is decoded.
    """

    frames: Frames
    rate: PerSecond | None
    sample: Choice
    clips: int
    height: Pixels
    width: Pixels
    colour: Colour
    largest: int


class Clip(NamedTuple):
    """A clip and the time from its first frame to its last."""

    pixels: NDArray[np.uint8]  # (frame, height, width, channel)
    seconds: float


def read(video: Path | bytes, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    """The clips of a video file, of its bytes, or of a folder of numbered images.

    Args:
        video: where it is, or what is in it.
        sampling: which frames.
        rng: chooses those of ``sample: random``.

    Raises:
        Rejected: with the reason.
    """
    import av

    try:
        if isinstance(video, Path) and video.is_dir():
            return _from_images(video, sampling, rng)
        return _from_video(video, sampling, rng)
    except av.ArgumentError:  # what a decoder says to a size beyond max_pixels
        found = f"a picture of more than {sampling.largest} pixels, or of an impossible size"
        raise RejectedVideoError("too large", found) from None
    except av.FFmpegError as error:
        raise RejectedVideoError("corrupt", error.strerror or type(error).__name__) from None


def wanted(
    times: NDArray[np.float64], sampling: Sampling, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """When the frames of each clip are shown, in seconds, out of a video's ``times`` (frame,)."""
    rate = sampling.rate
    count = len(times) if rate is None else int((times[-1] - times[0] + WITHIN) * rate) + 1
    chosen = []
    for part in range(sampling.clips):
        first, end = count * part // sampling.clips, count * (part + 1) // sampling.clips
        spare = end - first - sampling.frames
        index = first + np.arange(min(end - first, sampling.frames))
        if spare > 0 and sampling.sample == "uniform":
            middles = (np.arange(sampling.frames) + 0.5) / sampling.frames
            index = first + (middles * (end - first)).astype(np.int64)
        elif spare > 0:
            index += spare // 2 if sampling.sample == "centred" else rng.integers(spare + 1)
        if len(index):
            chosen.append(times[index] if rate is None else times[0] + index / rate)
    return chosen


def _from_video(video: Path | bytes, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    with _opened(video, sampling.largest) as container:
        stream = container.streams.video[0]
        times = _times(container, stream)
        container.seek(0)
        parts = wanted(times, sampling, rng)
        pictures = list(_shown(container, stream, times, np.concatenate(parts), _Shape(sampling)))
    return _cut(np.stack(pictures), parts)


def _from_images(folder: Path, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES]
    if not paths:
        raise RejectedVideoError("no frames", "the folder holds no images")
    paths.sort(key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))
    times = np.arange(len(paths)) / IMAGE_RATE
    parts = wanted(times, sampling, rng)
    shape, found = _Shape(sampling), []
    for at in np.searchsorted(times, np.concatenate(parts) + WITHIN, side="right") - 1:
        with _opened(paths[at].read_bytes(), sampling.largest) as container:
            found.append(shape(next(container.decode(video=0))))
    return _cut(np.stack(found), parts)


def _cut(pictures: NDArray[np.uint8], parts: Sequence[NDArray[np.float64]]) -> list[Clip]:
    """The pictures of all clips, one after the other, as clips."""
    pieces = np.split(pictures, np.cumsum([len(part) for part in parts])[:-1])
    spans = [float(part[-1] - part[0]) for part in parts]
    return [Clip(pixels, span) for pixels, span in zip(pieces, spans, strict=True)]


def _opened(video: Path | bytes, largest: int) -> "av.container.InputContainer":
    """A file as ffmpeg reads it, its header checked."""
    import av

    source: Any = io.BytesIO(video) if isinstance(video, bytes) else str(video.resolve())
    # Twice, as decoders pad pictures; what they then give is checked once more.
    limit = {"max_pixels": str(2 * largest + PADDING)}
    try:
        container = av.open(
            source,
            options=limit,
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except av.FFmpegError as error:
        raise RejectedVideoError("unreadable", error.strerror or type(error).__name__) from None
    try:
        if not container.streams.video:
            raise RejectedVideoError("no frames", "the file holds no video")
        coder = container.streams.video[0].codec_context
        if coder is None:
            raise RejectedVideoError("unreadable", "no decoder for its video")
        if coder.width * coder.height > largest:
            raise RejectedVideoError(
                "too large", f"{coder.width}x{coder.height}, more than {largest} pixels"
            )
        coder.options = limit
        coder.thread_count = 1
    except RejectedVideoError:
        container.close()
        raise
    return container


def _times(container: Any, stream: Any) -> NDArray[np.float64]:
    """When each frame is shown, in seconds, ascending, by the container and without decoding."""
    found = [
        (packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size
    ]
    if not found:
        raise RejectedVideoError("no frames", "the video is empty")
    if any(at is None for at, _ in found):  # the container tells no times
        return np.arange(len(found)) / float(stream.average_rate or IMAGE_RATE)
    packets = np.array(found, np.int64)
    times = np.sort(packets[:, 0]) * float(stream.time_base)
    over = packets.sum(axis=1).max() * float(stream.time_base) - times[0]
    told = (container.duration or 0) / 1e6
    if over > LONGEST:
        raise RejectedVideoError("corrupt", f"it claims to last {over:.0f} seconds")
    if over < CUT * told:
        raise RejectedVideoError("truncated", f"{over:.1f} of {told:.1f} seconds are there")
    return np.asarray(times)


def _shown(
    container: Any,
    stream: Any,
    times: NDArray[np.float64],
    instants: NDArray[np.float64],
    shape: "_Shape",
) -> Iterator[NDArray[np.uint8]]:
    """The picture that is shown at each of the instants, which ascend; decodes no further."""
    needed = set(times[np.searchsorted(times, instants + WITHIN, side="right") - 1].tolist())
    before: Any = None
    at = number = 0
    for packet in container.demux(stream):
        if packet.pts is not None:  # what is not shown, and not referred to, is not decoded
            here = packet.pts * float(stream.time_base) in needed
            stream.codec_context.skip_frame = "DEFAULT" if here else "NONREF"
        for frame in packet.decode():
            shape.check(frame)
            time = times[min(number, len(times) - 1)] if frame.pts is None else frame.time
            while before is not None and at < len(instants) and instants[at] < time - WITHIN:
                yield shape(before)
                at += 1
            if at == len(instants):
                return
            before, number = frame, number + 1
    if before is None:
        raise RejectedVideoError("no frames", "no frame can be decoded")
    for _ in range(at, len(instants)):
        yield shape(before)


class _Shape:
    """Frames in the shape of a clip's; all must have the size of the first."""

    def __init__(self, sampling: Sampling) -> None:
        from av.video.reformatter import VideoReformatter

        self.height, self.width, self.largest = sampling.height, sampling.width, sampling.largest
        self.format = {"grey": "gray", "rgb": "rgb24"}[sampling.colour]
        self.size: tuple[int, int] | None = None
        self.scaler = VideoReformatter()

    def check(self, frame: Any) -> None:
        if frame.is_corrupt:
            raise RejectedVideoError("corrupt", "a frame is damaged")
        size = frame.width, frame.height
        if frame.width * frame.height > self.largest:
            raise RejectedVideoError("too large", f"{size}, more than {self.largest} pixels")
        if self.size not in (None, size):
            raise RejectedVideoError("changes size", f"from {self.size} to {size}")
        self.size = size

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """The middle of a frame, uint8 (height, width, channel), turned as the file tells."""
        self.check(frame)
        told = frame.side_data.get("DISPLAYMATRIX")  # of a camera that was held on its side
        matrix = np.frombuffer(told, np.int32).tolist() if told else UPRIGHT
        # A pixel's x and y become across * x + aside * y and down * x + along * y.
        across, down, _, aside, along = matrix[:5]
        lying = abs(down) > abs(across)
        high, wide = (self.width, self.height) if lying else (self.height, self.width)
        scale = max(Exact(high, frame.height), Exact(wide, frame.width))
        height, width = round(frame.height * scale), round(frame.width * scale)
        scaled = self.scaler.reformat(
            frame, width, height, self.format, interpolation="AREA", threads=1
        )
        pixels = scaled.to_ndarray()
        top, left = (height - high) // 2, (width - wide) // 2
        cut = pixels[top : top + high, left : left + wide].reshape(high, wide, -1)
        if lying:
            cut, across, along = cut.transpose(1, 0, 2), aside, down
        return np.asarray(cut[:: -1 if along < 0 else 1, :: -1 if across < 0 else 1])
