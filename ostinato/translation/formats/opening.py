"""Open a raw file, packed or plain, and read its lines."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, AnyStr

from ostinato.errors import DataError
from ostinato.translation.formats.raw import Reject

MAX_LINE_BYTES = 1_000_000
ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What the unpackers raise for truncated or damaged archives.
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


@contextmanager
def open_file(path: Path, name: str) -> Iterator[io.BufferedReader]:
    """Open a plain file, a gzip, bzip2 or xz file, or the only file of a zip file, as bytes.

    The content tells how a file is packed: browsers unpack files and keep their names.

    Args:
        path: of the file.
        name: for messages.

    Raises:
        DataError: it is truncated, corrupt or no such archive; also while it is read.
    """
    with path.open("rb") as file:
        head = file.peek(4096)[:4096]
        packing = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
        if not packing:
            if path.suffix.lower() in ENDINGS and not _is_text(head):
                raise DataError(
                    f"{name}: found neither a {ENDINGS[path.suffix.lower()]} file nor text; "
                    "fetch it again"
                )
            yield file
            return
        if packing != "zip":
            unpack: Any = {"gzip": gzip, "bzip2": bz2, "xz": lzma}[packing]
            yield io.BufferedReader(_Unpacked(lambda: unpack.open(file), name))
            return
        with ExitStack() as stack:

            def member() -> Any:
                archive = stack.enter_context(zipfile.ZipFile(file))
                return stack.enter_context(archive.open(_only(archive, name)))

            yield io.BufferedReader(_Unpacked(member, name))


class _Unpacked(io.RawIOBase):
    """The content of an archive; whatever its unpacker raises is a ``DataError``."""

    def __init__(self, unpack: Callable[[], Any], name: str) -> None:
        self._name = name
        self._content: Any = self._checked(unpack)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._checked(lambda: self._content.readinto(buffer))
        return count

    def _checked(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except BROKEN as error:
            raise DataError(
                f"{self._name}: truncated or corrupt: {error}; fetch it again"
            ) from None


def read_lines(
    stream: io.BufferedReader, name: str, charset: str = "utf-8"
) -> Iterator[str | Reject]:
    """Lines that end with a line feed; texts may contain Unicode's other line separators.

    A line that is not text of the charset, or has more than 1,000,000 bytes, is a `Reject`. A file
    that begins with the byte order mark of UTF-16 is read as UTF-16.

    Raises:
        DataError: broken UTF-16, or a file whose lines end with carriage returns alone.
    """
    number, single = 0, b""
    for number, line in enumerate(_byte_lines(stream, name), 1):
        single = line if number == 1 else b""
        if len(line) > MAX_LINE_BYTES:
            reason = f"found more than {MAX_LINE_BYTES:,} bytes; expected a line of text"
            yield Reject(name, number, reason)
            continue
        utf8 = codecs.lookup(charset).name == "utf-8"
        try:
            text = line.decode("utf-8-sig" if utf8 and number == 1 else charset)
        except UnicodeDecodeError as error:
            yield Reject(
                name,
                number,
                f"found byte {line[error.start]:#04x} at column {error.start + 1}, which is not "
                f"{charset.upper()}; convert the file to UTF-8",
            )
        else:
            yield text.rstrip("\r\n")
    if number == 1 and b"\r" in single.rstrip(b"\r\n"):
        raise DataError(
            f"{name}: found lines that end with carriage returns; expected line feeds; convert "
            "the file"
        )


def _byte_lines(stream: io.BufferedReader, name: str) -> Iterator[bytes]:
    """Lines as bytes in the file's encoding, UTF-16 as UTF-8; what is too long is cut."""
    if stream.peek(2)[:2] in UTF16:
        text = io.TextIOWrapper(stream, "utf-16", newline="\n")
        try:
            for line in _cut_lines(text.readline, "\n"):
                yield line.encode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not UTF-16: {error.reason}; fetch it again") from None
        finally:
            text.detach()  # or it would close the stream
    else:
        yield from _cut_lines(stream.readline, b"\n")


def _cut_lines(readline: Callable[[int], AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """The lines of a stream; of a line that is too long the beginning."""
    while line := readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(end):
            rest = readline(MAX_LINE_BYTES + 1)
        yield line


def _is_text(head: bytes) -> bool:
    """Whether the beginning of a file is text."""
    if head.startswith(UTF16):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _only(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The only file of an archive, besides those that begin with ``_`` or a dot."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not any(part.startswith(("_", ".")) for part in member.filename.split("/"))
    ]
    if len(members) != 1:
        found = [member.filename for member in members[:5]]
        raise DataError(
            f"{name}: found {len(members)} files {found}; expected one table; unpack the archive "
            "and name the file"
        )
    if members[0].flag_bits & 1:
        raise DataError(f"{name}: {members[0].filename} is encrypted; unpack the archive")
    return members[0]
