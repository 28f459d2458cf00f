"""Convert decoded frames to the shape and colour of a clip, as a player shows them."""

from enum import Enum
from fractions import Fraction as Exact
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ostinato.errors import RejectedVideoError

MAX_SCALED_PIXELS = 1 << 26  # of a frame that is scaled, before it is cropped
SHEET = 255  # grey value of the sheet under transparent pixels: white, as viewers show it
FAINTEST = 8  # difference from the sheet that is visible
IDENTITY = (1, 0, 0, 0, 1)  # the display matrix of a frame that is not rotated


class FrameConverter:
    """Scale, crop and rotate frames to the shape of a clip; all frames must have one size.

    Args:
        height: of the clip, in pixels.
        width: of the clip, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        max_pixels: maximum number of pixels of a frame.
        aspect: width of a pixel divided by its height.
    """

    def __init__(
        self, height: int, width: int, channels: int, max_pixels: int, aspect: Exact | None = None
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.height, self.width, self.max_pixels = height, width, max_pixels
        self.format = {1: "gray", 3: "rgb24"}[channels]
        self.aspect = aspect or Exact(1)
        self.size: tuple[int, int] | None = None
        self.scaler = VideoReformatter()
        self._has_ink = self._is_visible = False

    def check(self, frame: Any) -> None:
        """Check a frame, also one that is not shown.

        Raises:
            RejectedVideoError: it is damaged, too large, or has another size than others.
        """
        if frame.is_corrupt:
            raise RejectedVideoError("corrupt", "a frame is damaged")
        size = frame.width, frame.height
        if frame.width * frame.height > self.max_pixels:
            raise RejectedVideoError("too large", f"{size}, more than {self.max_pixels} pixels")
        if self.size not in (None, size):
            raise RejectedVideoError("changes size", f"from {self.size} to {size}")
        self.size = size

    def finish(self) -> None:
        """Check the video after its last frame.

        Raises:
            RejectedVideoError: it has a transparent sheet, and nothing on it is visible.
        """
        if self._has_ink and not self._is_visible:
            raise RejectedVideoError(
                "unreadable",
                "what is drawn on the transparent sheet is as white as the sheet that viewers "
                "show; save it on a sheet of another colour",
            )

    def __call__(self, frame: Any) -> UInt8[np.ndarray, "height width channel"]:
        """Scale a frame to cover the clip, crop it to its centre, and rotate it."""
        self.check(frame)
        matrix = _display_matrix(frame)
        # A pixel at (x, y) moves to (xx * x + xy * y, yx * x + yy * y).
        xx, yx, _, xy, yy = matrix
        transposed = abs(yx) > abs(xx)
        rows, columns = (self.width, self.height) if transposed else (self.height, self.width)
        shown_width = frame.width * self.aspect
        scale = max(Exact(rows, frame.height), columns / shown_width)
        height, width = round(frame.height * scale), round(shown_width * scale)
        if height * width > MAX_SCALED_PIXELS:
            size = f"{frame.width}x{frame.height}"
            raise RejectedVideoError(
                "too large", f"{size} scaled to cover {columns}x{rows} is {width}x{height}"
            )
        scaled = self.scaler.reformat(
            self._on_sheet(frame), width, height, self.format, interpolation="AREA", threads=1
        )
        pixels = scaled.to_ndarray()
        top, left = (height - rows) // 2, (width - columns) // 2
        cropped = pixels[top : top + rows, left : left + columns].reshape(rows, columns, -1)
        if transposed:
            cropped, xx, yy = cropped.transpose(1, 0, 2), xy, yx
        return np.asarray(cropped[:: -1 if yy < 0 else 1, :: -1 if xx < 0 else 1])

    def _on_sheet(self, frame: Any) -> Any:
        """A frame with transparent pixels on an opaque sheet; other frames are unchanged."""
        import av

        layout = frame.format
        if layout.name != "pal8" and not any(part.is_alpha for part in layout.components):
            return frame
        pixels = frame.reformat(format="rgba", threads=1).to_ndarray()
        if pixels[..., 3].min() == 255:
            self._is_visible = True
            return frame
        colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
        opaque = ((colour * alpha + SHEET * (255 - alpha) + 127) // 255).astype(np.uint8)
        self._has_ink |= bool(alpha.max() > FAINTEST)
        self._is_visible |= bool(opaque.min() < SHEET - FAINTEST)
        return av.VideoFrame.from_ndarray(opaque, "rgb24")


def _display_matrix(frame: Any) -> tuple[int, int, int, int, int]:
    """The display matrix (xx, yx, 0, xy, yy) of cameras that are held sideways."""
    from av.sidedata.sidedata import Type

    if "_missing_" not in vars(Type):  # PyAV 18.1 knows 28 kinds; FFmpeg 8.1 has more, such as EXIF
        setattr(Type, "_missing_", classmethod(_unknown_side_data))  # noqa: B010
    side_data = frame.side_data.get("DISPLAYMATRIX")
    matrix = np.frombuffer(side_data, np.int32).tolist() if side_data else IDENTITY
    xx, yx, zero, xy, yy = matrix[:5]
    return xx, yx, zero, xy, yy


def _unknown_side_data(kind: type[Enum], value: object) -> Enum:
    """A member of PyAV's enumeration for side data that only FFmpeg knows."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member
