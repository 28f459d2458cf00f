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
    codec: tuple[str, str] | None = None,
    aspect: int = 1,
    sound: float = 0.0,
    muxer: str | None = None,
) -> Path:
    """Write frames.

    Args:
        path: of the file.
        film: grey frames, or frames with red, green, blue and alpha.
        rate: frames per second.
        times: timestamps in ms, which give a variable frame rate.
        options: of the encoder.
        codec: name of the encoder and of its pixel format; None for those of the ending.
        aspect: width of a pixel divided by its height.
        sound: seconds of silence.
        muxer: None for that of the ending.
    """
    encoder, pixels = codec or CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=muxer) as container:
        stream: Any = container.add_stream(encoder, rate, options=options or {})
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = pixels
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        track: Any = container.add_stream("libopus", 48_000, layout="mono") if sound else None
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(film):
            layout = "gray" if picture.ndim == 2 else "rgba"
            frame = av.VideoFrame.from_ndarray(picture, layout).reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for _ in range(round(sound * 50)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "flt", "mono")
            silence.sample_rate = 48_000
            container.mux(track.encode(silence))
        if track:
            container.mux(track.encode())
    return path


def trimmed(mp4: bytes, start: int, duration: int) -> bytes:
    """Trim an MP4 file as telephones do, by its edit list; all frames stay in the file.

    Args:
        mp4: content of the file.
        start: the first instant that is shown, in ms.
        duration: of what is shown, in ms.
    """
    ticks = int.from_bytes(mp4[(at := mp4.index(b"mdhd") + 16) : at + 4])  # per second
    at = mp4.index(b"elst") + 12
    (delay,) = struct.unpack(">i", mp4[at + 4 : at + 8])  # of B-frames
    edit = struct.pack(">Ii", duration, delay + start * ticks // 1000)
    return mp4[:at] + edit + mp4[at + 8 :]


def exif(orientation: int) -> bytes:
    """EXIF data with the orientation of a camera."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def write_image(path: Path, picture: NDArray[np.uint8], orientation: int | None = None) -> Path:
    """Write a grey picture, or one with red, green, blue and alpha; JPEG and PNG have EXIF."""
    codecs = {".bmp": "bmp", ".jpg": "mjpeg", ".png": "png", ".tif": "tiff", ".webp": "libwebp"}
    codec = codecs[path.suffix]
    layout = "gray" if picture.ndim == 2 else "rgba"
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt = {"mjpeg": "yuvj420p", "libwebp": "bgra", "bmp": "bgr24"}.get(codec, layout)
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, layout).reformat(format=encoder.pix_fmt)
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode()])
    if orientation is not None:
        data = exif(orientation)
        if codec == "mjpeg":
            data = b"Exif\0\0" + data
            segment = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
            content = content[:2] + segment + content[2:]
        else:
            content = content[:33] + _chunk(b"eXIf", data) + content[33:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def motion_jpeg(path: Path, pictures: Sequence[bytes]) -> Path:
    """Write JPEG pictures as they are into an AVI file."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", 10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


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
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + width)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join([*rows, packer.flush()])
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", body)
        + _chunk(b"IEND", b"")
    )
