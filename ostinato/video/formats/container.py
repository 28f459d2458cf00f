"""Open a video or an image with FFmpeg, check its header, and read its timestamps.

The header is read before any frame is decoded, so a video with too large frames is rejected by its
header. A file is opened as a video or an image only, never as a playlist, which could name other
files.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ostinato.errors import RejectedVideoError
from ostinato.video.formats.truncation import is_cut_off

FORMATS = (
    "apng,asf,avi,flv,gif,matroska,webm,mov,mp4,mpeg,mpegts,ogg,"
    "bmp_pipe,gif_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
VIDEO_SUFFIXES = {
    *(".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m4v"),
    *(".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".qt", ".ts"),
    *(".vob", ".webm", ".wmv"),
}
"""Endings of the formats above; the content decides how a file is read."""

DEFAULT_FRAME_RATE = 25  # frames/s of numbered images and of containers without timestamps
MIN_DURATION_FRACTION = 0.75  # a video shorter than this share of its declared one is truncated
TICK = 0.01  # s; durations that differ by less are equal
MAX_DURATION = 1e6  # s; a longer duration means wrong timestamps
DECODER_PADDING = 1 << 16  # pixels that a decoder may add to the smallest frame

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""The decoders that read transparency; FFmpeg's own pass over it."""


def open_container(video: Path | bytes, max_pixels: int) -> Any:
    """Open a file with FFmpeg (av.container.InputContainer) and check its header.

    Raises:
        RejectedVideoError: it is no video, or its frames are too large.
    """
    import av

    source: Any = io.BytesIO(video) if isinstance(video, bytes) else str(video.resolve())
    try:
        # FFmpeg guesses the format; what telephones append to a JPEG, such as a film, misleads it.
        is_jpeg = isinstance(video, bytes) and video.startswith(b"\xff\xd8\xff")
        container = av.open(
            source,
            format="jpeg_pipe" if is_jpeg else None,
            options=_limit(max_pixels),
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except av.FFmpegError as error:
        raise RejectedVideoError("unreadable", error.strerror or type(error).__name__) from None
    try:
        codec = video_stream(container).codec_context
        if codec is None:
            raise RejectedVideoError("unreadable", "FFmpeg has no decoder for the video stream")
        if codec.width * codec.height > max_pixels:
            raise RejectedVideoError(
                "too large", f"{codec.width}x{codec.height}, more than {max_pixels} pixels"
            )
        if container.format.name == "webp_pipe" and _is_animated(_content(video)):
            raise RejectedVideoError(
                "unreadable", "FFmpeg cannot decode an animated WebP; convert it to GIF or MP4"
            )
        if container.format.name in ("gif", "jpeg_pipe") and is_cut_off(_content(video)):
            raise RejectedVideoError("truncated", "the file ends within a picture")
        codec.options = _limit(max_pixels)
        codec.thread_count = 1
    except RejectedVideoError:
        container.close()
        raise
    return container


def video_stream(container: Any) -> Any:
    """The first video stream that is not the picture of a cover.

    Raises:
        RejectedVideoError: there is none.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise RejectedVideoError("no frames", "the file has no video stream")


def open_decoder(stream: Any, max_pixels: int) -> Any:
    """The decoder of a stream (av.VideoCodecContext), with transparency if the video has it."""
    import av

    name = ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream.codec_context
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    decoder.options = _limit(max_pixels)
    decoder.thread_count = 1
    return decoder


def frame_times(container: Any, stream: Any) -> Float64[np.ndarray, " frame"]:
    """Timestamps of the frames, ascending, in seconds, read from the container without decoding.

    Frames that an edit list hides, as in a video that was trimmed without encoding, have none.

    Raises:
        RejectedVideoError: there are no frames, or the file ends before its declared duration.
    """
    declared = _declared_duration(container, stream)
    only_video = declared is not None or len(container.streams) == 1
    packets, end = [], 0.0
    for packet in container.demux(stream if only_video else None):
        start = packet.dts if packet.pts is None else packet.pts
        if packet.size and packet.stream is stream:
            packets.append((start, packet.duration or 0, packet.is_discard))
        if packet.size and start is not None:
            end = max(end, float((start + (packet.duration or 0)) * packet.time_base))
    if all(hidden for *_, hidden in packets):
        raise RejectedVideoError("no frames", "the video stream is empty")
    if any(start is None for start, *_ in packets):  # the container has no timestamps
        shown = sum(not hidden for *_, hidden in packets)
        return np.arange(shown) / float(stream.average_rate or DEFAULT_FRAME_RATE)
    table, tick = np.array(packets, np.int64), float(stream.time_base)
    begin, last = table[:, 0].min() * tick, table[:, :2].sum(axis=1).max() * tick
    if last - begin > MAX_DURATION:
        raise RejectedVideoError("corrupt", f"the timestamps span {last - begin:.0f} seconds")
    if declared is None:  # of the video: that of the file, from 0, which any stream may reach
        found, expected = end, (container.duration or 0) / 1e6
    else:
        found, expected = last - begin, declared - (begin if "DURATION" in stream.metadata else 0)
    if found < MIN_DURATION_FRACTION * expected:
        detail = f"{found:.1f} of {expected:.1f} seconds are in the file"
        raise RejectedVideoError("truncated", detail)
    return np.sort(table[table[:, 2] == 0, 0]) * tick


def _declared_duration(container: Any, stream: Any) -> float | None:
    """The declared duration of a video stream in seconds; of Matroska, the end of its last frame.

    None: only that of the file is known, which says little: sound may be longer than the picture.
    """
    tag = stream.metadata.get("DURATION", "")
    if match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", tag.strip()):
        hours, minutes, seconds = map(float, match.groups())
        return 3600 * hours + 60 * minutes + seconds
    if not stream.duration:
        return None
    duration = float(stream.duration * stream.time_base)
    # FFmpeg fills a missing duration with that of the file.
    return duration if abs(duration - (container.duration or 0) / 1e6) > TICK else None


def _limit(max_pixels: int) -> dict[str, str]:
    """The option of a decoder; it pads frames, so the limit is twice as high."""
    return {"max_pixels": str(2 * max_pixels + DECODER_PADDING)}


def _content(video: Path | bytes) -> bytes:
    return video if isinstance(video, bytes) else video.read_bytes()


def _is_animated(webp: bytes) -> bool:
    """Whether the header of a WebP file has the flag of an animation."""
    return webp[12:16] == b"VP8X" and bool(webp[20] & 2)
