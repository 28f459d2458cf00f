"""DVC's cache: what is still needed, and the removal of the rest by `dvc gc`.

Needed is what the working tree refers to, what any commit refers to that a branch, a tag, an
experiment or git's reflog leads to, and what a version in the model registry came from. The reflog
has all stashes but the latest, which is a reference.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from flows.engine import dvc_graph
from flows.engine.freed import Freed, MaintenanceError, size_of
from ostinato import params
from ostinato.errors import ParamsError
from ostinato.study import studies

MD5 = re.compile(r"""\bmd5["']?:\s*["']?([0-9a-f]{32}(?:\.dir)?)\b""")
FILES = ("*dvc.lock", "*.dvc")  # of git that refer to objects in the cache
TEMPORARY = ("dvc.lock", "retrain-*.lock")  # below .dvc/tmp: of experiments, and of `retrain`
# Experiments may write dvc.lock while this reads it: a torn file has fewer md5s, not wrong ones.


def referenced() -> set[str]:
    """The md5s that commits, the working tree and unfinished work refer to.

    Raises:
        MaintenanceError: the history is incomplete, so a commit may need what nobody knows of.
    """
    locks = [study.parent / "dvc.lock" for study in studies()]
    locks += [file for name in TEMPORARY for file in Path(".dvc", "tmp").rglob(name)]
    texts = [lock.read_text(encoding="utf-8") for lock in locks if lock.is_file()]
    return {md5 for text in [*texts, *_committed()] for md5 in MD5.findall(text)}


def _committed() -> Iterator[str]:
    """Every version of the files of git that refer to the cache."""
    try:
        shallow = _git("rev-parse", "--is-shallow-repository").strip()
    except MaintenanceError as error:
        if "not a git repository" in str(error):
            return
        raise
    if shallow == "true":
        raise MaintenanceError(
            "DVC's cache stays as it is: this clone has no full history, so it does not know what "
            "earlier commits need. Run `git fetch --unshallow`"
        )
    raw = _git(
        *("log", "--all", "--reflog", "--full-history", "-m", "--root", "--raw", "--no-abbrev"),
        *("--format=", "--", *FILES),
    )
    entries = [line.split() for line in raw.splitlines() if line.startswith(":")]
    blobs = sorted({sha for entry in entries for sha in entry[2:4] if int(sha, 16)})
    yield _git("cat-file", "--batch", stdin="\n".join(blobs))


def _git(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["git", *arguments], input=stdin.encode(), capture_output=True, check=False, timeout=600
    )
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        raise MaintenanceError(f"DVC's cache stays as it is: `git {arguments[0]}` failed: {text}")
    return done.stdout.decode(errors="replace")


def clean_cache(needed: Iterable[str], dry_run: bool) -> list[Freed]:
    """Remove the objects of DVC's cache that are not needed, and run-cache entries without any.

    Args:
        needed: md5s of objects that stay, beside those of the working tree.
        dry_run: only report.

    Raises:
        MaintenanceError: the cache belongs to others too, or `dvc gc` failed.
    """
    cache = Path(_dvc("cache", "dir")[-1]).absolute()
    if not cache.resolve().is_relative_to(Path.cwd().resolve()):
        raise MaintenanceError(
            f"DVC's cache {cache} is outside of the checkout, so others may use it, and it stays "
            "as it is. Run `dvc gc --projects` by hand, with all checkouts that use it"
        )
    if any(map(_is_locked, Path(".dvc", "tmp", "remote-training").glob("*.lock"))):
        raise MaintenanceError(
            "DVC's cache stays as it is: a training for another machine uses it at this moment"
        )
    kept = sorted(md5 for md5 in needed if object_file(cache, md5).exists())
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), cache, kept)
        command = ("gc", "--workspace", "--force", "--projects", folder)
        listed = [line.removeprefix("Removing ") for line in _dvc(*command, "--dry")
                  if line.startswith("Removing ")]  # fmt: skip
        removed = {Path(path): size_of(Path(path)) for path in listed}
        if lost := removed.keys() & set(_files(cache, kept)):
            raise MaintenanceError(f"`dvc gc` would remove {min(lost)}, which is needed")
        if removed and not dry_run:
            _dvc(*command)
    entries = [file for file in sorted(cache.glob("runs/*/*/[!.]*"))
               if not is_restorable(file, cache, removed)]  # fmt: skip
    size = sum(map(size_of, entries))
    if not dry_run:
        for file in entries:
            file.unlink()
            for parent in (file.parent, file.parent.parent):
                if not any(parent.iterdir()):
                    parent.rmdir()
    return [
        Freed("DVC", "objects that nothing refers to", len(removed), sum(removed.values())),
        Freed("DVC", "run-cache entries without their outputs", len(entries), size),
    ]


def object_file(cache: Path, md5: str) -> Path:
    """The file of an object in DVC's cache."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _files(cache: Path, md5s: Iterable[str]) -> Iterator[Path]:
    """The files of objects, and of all that the objects of folders list."""
    for md5 in md5s:
        yield object_file(cache, md5)
        if md5.endswith(".dir"):
            for entry in json.loads(object_file(cache, md5).read_text(encoding="utf-8")):
                yield object_file(cache, entry["md5"])


def write_project(folder: Path, cache: Path, md5s: Iterable[str]) -> None:
    """Write a DVC project whose only content is a reference to each object of a cache.

    `dvc gc --projects` then keeps them, and the files that a folder's object lists.
    """
    (folder / ".dvc").mkdir()
    config = f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache}\n"
    (folder / ".dvc" / "config").write_text(config)
    outs = [{"path": md5, "md5": md5, "hash": "md5"} for md5 in md5s]
    (folder / "kept.dvc").write_text(json.dumps({"outs": outs}))  # JSON is YAML


def is_restorable(entry: Path, cache: Path, removed: Iterable[Path]) -> bool:
    """Whether the cache has every output of a run-cache entry."""
    try:
        found = params.read_yaml(entry)
    except ParamsError:  # torn by a kill
        return False
    outs = [object_file(cache, str(out.get("md5"))) for out in found.get("outs", [])]
    return all(file.exists() and file not in removed for file in outs)


def _is_locked(file: Path) -> bool:
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


def _dvc(*arguments: str) -> list[str]:
    output = dvc_graph.dvc(*arguments)
    if output.code:
        text = "\n".join(output.lines[-10:])
        raise MaintenanceError(f"`dvc {arguments[0]}` ended with code {output.code}:\n{text}")
    return output.lines
