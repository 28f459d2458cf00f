"""Find pictures that are cut off, whose decoder fills or leaves out what is missing.

FFmpeg reports other formats that are cut off as damaged.
"""

import re

JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A marker; in the data of a picture, a byte 0xff is followed by 0x00 or a restart marker."""
JPEG_END, JPEG_WITHOUT_LENGTH = 0xD9, (0x01, 0xD8)
GIF_EXTENSION, GIF_IMAGE = 0x21, 0x2C
GIF_PALETTE = 0x80  # flag: a palette follows


def is_cut_off(content: bytes) -> bool:
    """Whether a GIF or JPEG file ends within a picture; False for other formats."""
    if content.startswith(b"\xff\xd8"):
        return _jpeg_is_cut_off(content)
    return content.startswith(b"GIF8") and _gif_is_cut_off(content)


def _jpeg_is_cut_off(content: bytes) -> bool:
    """Whether there is no marker of the end; what follows the end does not count."""
    at = 0
    while found := JPEG_MARKER.search(content, at):
        at, marker = found.end(), found[1][0]
        if marker == JPEG_END:
            return False
        if marker not in JPEG_WITHOUT_LENGTH:
            at += int.from_bytes(content[at : at + 2], "big")
    return True


def _gif_is_cut_off(content: bytes) -> bool:
    """Whether the file ends within a block; a missing trailer alone does not count."""
    at = 13 + _palette_size(content[10:11])
    while at < len(content) and content[at] in (GIF_EXTENSION, GIF_IMAGE):
        if content[at] == GIF_IMAGE:
            at += 11 + _palette_size(content[at + 9 : at + 10])
        else:
            at += 2
        while content[at : at + 1] not in (b"", b"\x00"):  # blocks of data, each with its size
            at += 1 + content[at]
        at += 1
    return at > len(content)


def _palette_size(flags: bytes) -> int:
    """Bytes of the palette that the flags announce."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & GIF_PALETTE else 0
