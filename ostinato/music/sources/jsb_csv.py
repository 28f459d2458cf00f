"""Chorales as tables of four voices: an archive of CSV files."""

import csv
import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from ostinato.data.files import expanded
from ostinato.download import Whole, fetch_all, is_url
from ostinato.errors import SourceError
from ostinato.music.formats import raw
from ostinato.music.formats.raw import Piece, RawPieces
from ostinato.music.formats.roll import LOWEST, NOTES, Roll
from ostinato.units import Count, Location, Seconds

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
HEADER = ["note0", "note1", "note2", "note3"]
MAX_BYTES = 1 << 20  # of a table
MAX_FILES = 100_000


def jsb_csv(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    file: Location,
    frames_per_quarter: Count,
    quarters_per_minute: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download Bach's chorales as CSV (ageron/data on GitHub, in the public domain).

    The archive has folders ``train``, ``valid`` and ``test``, and a table for each chorale: a
    column for each voice, a row for each sixteenth, MIDI numbers, 0 for silence.

    Args:
        folder: gets the pieces.
        scratch: keeps a partial download.
        seed: not used.
        file: URL or local path of a ``.tgz`` archive.
        frames_per_quarter: 4 keeps all rows; 2 keeps each second one, 1 each fourth one.
        quarters_per_minute: of written pieces.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        SourceError: the archive or a table has another layout.
        DownloadError: the file cannot be downloaded.
    """
    if 4 % frames_per_quarter:
        raise SourceError(f"frames_per_quarter: found {frames_per_quarter}; expected 1, 2 or 4")
    place = file if is_url(file) else str(expanded(file))
    local = scratch / "chorales.tgz"
    fetch_all({local: place}, Whole, max_concurrency=1, timeout=timeout, retries=retries)
    pieces, step = [], 4 // frames_per_quarter
    try:
        with tarfile.open(local, "r:*") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_FILES or member.size > MAX_BYTES:
                    raise SourceError(f"{file}, {member.name}: found too much data")
                path = PurePosixPath(member.name)
                content = archive.extractfile(member) if path.suffix == ".csv" else None
                if content is None or path.name.startswith("."):
                    continue  # a folder, or what macOS adds
                if path.parent.name not in SPLITS:
                    raise SourceError(
                        f"{file}: found {member.name}; expected a folder of {', '.join(SPLITS)}"
                    )
                roll = read(content.read(), f"{file}, {member.name}")[::step]
                split = SPLITS[path.parent.name]
                pieces.append(Piece(f"{split}/{path.stem}", roll, "chorale", split))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{file}: not a tar archive: {error}") from None
    pieces.sort(key=lambda piece: piece.key)
    raw.write(folder, RawPieces("jsb_csv", frames_per_quarter, 4, quarters_per_minute, pieces))


def read(content: bytes, where: str) -> Roll:
    """The roll of a table.

    Args:
        content: of the file.
        where: it comes from, for errors.

    Raises:
        SourceError: it has another layout.
    """
    try:
        rows = list(csv.reader(io.StringIO(content.decode())))
        pitches = np.array(rows[1:], np.int64).reshape(-1, len(HEADER))
    except (ValueError, csv.Error) as error:
        raise SourceError(f"{where}: found no table of MIDI numbers: {error}") from None
    if rows[0] != HEADER:
        raise SourceError(f"{where}, line 1: found {rows[0]}; expected {','.join(HEADER)}")
    wrong = (pitches != 0) & ((pitches < LOWEST) | (pitches >= LOWEST + NOTES))
    if wrong.any():
        line, column = np.argwhere(wrong)[0].tolist()
        raise SourceError(
            f"{where}, line {line + 2}: found {pitches[line, column]}; expected a MIDI number of "
            f"{LOWEST} to {LOWEST + NOTES - 1}, or 0"
        )
    roll = np.zeros((len(pitches), NOTES), bool)
    line, voice = np.nonzero(pitches)
    roll[line, pitches[line, voice] - LOWEST] = True
    return roll
