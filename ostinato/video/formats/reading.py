"""Read one video into clips: choose the frames, decode them, scale and crop them, check them.

A video is a file (`container`) or a folder of numbered images (`images`); its frames become those
of a clip in `frames`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from pydantic import Field

from ostinato.errors import RejectedVideoError
from ostinato.video.formats.container import (
    DEFAULT_FRAME_RATE,
    frame_times,
    open_container,
    open_decoder,
    video_stream,
)
from ostinato.video.formats.frames import FrameConverter
from ostinato.video.formats.images import images_in, series_of

TIME_TOLERANCE = 1e-6  # s; timestamps that differ by less are equal

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
    except (RejectedVideoError, MemoryError):
        raise
    except OSError as error:
        raise RejectedVideoError("unreadable", error.strerror or str(error)) from None
    except Exception as error:  # what a decoder raises concerns one video, not the data set
        raise RejectedVideoError("corrupt", f"{type(error).__name__}: {error}") from error


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
    with open_container(video, sampling.max_pixels) as container:
        stream = video_stream(container)
        times = frame_times(container, stream)
        container.seek(0)
        clips = sample_times(times, sampling, rng)
        is_picture = container.format.name in ("apng", "gif")  # viewers show square pixels
        convert = _converter(sampling, None if is_picture else stream.sample_aspect_ratio)
        decoder = open_decoder(stream, sampling.max_pixels)
        instants = np.concatenate(clips)
        frames = list(_displayed(container, stream, decoder, times, instants, convert))
    convert.finish()
    return _split(np.stack(frames), clips)


def _read_images(folder: Path, sampling: Sampling, rng: np.random.Generator) -> list[Clip]:
    paths = series_of(images_in(folder))
    times = np.arange(len(paths)) / DEFAULT_FRAME_RATE
    clips = sample_times(times, sampling, rng)
    convert, frames = _converter(sampling), []
    instants = np.concatenate(clips) + TIME_TOLERANCE
    for index in np.searchsorted(times, instants, side="right") - 1:
        with open_container(paths[index].read_bytes(), sampling.max_pixels) as container:
            frames.append(convert(next(container.decode(video=0))))
    convert.finish()
    return _split(np.stack(frames), clips)


def _converter(sampling: Sampling, aspect: Any = None) -> FrameConverter:
    height, width, channels = sampling.height, sampling.width, sampling.channels
    return FrameConverter(height, width, channels, sampling.max_pixels, aspect)


def _split(
    frames: UInt8[np.ndarray, "frame height width channel"],
    times: Sequence[Float64[np.ndarray, " sample"]],
) -> list[Clip]:
    """Split the concatenated frames of all clips by the timestamps of each clip."""
    parts = np.split(frames, np.cumsum([len(clip) for clip in times])[:-1])
    return [
        Clip(pixels, float(clip[-1] - clip[0])) for pixels, clip in zip(parts, times, strict=True)
    ]


def _displayed(
    container: Any,
    stream: Any,
    decoder: Any,
    times: Float64[np.ndarray, " frame"],
    instants: Float64[np.ndarray, " instant"],
    convert: FrameConverter,
) -> Iterator[UInt8[np.ndarray, "height width channel"]]:
    """The frame on display at each instant; decoding stops after the last one.

    Args:
        container: opened by `open_container`.
        stream: of the video.
        decoder: of the stream.
        times: timestamps of all frames, ascending, in seconds.
        instants: ascending, in seconds.
        convert: scales and crops a frame.
    """
    displayed = np.searchsorted(times, instants + TIME_TOLERANCE, side="right") - 1
    needed = set(times[displayed].tolist())
    # FFmpeg's own decoders can skip frames that are neither needed nor referenced. The others, such
    # as libdav1d of AV1, read the option only when they are opened.
    can_skip = not decoder.codec.name.startswith("lib")
    previous: Any = None
    done = decoded = 0
    for packet in container.demux(stream):
        if can_skip and packet.pts is not None:
            start = packet.pts * float(stream.time_base)
            decoder.skip_frame = "DEFAULT" if start in needed else "NONREF"
        for frame in decoder.decode(packet):
            convert.check(frame)
            time = times[min(decoded, len(times) - 1)] if frame.pts is None else frame.time
            if time < times[0] - TIME_TOLERANCE:  # hidden by an edit list
                continue
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
