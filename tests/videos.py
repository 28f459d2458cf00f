"""Tiny videos, made here: whatever a test needs of containers, codecs and damage."""

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
    """Frames (frame, height, width), each of one grey that tells its number: 10, 20, 30 ..."""
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
    """Write grey frames (frame, height, width); ``times`` in 1/1000 s make the rate variable."""
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


def turned(mp4: bytes, matrix: Sequence[int]) -> bytes:
    """The bytes of an .mp4 with how players turn it: across, down, aside, along, each -1 to 1."""
    at = mp4.index(b"tkhd") + 44
    across, down, aside, along = (part << 16 for part in matrix)
    told = struct.pack(">9i", across, down, 0, aside, along, 0, 0, 0, 1 << 30)
    return mp4[:at] + told + mp4[at + len(told) :]


def png(width: int, height: int) -> bytes:
    """A black picture, however large: its bytes are few."""

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
