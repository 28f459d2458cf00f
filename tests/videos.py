"""Tiny generated videos in various containers and codecs, for the tests."""

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

CODECS = {
    ".avi": ("mpeg4", "yuv420p"),
    ".gif": ("gif", "gray"),
    ".mkv": ("ffv1", "gray"),
    ".mov": ("libx264", "yuv420p"),
    ".mp4": ("libx264", "yuv420p"),
    ".webm": ("libvpx", "yuv420p"),
}


def counting(frames: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames of one grey value each, 10 times the number of the frame: 10, 20, 30 ..."""
    greys = 10 * np.arange(1, frames + 1)
    assert greys[-1] < 256
    return np.broadcast_to(greys[:, None, None], (frames, height, width)).astype(np.uint8)


def write(
    path: Path,
    film: NDArray[np.uint8],
    *,
    rate: int = 10,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write grey frames; timestamps ``times`` in ms give a variable frame rate."""
    codec, pixels = CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate, options=options or {})
        stream.height, stream.width = film.shape[1:]
        stream.pix_fmt = pixels
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(film):
            frame = av.VideoFrame.from_ndarray(picture, "gray").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_display_matrix(mp4: bytes, matrix: Sequence[int]) -> bytes:
    """Replace the display matrix of an MP4 file.

    Args:
        mp4: content of the file.
        matrix: xx, yx, xy, yy, each -1 to 1; a pixel moves to (xx * x + xy * y, yx * x + yy * y).
    """
    start = mp4.index(b"tkhd") + 44
    xx, yx, xy, yy = (value << 16 for value in matrix)
    packed = struct.pack(">9i", xx, yx, 0, xy, yy, 0, 0, 0, 1 << 30)
    return mp4[:start] + packed + mp4[start + len(packed) :]


def png(width: int, height: int) -> bytes:
    """A black PNG image; a large one has few bytes too."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + width)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join([*rows, packer.flush()])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
