"""Every file in a folder is listed: to be read, or skipped with a reason."""

import os
from pathlib import Path

import pytest

from ostinato.data.files import (
    BROKEN_LINK,
    HIDDEN,
    NOT_UTF8,
    UNREADABLE,
    describe,
    list_files,
    printable,
)
from ostinato.errors import SourceError


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_every_file_is_read_or_has_a_reason(tmp_path: Path) -> None:
    read = ("a.txt", "B.TXT", "deep/er/c.txt", "100%.txt", "走る/-d.txt", " lead.txt", "q\"'.txt")
    write(tmp_path, *read)
    skipped = {
        ".DS_Store": HIDDEN,
        "._a.txt": HIDDEN,
        ".ipynb_checkpoints/a-checkpoint.txt": HIDDEN,
        "deep/.git/c.txt": HIDDEN,
        "__MACOSX/a.txt": HIDDEN,
        "Thumbs.db": HIDDEN,
        "old/a.txt": "ignored by params.yaml",
        "deep/copy-old.txt": "ignored by params.yaml",
        "a.TXT.part": "with the ending .part",
        "notes.md": "with the ending .md",
        "Makefile": "without an ending",
    }
    write(tmp_path, *skipped)
    found = list_files(tmp_path, {".txt"}, ["old", "*-old.*"])
    assert found.files == sorted(tmp_path / name for name in read)
    assert found.skipped == skipped
    assert found.faults() == {}
    assert found.summary() == (
        f"{tmp_path}: 7 files are read, 11 are not: 6 hidden (.DS_Store, ._a.txt, ...); "
        "2 ignored by params.yaml (deep/copy-old.txt, old/a.txt); "
        "1 with the ending .md (notes.md); 1 with the ending .part (a.TXT.part); "
        "1 without an ending (Makefile)"
    )


def test_a_file_that_cannot_be_read_is_a_fault_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.txt", "locked.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    (tmp_path / "notes.md").symlink_to("nowhere.md")
    (tmp_path / "self.txt").symlink_to("self.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    os.close(os.open(os.fsencode(tmp_path) + b"/caf\xe9.txt", os.O_CREAT))
    # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked.txt")
    found = list_files(tmp_path, {".txt"})
    assert [file.name for file in found.files] == ["a.txt"]
    assert found.faults() == {
        "gone.txt": BROKEN_LINK,
        "self.txt": BROKEN_LINK,
        "locked.txt": UNREADABLE,
        "caf\\xe9.txt": NOT_UTF8,
    }
    found.summary().encode()  # can be printed
    assert found.skipped["notes.md"] == "with the ending .md"
    assert found.skipped["pipe.txt"] == "no regular file"


def test_links_are_followed_within_the_folder_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, "own/a/1.txt", "elsewhere/secret.txt")
    (tmp_path / "own/b").symlink_to("a")
    (tmp_path / "own/a/up").symlink_to("..")
    found = list_files(tmp_path / "own", {".txt"})
    assert [printable(file.relative_to(found.root)) for file in found.files] == [
        "a/1.txt",
        "b/1.txt",
    ]
    (tmp_path / "own/c").symlink_to("../elsewhere")
    with pytest.raises(SourceError, match=r"own/c: links to a file outside .*; copy that file"):
        list_files(tmp_path / "own", {".txt"})


def test_a_file_can_be_skipped_later(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "b.txt", "c.txt")
    found = list_files(tmp_path, {".txt"})
    found.skip(found.files[1:2], "with a repeated key")
    assert found.skipped == {"b.txt": "with a repeated key"}
    assert describe(found.skipped) == "1 with a repeated key (b.txt)"
    assert printable(Path("a/line\nfeed\x1b[1m.txt")) == "a/line\\nfeed\\x1b[1m.txt"
    with pytest.raises(SourceError, match="no such folder"):
        list_files(tmp_path / "no", {".txt"})
