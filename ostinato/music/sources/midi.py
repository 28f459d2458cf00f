"""The user's own MIDI files."""

import logging
import shutil
from pathlib import Path

from ostinato.data.files import describe, expanded, list_files, printable
from ostinato.errors import MalformedError, SourceError
from ostinato.music.formats import midi as midi_files
from ostinato.music.formats import raw
from ostinato.music.formats.raw import Piece, RawPieces
from ostinato.units import Count, Location

LOG = logging.getLogger(__name__)


def midi(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    path: Location,
    frames_per_quarter: Count,
    quarters_per_bar: Count,
    quarters_per_minute: Count,
    time_signatures: list[str],
) -> None:
    """Read the user's own MIDI files.

    The style of a piece is the subfolder that the file is in, or "midi". Broken files, and those in
    other time signatures, are counted with their reason and copied to ``rejects/``.

    Args:
        folder: gets the pieces, and the files that are no piece.
        scratch: not used.
        seed: not used.
        path: a folder; files in its subfolders are included, hidden ones are left out.
        frames_per_quarter: to which notes are quantised: 4 for sixteenths.
        quarters_per_bar: of written pieces.
        quarters_per_minute: of written pieces; it also measures files in seconds (SMPTE).
        time_signatures: that are read, such as ["4/4", "2/2"]; empty: all. A file that has none is
            in 4/4.

    Raises:
        SourceError: no such folder, no such files in it, or a link that leads out of it.
    """
    found = list_files(expanded(path), {".mid", ".midi"})
    pieces, rejects = [], found.faults()
    for file in found.files:
        relative = file.relative_to(found.root)
        name = printable(relative)
        try:
            roll = midi_files.read(
                file.read_bytes(),
                frames_per_quarter=frames_per_quarter,
                tempo=quarters_per_minute,
                time_signatures=time_signatures,
            )
        except MalformedError as error:
            rejects[name] = str(error)
            target = folder / "rejects" / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            continue
        style = relative.parts[0] if len(relative.parts) > 1 else "midi"
        pieces.append(Piece(name, roll, style))
    if not pieces:
        reasons = describe(found.skipped | rejects) or "nothing"
        raise SourceError(f"{path}: contains no MIDI files that are pieces; found {reasons}")
    if rejects:
        LOG.info("%s: %d files are no pieces: %s", path, len(rejects), describe(rejects))
    raw.write(
        folder,
        RawPieces(
            "midi", frames_per_quarter, quarters_per_bar, quarters_per_minute, pieces, rejects
        ),
    )
