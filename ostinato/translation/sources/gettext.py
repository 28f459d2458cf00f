"""Message catalogs of installed packages: the embedded source, which needs no network."""

import importlib.metadata
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ostinato.data.files import expanded, list_files
from ostinato.errors import SourceError
from ostinato.translation.formats.languages import includes
from ostinato.translation.sources import common
from ostinato.units import Languages, Location

ENDINGS = (".po", ".mo")
LOG = logging.getLogger(__name__)


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
    (``fr_FR``) counts for its language, and ``pt-BR`` asks for the regional one (``pt_BR``) alone.
    If a catalog has both formats, the ``.po`` file is used: it marks uncertain messages.

    Args:
        folder: for the catalogs, in a folder for each package, and the manifest.
        scratch: not used.
        seed: not used.
        languages: source and target; one of them is ``original``.
        original: the language of the message ids, usually ``en``.
        packages: names of installed packages.
        path: a folder that is searched too, or null.

    Raises:
        SourceError: a package is not installed, or has no catalog of the language.
    """
    others = [code for code in languages if not includes(original, code)]
    if len(others) != 1:
        raise SourceError(
            f"languages: found {languages}; expected original: {original!r} and one other language"
        )
    (other,) = others
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
            raise SourceError(
                f"packages: {name} {package.version} has no catalog for {other!r}; "
                f"{_languages_of(files)}"
            )
        origin = f"{name} {package.version}"
        catalogs_by_path |= {
            f"{name}/{relative}": (files[relative], origin) for relative in catalogs
        }
    if path is not None:
        found = list_files(expanded(path), ENDINGS)
        files = {file.relative_to(found.root).as_posix(): file for file in found.files}
        catalogs = _catalogs(files, other)
        found.skip(
            [file for name, file in files.items() if name not in catalogs], f"not in {other!r}"
        )
        LOG.info(found.summary())
        if not catalogs:
            raise SourceError(f"path: {path} has no catalog for {other!r}; {_languages_of(files)}")
        catalogs_by_path |= {f"path/{name}": (files[name], path) for name in catalogs}
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
    matching = [file for file in files if includes(language, _code(file))]
    sources = {file[:-3] for file in matching if file.lower().endswith(".po")}
    return [file for file in matching if file.lower().endswith(".po") or file[:-3] not in sources]


def _code(file: str) -> str:
    """The language code in the path of a catalog; empty for other files."""
    path = PurePosixPath(file)
    if path.suffix.lower() not in ENDINGS:
        return ""
    return path.parent.parent.name if path.parent.name == "LC_MESSAGES" else path.stem


def _languages_of(files: Iterable[str]) -> str:
    """What languages the catalogs among the files are in, for an error."""
    codes = sorted({_code(file) for file in files} - {""})
    return f"found {', '.join(codes[:20])}" if codes else "found no catalog of any language"
