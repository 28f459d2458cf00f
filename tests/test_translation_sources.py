"""Laws of the sources of parallel text and of the readers, on small generated files."""

import gc
import gzip
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import polib
import pytest

from ostinato.errors import DataError, DownloadError, SourceError, UnreachableError
from ostinato.params import bind
from ostinato.translation import sources
from ostinato.translation.formats.parallel_text import read_pairs
from ostinato.translation.formats.raw import Pair, RawFile, RawManifest
from tests.servers import closed_port, serve

SHARED = Path(__file__).parents[2] / "shared" / "data" / "parallel" / "multi30k"
WEB: dict[str, Any] = {"timeout": 5.0, "retries": 1}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "out"


def fetched(source: str, out: Path, **block: Any) -> dict[str, Any]:
    """Fetch; check the manifest against the files; return it."""
    block = {"languages": ["en", "fr"], **block}
    bind(getattr(sources, source), block)(out, out.parent / "scratch", 0)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    for entry in manifest["files"]:
        content = (out / entry["path"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == sha256(content).hexdigest()
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {entry["path"] for entry in manifest["files"]} | {"manifest.json"}
    return manifest


def read(out: Path) -> list[Pair]:
    pairs = read_pairs(out, RawManifest.read(out))
    return [pair for pair in pairs if isinstance(pair, Pair)]


def catalog(path: Path, *entries: polib.POEntry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = polib.POFile()
    found.metadata = {"Content-Type": "text/plain; charset=utf-8"}
    found.extend(entries)
    found.save_as_mofile(str(path)) if path.suffix == ".mo" else found.save(str(path))


def test_catalogs_give_messages_plurals_and_uncertain_ones(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locale"
    plural = {0: "%d fichier", 1: "%d fichiers"}
    entries = [
        polib.POEntry(msgid="Open", msgstr="Ouvrir"),
        polib.POEntry(msgid="Open", msgstr="Ouvert", msgctxt="state"),
        polib.POEntry(msgid="%d file", msgid_plural="%d files", msgstr_plural=plural),
        polib.POEntry(msgid="Close", msgstr="Fermer ?", flags=["fuzzy"]),
        polib.POEntry(msgid="Gone", msgstr="Parti", obsolete=True),
    ]
    catalog(folder / "fr" / "LC_MESSAGES" / "app.po", *entries)
    catalog(folder / "fr" / "LC_MESSAGES" / "app.mo", polib.POEntry(msgid="a", msgstr="b"))
    catalog(folder / "fr_CA" / "LC_MESSAGES" / "app.mo", polib.POEntry(msgid="e", msgstr="é"))
    catalog(folder / "de" / "LC_MESSAGES" / "app.po", polib.POEntry(msgid="c", msgstr="d"))
    expected = [
        ("Open", "Ouvrir"),
        ("Open", "Ouvert"),
        ("%d file", "%d fichier"),
        ("%d files", "%d fichiers"),
        ("Close", "Fermer ?"),
        ("e", "é"),
    ]
    fetched("gettext", out, original="en", packages=[], path=str(folder))
    found = read(out)
    assert [(pair.source, pair.target) for pair in found] == expected
    assert [pair.source for pair in found if pair.uncertain] == ["Close"]

    manifest = replace(RawManifest.read(out), languages=["fr", "en"])
    swapped = [pair[2:0:-1] for pair in read_pairs(out, manifest)]
    assert swapped == expected


def test_catalogs_of_an_installed_package(out: Path) -> None:
    manifest = fetched("gettext", out, original="en", packages=["Django"], path=None)
    assert all(entry["origin"].startswith("Django ") for entry in manifest["files"])
    assert {Path(entry["path"]).suffix for entry in manifest["files"]} == {".po"}
    assert len([pair for pair in read(out) if pair.target]) > 500


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"packages": ["no-such-package"], "path": None}, "no-such-package is not installed"),
        ({"packages": ["numpy"], "path": None}, "numpy .* has no catalog for 'fr'"),
        ({"packages": [], "path": None}, "at least one package or a folder"),
        ({"packages": [], "path": "/no/such"}, "no such folder"),
        (
            {"packages": [], "path": ".", "languages": ["de", "fr"]},
            "expected original: 'en' and one",
        ),
    ],
)
def test_a_missing_catalog_raises_an_error(out: Path, block: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        fetched("gettext", out, original="en", **block)


@pytest.fixture
def lines() -> dict[str, bytes]:
    return {
        "train.en.gz": gzip.compress("one\ntwo\u2028lines\n".encode()),
        "train.fr.gz": gzip.compress("\ufeffun\r\ndeux\u2028lignes\r\n".encode()),
        "test.en": b"three",
        "test.fr": b"trois\n",
    }


FILES = {"train": "train.{language}.gz", "test": "test.{language}"}
PAIRS = [
    ("train", "one", "un"),
    ("train", "two\u2028lines", "deux\u2028lignes"),
    ("test", "three", "trois"),
]


def test_line_aligned_files_from_a_url_or_a_folder(
    out: Path, tmp_path: Path, lines: dict[str, bytes]
) -> None:
    with serve(lines) as site:
        fetched("moses", out, base_url=site.url, files=FILES, max_concurrency=2, **WEB)
    assert [pair[:3] for pair in read(out)] == PAIRS
    again = tmp_path / "again"
    again.mkdir()
    for name, content in lines.items():
        (tmp_path / name).write_bytes(content)
    fetched("moses", again, base_url=str(tmp_path), files=FILES, max_concurrency=2, **WEB)
    assert read(again) == read(out)


def test_files_without_a_split(out: Path, lines: dict[str, bytes]) -> None:
    with serve(lines) as site:
        files = {"all": "train.{language}.gz"}
        fetched("moses", out, base_url=site.url, files=files, max_concurrency=2, **WEB)
    assert {pair.split for pair in read(out)} == {None}


def test_failed_transfers_raise_errors(out: Path, lines: dict[str, bytes]) -> None:
    block: dict[str, Any] = {"max_concurrency": 1, **WEB}
    with pytest.raises(UnreachableError, match="source: gettext"):
        nowhere = f"http://127.0.0.1:{closed_port()}"
        fetched("moses", out, base_url=nowhere, files=FILES, **block)
    with serve(lines) as site, pytest.raises(DownloadError, match=r"valid\.en"):
        files = {**FILES, "validation": "valid.{language}"}
        fetched("moses", out, base_url=site.url, files=files, **block)
    with pytest.raises(SourceError, match=r"\{language\}"):
        fetched("moses", out, base_url=".", files={"train": "train.en"}, **block)
    with pytest.raises(SourceError, match="the same file"):
        files = {"train": "a.{language}", "test": "a.{language}"}
        fetched("moses", out, base_url=".", files=files, **block)


@pytest.mark.skipif(not SHARED.exists(), reason="Multi30k is not available")
def test_multi30k_keeps_its_splits(out: Path) -> None:
    fetched("multi30k", out, languages=["en", "de"], base_url=str(SHARED), max_concurrency=2, **WEB)
    splits = [pair.split for pair in read(out)]
    assert [splits.count(split) for split in ("train", "validation", "test")] == [29000, 1014, 1000]


@pytest.mark.parametrize(
    ("name", "table", "columns"),
    [
        ("fra.txt", "Go.\tVa !\tCC-BY\nHi.\tSalut !\tCC-BY\n", [1, 2]),
        ("links.tsv", "1\tGo.\t2\tVa !\n3\tHi.\t4\tSalut !", [2, 4]),
        ("swapped.tsv", "Va !\tGo.\nSalut !\tHi.", [2, 1]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_gives_the_chosen_columns(
    out: Path, tmp_path: Path, name: str, table: str, columns: list[int], packed: bool
) -> None:
    path = tmp_path / name
    path.write_text(table, encoding="utf-8")
    if packed:
        with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
            archive.write(path, name)
            archive.writestr("_about.txt", "origin")
        path = tmp_path / "table.zip"
    fetched("tsv", out, file=str(path), columns=columns, **WEB)
    assert [pair[1:3] for pair in read(out)] == [("Go.", "Va !"), ("Hi.", "Salut !")]


def test_invalid_columns_raise_an_error(out: Path) -> None:
    for columns in ([1], [1, 1], [1, 2, 3]):
        with pytest.raises(SourceError, match="columns"):
            fetched("tsv", out, file="a.tsv", columns=columns, **WEB)


def memory(units: Iterator[str], head: str = "") -> str:
    body = "".join(units)
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f'{header}{head}<tmx version="1.4"><header/>\n<body>\n{body}</body></tmx>\n'


def unit(one: str, two: str, languages: tuple[str, str] = ("en", "fr")) -> str:
    return (
        f'<tu><tuv xml:lang="{languages[0]}"><seg>{one}</seg></tuv>'
        f'<tuv xml:lang="{languages[1]}"><seg>{two}</seg></tuv></tu>\n'
    )


def test_a_translation_memory(out: Path, tmp_path: Path) -> None:
    units = [
        unit("One &amp; two", "Un &amp; deux"),
        unit("deux", "two", ("fr-CA", "EN_us")),
        unit("<ph>%s</ph> files", "<ph>%s</ph> fichiers"),
        unit("only", "allein", ("en", "de")),
    ]
    doctype = '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'
    (tmp_path / "a.tmx.gz").write_bytes(gzip.compress(memory(iter(units), doctype).encode()))
    fetched("tmx", out, file=str(tmp_path / "a.tmx.gz"), **WEB)
    assert [pair[1:3] for pair in read(out)] == [
        ("One & two", "Un & deux"),
        ("two", "deux"),
        ("%s files", "%s fichiers"),
        ("only", ""),
    ]


def test_a_translation_memory_is_read_in_constant_memory(tmp_path: Path) -> None:
    peaks = []
    gc.freeze()  # else the garbage collector waits for the many objects of the tests before
    for count in (1_000, 4_000):
        path = tmp_path / f"{count}.tmx"
        path.write_text(memory(unit(f"text {i}", f"texte {i}") for i in range(count)))
        manifest = RawManifest("tmx", "tmx", ["en", "fr"], [RawFile(path.name)])
        sum(1 for _ in read_pairs(tmp_path, manifest))  # imports and caches
        tracemalloc.start()
        assert sum(1 for _ in read_pairs(tmp_path, manifest)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    gc.unfreeze()
    assert peaks[1] < 1.5 * peaks[0]


BOMB = '<!DOCTYPE tmx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n'
OUTSIDE = '<!DOCTYPE tmx [<!ENTITY a SYSTEM "file:///etc/hostname">]>\n'


@pytest.mark.parametrize(
    ("format", "files", "message"),
    [
        (
            "moses",
            {"a.en": b"1\n2\n3\n", "a.fr": b"1\n2\n"},
            r"a.en, line 3: a.fr has only 2 lines",
        ),
        ("moses", {"a.en": b"1\n", "a.fr": b"1\n2\n"}, r"a.fr, line 2: a.en has only 1 lines"),
        ("tsv", {"a.gz": gzip.compress(b"1\t2\n" * 999)[:-9]}, r"a.gz: truncated or corrupt"),
        ("tmx", {"a.tmx": memory(iter(["<tu>\n"])).encode()}, r"a.tmx, line 5: not XML"),
        ("tmx", {"a.tmx": memory(iter([unit("&b;", "")]), BOMB).encode()}, "declares entities"),
        ("tmx", {"a.tmx": memory(iter([unit("&a;", "")]), OUTSIDE).encode()}, "declares entities"),
    ],
)
def test_malformed_files_raise_an_error_with_file_and_line(
    tmp_path: Path, format: str, files: dict[str, bytes], message: str
) -> None:
    entries = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        entries.append(RawFile(name, language=name[-2:]))
    manifest = RawManifest("files", format, ["en", "fr"], entries, "en", [1, 2])
    with pytest.raises(DataError, match=message):
        list(read_pairs(tmp_path, manifest))


def test_a_tfds_data_set_is_exported_to_line_aligned_files(out: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    features = tfds.features.FeaturesDict({"en": text, "fr": text})
    splits = {
        name: iter([(i, {"en": f"{name} {i}", "fr": f"{name} {i} é"}) for i in range(count)])
        for name, count in {"train": 5, "test": 2, "extra": 1}.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="little", version="1.0.0", features=features, split_datasets=splits, data_dir=tmp_path
    )
    manifest = fetched("tfds", out, dataset="little", data_dir=str(tmp_path))
    assert manifest["format"] == "moses"
    found = read(out)
    counts = {split: sum(p.split == split for p in found) for split in ("train", "test", None)}
    assert counts == {"train": 5, "test": 2, None: 1}
    assert all(f"{pair.source} é" == pair.target for pair in found)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"dataset": "no_such_thing"}, "no_such_thing"),
        ({"dataset": "ted_hrlr_translate/pt_to_en", "languages": ["en", "fr"]}, "has no 'fr'"),
    ],
)
def test_an_unknown_tfds_data_set_raises_an_error(
    out: Path, block: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        fetched("tfds", out, data_dir=None, **block)
