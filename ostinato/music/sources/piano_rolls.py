"""Piano rolls in MATLAB files: JSB chorales, Nottingham, Piano-midi.de and MuseData."""

import logging
from pathlib import Path, PurePosixPath

import numpy as np

from ostinato.data.files import expanded
from ostinato.download import Whole, fetch_all, is_url
from ostinato.errors import SourceError
from ostinato.music.formats import raw
from ostinato.music.formats.raw import Piece, RawPieces
from ostinato.music.formats.roll import NOTES
from ostinato.units import Count, Location, Seconds

LOG = logging.getLogger(__name__)
SPLITS = {"traindata": "train", "validdata": "validation", "testdata": "test"}


def piano_rolls(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    files: list[Location],
    frames_per_quarter: Count,
    quarters_per_bar: Count,
    quarters_per_minute: Count,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download the piano rolls of Boulanger-Lewandowski et al. 2012 (arXiv 1206.6392).

    The files are those of Bai et al. 2018 (arXiv 1803.01271): cells ``traindata``, ``validdata``
    and ``testdata`` of matrices (frame, 88). The pieces keep these splits. The style of a piece is
    the name of its file.

    Args:
        folder: gets the pieces.
        scratch: keeps partial downloads.
        seed: not used.
        files: URLs or local paths of ``.mat`` files.
        frames_per_quarter: frames of a quarter note: 1 for the JSB chorales, 2 for the others.
        quarters_per_bar: of written pieces, as the files do not tell it.
        quarters_per_minute: of written pieces, likewise.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        SourceError: no such file, or it has another layout.
        DownloadError: a file cannot be downloaded.
    """
    places = {where: str(where) if is_url(where) else str(expanded(where)) for where in files}
    names = {where: PurePosixPath(places[where].split("?")[0]).name for where in files}
    if len(set(names.values())) < len(files):
        raise SourceError(f"files: found a name twice in {', '.join(names.values())}")
    fetch_all(
        {scratch / names[where]: places[where] for where in files},
        Whole,
        max_concurrency=2,
        timeout=timeout,
        retries=retries,
    )
    pieces = [piece for where in files for piece in read(scratch / names[where], where)]
    raw.write(
        folder,
        RawPieces("piano_rolls", frames_per_quarter, quarters_per_bar, quarters_per_minute, pieces),
    )


def read(file: Path, where: str) -> list[Piece]:
    """The pieces of a ``.mat`` file.

    Args:
        file: to read.
        where: it comes from, for errors.

    Raises:
        SourceError: it has another layout.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(file, variable_names=list(SPLITS))
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise SourceError(f"{where}: not a MATLAB file of version 7 or before: {error}") from None
    if missing := [name for name in SPLITS if name not in found]:
        raise SourceError(
            f"{where}: found no {', '.join(missing)}; expected cells {', '.join(SPLITS)}"
        )
    pieces = []
    for name, split in SPLITS.items():
        for number, matrix in enumerate(found[name].ravel().tolist()):
            roll = np.asarray(matrix)
            if roll.dtype.kind not in "buif" or roll.ndim != 2 or roll.shape[1] != NOTES:
                raise SourceError(
                    f"{where}, {name} {number}: found an array {roll.dtype} {roll.shape}; expected "
                    f"numbers (frame, {NOTES})"
                )
            key = f"{file.stem}/{split}/{number:04d}"
            pieces.append(Piece(key, roll > 0, file.stem, split))
    return pieces
