"""Message catalogs of installed packages: the embedded source, which needs no network."""

import importlib.metadata
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ostinato.errors import SourceError
from ostinato.translation.sources import common
from ostinato.units import Languages, Location


def gettext(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    languages: Languages,
    original: str,
    packages: list[str],
    path: Location | None,
) -> None:
    """Copy message catalogs (``.po``, ``.mo``) of installed Python packages or of a folder.

    A catalog is ``<language>/LC_MESSAGES/<domain>.po`` or ``<language>.po``; a regional catalog
    (``fr_FR``) counts for its language. If a catalog has both formats, the ``.po`` file is used: it
    marks uncertain messages.

    Args:
        folder: for the catalogs, in a folder for each package, and the manifest.
        scratch: not used.
        seed: not used.
        languages: source and target, as in the catalogs' paths; one of them is ``original``.
        original: the language of the message ids, usually ``en``.
        packages: names of installed packages.
        path: a folder that is searched too, or null.

    Raises:
        SourceError: a package is not installed, or has no catalog of the language.
    """
    if original not in languages:
        raise SourceError(f"original: {original!r} is not one of the languages {languages}")
    other = languages[1] if languages[0] == original else languages[0]
    catalogs_by_path: dict[str, tuple[Path, str]] = {}
    for name in packages:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise SourceError(
                f"packages: {name} is not installed; run `pip install {name}`"
            ) from None
        files = {file.as_posix(): Path(str(file.locate())) for file in package.files or ()}
        catalogs = _catalogs(files, other)
        if not catalogs:
            raise SourceError(f"packages: {name} {package.version} has no catalog for {other!r}")
        origin = f"{name} {package.version}"
        catalogs_by_path |= {
            f"{name}/{relative}": (files[relative], origin) for relative in catalogs
        }
    if path is not None:
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise SourceError(f"path: {path}: no such folder")
        files = {p.relative_to(root).as_posix(): p for p in root.rglob("*.[mp]o")}
        catalogs = _catalogs(files, other)
        if not catalogs:
            raise SourceError(f"path: {path} has no catalog for {other!r}")
        catalogs_by_path |= {f"path/{relative}": (files[relative], path) for relative in catalogs}
    if not catalogs_by_path:
        raise SourceError("packages, path: both are empty; name at least one package or a folder")
    entries = []
    for relative, (source, origin) in sorted(catalogs_by_path.items()):
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        entries.append(common.entry(folder, relative, None, origin))
    common.write_manifest(folder, "gettext", "gettext", languages, entries, original=original)


def _catalogs(files: Iterable[str], language: str) -> list[str]:
    """The paths that are catalogs of a language; ``.mo`` files only without a ``.po`` file."""
    pattern = rf"(.*/)?{re.escape(language)}([_-]\w+)?(/LC_MESSAGES/[^/]+)?\.[mp]o"
    matching = [file for file in files if re.fullmatch(pattern, file)]
    sources = {file for file in matching if file.endswith(".po")}
    return [file for file in matching if file in sources or f"{file[:-3]}.po" not in sources]
