"""Read one video into clips: choose the frames, decode them, scale and crop them, check them.

The header is read before any frame is decoded, so a video with too large frames is rejected by its
header; the decoder checks each frame again, because a header may be wrong. A file is opened as a
video or an image only, never as a playlist, which could name other files.
"""

import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction as Exact
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from pydantic import Field

from ostinato.errors import RejectedVideoError

FORMATS = (
    "asf,avi,flv,gif,matroska,webm,mov,mp4,mpeg,mpegts,ogg,"
    "bmp_pipe,gif_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
DEFAULT_FRAME_RATE = 25  # frames/s of numbered images and of containers without timestamps
MIN_DURATION_FRACTION = (
    0.75  # a video shorter than this share of its header's duration is truncated
)
MAX_DURATION = 1e6  # s; a longer duration means wrong timestamps
DECODER_PADDING = 1 << 16  # pixels that a decoder may add to the smallest frame
TIME_TOLERANCE = 1e-6  # s; timestamps that differ by less are equal
IDENTITY = (1, 0, 0, 0, 1)  # the display matrix of a frame that is not rotated

Pixels = Annotated[int, Field(ge=1, le=4096)]
"""Height or width of a frame, in pixels."""
Frames = Annotated[int, Field(ge=1, le=4096)]
"""Number of frames of a clip."""
FrameRate = Annotated[float, Field(gt=0, le=1000)]
"""Frames per second."""
FrameSampling = Literal["uniform", "random", "centred"]
"""How the frames of a clip are chosen: see `Sampling`."""
Colour = Literal["grey", "rgb"]
"""The channels of a clip: 1 or 3."""

REJECT_REASONS = ("unreadable", "too large", "no frames", "changes size", "truncated", "corrupt")


class Sampling(NamedTuple):
    """How a video is cut into clips.

    Attributes:
        frames: maximum number of frames of a clip; a shorter video keeps all of its frames.
        frame_rate: frames per second that the video is resampled to (at each instant, the frame
            on display); None keeps the video's own frames, whatever their timestamps.
        frame_sampling: "uniform" spreads the frames evenly over the segment; "centred" and
            "random" take consecutive frames, from the middle or from a random start.
        clips: number of segments of equal duration, each sampled to one clip.
        height: of a frame, in pixels. A frame is scaled to cover height and width, then cropped to
            its centre.
        width: of a frame, in pixels.
        colour: "grey" (1 channel) or "rgb" (3 channels).
        max_pixels: maximum number of pixels of a frame; a video with larger frames is rejected
            before it is decoded.
    """

    frames: Frames
    frame_rate: FrameRate | None
    frame_sampling: FrameSampling
    clips: int
    height: Pixels
    width: Pixels
    colour: Colour
    max_pixels: int

    @property
    def channels(self) -> int:
        """The number of channels of a frame."""
        return 1 if self.colour == "grey" else 3


class Clip(NamedTuple):
    """Decoded frames.

    Attributes:
        pixels: the frames.
        seconds: from the first frame to the last.
    """

    pixels: UInt8[np.ndarray, "frame height width channel"]
    seconds: float


def read(video: Path | bytes, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    """Read the clips of a video.

    Args:
        video: path of a video file or of a folder of numbered images, or the content of a file.
        sampling: which frames are read, and their shape.
        rng: draws the starts of ``frame_sampling: random``.

    Raises:
        RejectedVideoError: the video cannot be used; has the reason.
    """
    import av

    try:
        if isinstance(video, Path) and video.is_dir():
            return _read_images(video, sampling, rng)
        return _read_video(video, sampling, rng)
    except av.ArgumentError:  # raised by decoders for a size beyond the option max_pixels
        detail = f"a frame of more than {sampling.max_pixels} pixels, or of an impossible size"
        raise RejectedVideoError("too large", detail) from None
    except av.FFmpegError as error:
        raise RejectedVideoError("corrupt", error.strerror or type(error).__name__) from None


def sample_times(
    times: Float64[np.ndarray, " frame"], sampling: Sampling, rng: np.random.Generator
) -> list[Float64[np.ndarray, " sample"]]:
    """The instants at which the frames of each clip are on display, in seconds.

    Args:
        times: timestamps of the video's frames, ascending, in seconds.
        sampling: how they are chosen.
        rng: draws the starts of ``frame_sampling: random``.
    """
    rate = sampling.frame_rate
    count = len(times)
    if rate is not None:
        count = int((times[-1] - times[0] + TIME_TOLERANCE) * rate) + 1
    clips = []
    for number in range(sampling.clips):
        first = count * number // sampling.clips
        end = count * (number + 1) // sampling.clips
        spare = end - first - sampling.frames
        index = first + np.arange(min(end - first, sampling.frames))
        if spare > 0 and sampling.frame_sampling == "uniform":
            centres = (np.arange(sampling.frames) + 0.5) / sampling.frames
            index = first + (centres * (end - first)).astype(np.int64)
        elif spare > 0:
            centred = sampling.frame_sampling == "centred"
            index += spare // 2 if centred else rng.integers(spare + 1)
        if len(index):
            clips.append(times[index] if rate is None else times[0] + index / rate)
    return clips


def _read_video(video: Path | bytes, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    with _open(video, sampling.max_pixels) as container:
        stream = container.streams.video[0]
        times = _timestamps(container, stream)
        container.seek(0)
        clips = sample_times(times, sampling, rng)
        convert = _FrameConverter(sampling)
        frames = list(_displayed(container, stream, times, np.concatenate(clips), convert))
    return _split(np.stack(frames), clips)


def _read_images(folder: Path, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise RejectedVideoError("no frames", "the folder holds no images")
    paths.sort(key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))
    times = np.arange(len(paths)) / DEFAULT_FRAME_RATE
    clips = sample_times(times, sampling, rng)
    convert, frames = _FrameConverter(sampling), []
    instants = np.concatenate(clips) + TIME_TOLERANCE
    for index in np.searchsorted(times, instants, side="right") - 1:
        with _open(paths[index].read_bytes(), sampling.max_pixels) as container:
            frames.append(convert(next(container.decode(video=0))))
    return _split(np.stack(frames), clips)


def _split(
    frames: UInt8[np.ndarray, "frame height width channel"],
    times: Sequence[Float64[np.ndarray, " sample"]],
) -> list[Clip]:
    """Split the concatenated frames of all clips by the timestamps of each clip."""
    parts = np.split(frames, np.cumsum([len(clip) for clip in times])[:-1])
    return [
        Clip(pixels, float(clip[-1] - clip[0])) for pixels, clip in zip(parts, times, strict=True)
    ]


def _open(video: Path | bytes, max_pixels: int) -> Any:
    """Open a file with FFmpeg (av.container.InputContainer) and check its header."""
    import av

    source: Any = io.BytesIO(video) if isinstance(video, bytes) else str(video.resolve())
    # Decoders pad frames, so their limit is twice as high; `_FrameConverter` checks each frame.
    limit = {"max_pixels": str(2 * max_pixels + DECODER_PADDING)}
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
            raise RejectedVideoError("no frames", "the file has no video stream")
        codec = container.streams.video[0].codec_context
        if codec is None:
            raise RejectedVideoError("unreadable", "FFmpeg has no decoder for the video stream")
        if codec.width * codec.height > max_pixels:
            raise RejectedVideoError(
                "too large", f"{codec.width}x{codec.height}, more than {max_pixels} pixels"
            )
        codec.options = limit
        codec.thread_count = 1
    except RejectedVideoError:
        container.close()
        raise
    return container


def _timestamps(container: Any, stream: Any) -> Float64[np.ndarray, " frame"]:
    """Timestamps of the frames, ascending, in seconds, read from the container without decoding."""
    packets = [
        (packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size
    ]
    if not packets:
        raise RejectedVideoError("no frames", "the video stream is empty")
    if any(start is None for start, _ in packets):  # the container has no timestamps
        return np.arange(len(packets)) / float(stream.average_rate or DEFAULT_FRAME_RATE)
    table = np.array(packets, np.int64)
    times = np.sort(table[:, 0]) * float(stream.time_base)
    duration = table.sum(axis=1).max() * float(stream.time_base) - times[0]
    declared = (container.duration or 0) / 1e6
    if duration > MAX_DURATION:
        raise RejectedVideoError("corrupt", f"the timestamps span {duration:.0f} seconds")
    if duration < MIN_DURATION_FRACTION * declared:
        detail = f"{duration:.1f} of {declared:.1f} seconds are in the file"
        raise RejectedVideoError("truncated", detail)
    return np.asarray(times)


def _displayed(
    container: Any,
    stream: Any,
    times: Float64[np.ndarray, " frame"],
    instants: Float64[np.ndarray, " instant"],
    convert: "_FrameConverter",
) -> Iterator[UInt8[np.ndarray, "height width channel"]]:
    """The frame on display at each instant; decoding stops after the last one.

    Args:
        container: opened by `_open`.
        stream: of the video.
        times: timestamps of all frames, ascending, in seconds.
        instants: ascending, in seconds.
        convert: scales and crops a frame.
    """
    displayed = np.searchsorted(times, instants + TIME_TOLERANCE, side="right") - 1
    needed = set(times[displayed].tolist())
    previous: Any = None
    done = decoded = 0
    for packet in container.demux(stream):
        if packet.pts is not None:  # skip frames that are neither needed nor referenced
            start = packet.pts * float(stream.time_base)
            stream.codec_context.skip_frame = "DEFAULT" if start in needed else "NONREF"
        for frame in packet.decode():
            convert.check(frame)
            time = times[min(decoded, len(times) - 1)] if frame.pts is None else frame.time
            while (
                previous is not None
                and done < len(instants)
                and instants[done] < time - TIME_TOLERANCE
            ):
                yield convert(previous)
                done += 1
            if done == len(instants):
                return
            previous, decoded = frame, decoded + 1
    if previous is None:
        raise RejectedVideoError("no frames", "no frame can be decoded")
    for _ in range(done, len(instants)):
        yield convert(previous)


class _FrameConverter:
    """Scale, crop and rotate frames to the shape of a clip; all frames must have one size."""

    def __init__(self, sampling: Sampling) -> None:
        from av.video.reformatter import VideoReformatter

        self.height, self.width = sampling.height, sampling.width
        self.max_pixels = sampling.max_pixels
        self.format = {"grey": "gray", "rgb": "rgb24"}[sampling.colour]
        self.size: tuple[int, int] | None = None
        self.scaler = VideoReformatter()

    def check(self, frame: Any) -> None:
        if frame.is_corrupt:
            raise RejectedVideoError("corrupt", "a frame is damaged")
        size = frame.width, frame.height
        if frame.width * frame.height > self.max_pixels:
            raise RejectedVideoError("too large", f"{size}, more than {self.max_pixels} pixels")
        if self.size not in (None, size):
            raise RejectedVideoError("changes size", f"from {self.size} to {size}")
        self.size = size

    def __call__(self, frame: Any) -> UInt8[np.ndarray, "height width channel"]:
        """Crop a frame to its centre and apply the display matrix of the file."""
        self.check(frame)
        side_data = frame.side_data.get("DISPLAYMATRIX")  # set by cameras held sideways
        matrix = np.frombuffer(side_data, np.int32).tolist() if side_data else IDENTITY
        # A pixel at (x, y) moves to (xx * x + xy * y, yx * x + yy * y).
        xx, yx, _, xy, yy = matrix[:5]
        transposed = abs(yx) > abs(xx)
        rows, columns = (self.width, self.height) if transposed else (self.height, self.width)
        scale = max(Exact(rows, frame.height), Exact(columns, frame.width))
        height, width = round(frame.height * scale), round(frame.width * scale)
        scaled = self.scaler.reformat(
            frame, width, height, self.format, interpolation="AREA", threads=1
        )
        pixels = scaled.to_ndarray()
        top, left = (height - rows) // 2, (width - columns) // 2
        cropped = pixels[top : top + rows, left : left + columns].reshape(rows, columns, -1)
        if transposed:
            cropped, xx, yy = cropped.transpose(1, 0, 2), xy, yx
        return np.asarray(cropped[:: -1 if yy < 0 else 1, :: -1 if xx < 0 else 1])
