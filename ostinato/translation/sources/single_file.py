"""Sources that are one file: a tab-separated table, or a translation memory."""

from pathlib import Path

from ostinato.errors import SourceError
from ostinato.translation.sources import common
from ostinato.units import Count, Languages, Location, Seconds


def tsv(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    file: Location,
    columns: list[Count],
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download a tab-separated table, such as Tatoeba's and Anki's.

    Args:
        folder: for the table and the manifest.
        scratch: keeps partial downloads.
        seed: not used.
        languages: source and target.
        file: URL or local path of a table, plain or packed by gzip, bzip2 or xz, or of a ``.zip``
            file that contains one table.
        columns: of the two languages, from 1: [1, 2] for manythings.org/anki, [2, 4] for
            Tatoeba's own exports.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        SourceError: not two different columns.
        DownloadError: the file cannot be downloaded.
    """
    if len(set(columns)) != 2 or len(columns) != 2:
        raise SourceError(f"columns: expected two different columns, found {columns}")
    file_entry = common.fetch_one(folder, scratch, file, timeout, retries)
    common.write_manifest(folder, "tsv", "tsv", languages, [file_entry], columns=columns)


def tmx(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    file: Location,
    timeout: Seconds,
    retries: Count,
) -> None:
    """Download a translation memory in TMX 1.4, plain or packed.

    A regional variant (``fr-CA``) and a code of three letters (``fra``) count for their language;
    ``fr-CA`` asks for the variant alone. Case does not matter.

    Args:
        folder: for the file and the manifest.
        scratch: keeps partial downloads.
        seed: not used.
        languages: source and target.
        file: URL or local path.
        timeout: seconds without data after which a transfer fails.
        retries: further attempts of a failed transfer.

    Raises:
        DownloadError: the file cannot be downloaded.
    """
    file_entry = common.fetch_one(folder, scratch, file, timeout, retries)
    common.write_manifest(folder, "tmx", "tmx", languages, [file_entry])
