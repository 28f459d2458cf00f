"""Write generated frames as lossless video files."""

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

MAX_NAME_BYTES = 200  # of a file's name; file systems allow 255


def file_name(text: str) -> str:
    """A plain file name for any text: the text itself if it is one, else with ``%`` escapes.

    Different texts have different names.
    """
    name = re.sub(r"[%/\\:\x00-\x1f]|^\.", lambda match: f"%{ord(match[0]):02X}", text)
    if len(name.encode()) > MAX_NAME_BYTES:
        name = f"{name[:40]}%{blake2b(text.encode(), digest_size=16).hexdigest()}"
    return name


def write_video(
    folder: Path,
    label: str,
    name: str,
    frames: UInt8[np.ndarray, "frame height width channel"],
    frame_rate: int,
) -> Path:
    """Write ``<label>/<name>`` without loss and return its path relative to the folder.

    Grey frames (1 channel) become a GIF, which every browser shows; RGB frames become FFV1 in
    Matroska.

    Args:
        folder: of the source.
        label: the name of its class.
        name: without suffix.
        frames: of the video.
        frame_rate: frames per second; a GIF stores durations in hundredths of a second.
    """
    import av

    grey = frames.shape[3] == 1
    suffix, codec, pixel_format = (".gif", "gif", "gray") if grey else (".mkv", "ffv1", "bgr0")
    path = folder / file_name(label) / f"{file_name(name)}{suffix}"
    path.parent.mkdir(exist_ok=True)
    bitexact = {"fflags": "+bitexact"}  # neither a version nor a random id in the file
    with av.open(str(path), "w", container_options=bitexact) as container:
        stream: Any = container.add_stream(codec, frame_rate, options={"flags": "+bitexact"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(
                pixels[..., 0] if grey else pixels, "gray" if grey else "rgb24"
            )
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    return path.relative_to(folder)
