"""Sources of drawings, with a server on loopback and small files."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import download
from ostinato.errors import ArchiveError, DownloadError, ParamsError, SourceError, UnreachableError
from ostinato.params import bind
from ostinato.sketches import dataset, sources
from ostinato.sketches.dataset import sketchrnn_npz
from ostinato.sketches.dataset.sketchrnn_npz import read_npz
from ostinato.sketches.sources.categories import QUICKDRAW
from tests.servers import Site, closed_port, serve

SHARED = Path(__file__).parents[2] / "shared" / "data"
ROOT = Path(__file__).parents[1]


def line(word: str, index: int, points: int = 30) -> bytes:
    ink = [[(i * 7 + index) % 256 for i in range(points)], [i * 5 % 256 for i in range(points)]]
    drawn = {"word": word, "recognized": True, "key_id": f"{index:016}", "drawing": [ink]}
    return json.dumps(drawn).encode() + b"\n"


def file(word: str, count: int) -> bytes:
    return b"".join(line(word, i) for i in range(count))


@pytest.fixture
def site() -> Iterator[Site]:
    names = ["cat", "fish", "hot dog", "The Eiffel Tower"]
    with serve({f"full/simplified/{name}.ndjson": file(name, 2_000) for name in names}) as site:
        yield site


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "out"


def quickdraw(site: Site | str, out: Path, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "base_url": site if isinstance(site, str) else site.url,
        "form": "simplified",
        "categories": ["hot dog", "cat"],
        "per_class": 100,
        "max_concurrency": 2,
        "timeout": 5.0,
        "retries": 1,
    }
    source = bind(sources.quickdraw, arguments | changed)
    source(out, out.parent / "scratch", 0)
    return manifest(out)


def manifest(out: Path) -> dict[str, Any]:
    """The manifest, after its entries have been checked."""
    fetched: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    for entry in fetched["files"]:
        content = (out / entry["path"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == sha256(content).hexdigest()
        assert entry["lines"] in {None, len(content.splitlines())}
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {entry["path"] for entry in fetched["files"]} | {"manifest.json"}
    return fetched


def test_there_are_345_categories() -> None:
    assert len(set(QUICKDRAW)) == len(QUICKDRAW) == 345


@pytest.mark.skipif(not SHARED.exists(), reason="no real drawings beside the checkout")
def test_the_categories_are_googles() -> None:
    listed = (SHARED / "quickdraw_dataset" / "categories.txt").read_text().splitlines()
    assert sorted(listed) == sorted(QUICKDRAW)


def test_the_first_drawings_are_fetched_unchanged(site: Site, out: Path) -> None:
    fetched = quickdraw(site, out)
    for name in ["cat", "hot dog"]:
        assert (out / f"{name}.ndjson").read_bytes() == file(name, 100)
    assert fetched["categories"] == ["cat", "hot dog"]
    assert [entry["lines"] for entry in fetched["files"]] == [100, 100]
    assert fetched["files"][1]["url"] == f"{site.url}/full/simplified/hot%20dog.ndjson"
    assert site.sent <= 2 * sum(entry["bytes"] for entry in fetched["files"])


def test_a_local_folder_gives_the_same_files_as_a_server(
    site: Site, out: Path, tmp_path: Path
) -> None:
    base = tmp_path / "bucket"
    assert isinstance(site.files, dict)
    for path, content in site.files.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(content)
    here = quickdraw(site, out)
    (tmp_path / "other").mkdir()
    there = quickdraw(str(base), tmp_path / "other")
    for entry in here["files"] + there["files"]:
        del entry["url"]
    assert here == there


def test_the_same_fetch_gives_the_same_bytes(site: Site, out: Path) -> None:
    quickdraw(site, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for path in out.iterdir():
        path.unlink()
    quickdraw(site, out, max_concurrency=1)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_a_large_per_class_fetches_the_whole_file(site: Site, out: Path) -> None:
    quickdraw(site, out, per_class=10**7, categories=["fish"])
    assert (out / "fish.ndjson").read_bytes() == file("fish", 2_000)


def test_unknown_categories_are_an_error_before_any_download(site: Site, out: Path) -> None:
    with pytest.raises(SourceError, match=r"(?s)'fihs': did you mean 'fish'.*'hotdog'.*'hot dog'"):
        quickdraw(site, out, categories=["fihs", "cat", "hotdog"])
    assert site.gets == []


@pytest.mark.parametrize("name", ["../cat", "/etc/passwd", "..", "cat/../../fish"])
def test_a_category_is_no_path(site: Site, out: Path, name: str) -> None:
    with pytest.raises(SourceError, match="unknown"):
        quickdraw(site, out, categories=[name])


def test_an_unknown_form_is_an_error(site: Site, out: Path) -> None:
    with pytest.raises(ParamsError, match="form"):
        quickdraw(site, out, form="smooth")


def test_all_failures_are_in_one_error_and_the_other_files_are_kept(site: Site, out: Path) -> None:
    with pytest.raises(DownloadError) as raised:
        quickdraw(site, out, categories=["cat", "dog", "fish", "zebra"])
    for name in ["dog", "zebra"]:
        assert f"{site.url}/full/simplified/{name}.ndjson: HTTP 404" in str(raised.value)
    assert not list(out.iterdir())
    assert isinstance(site.files, dict)
    site.files |= {f"full/simplified/{name}.ndjson": file(name, 200) for name in ["dog", "zebra"]}
    site.gets.clear()
    quickdraw(site, out, categories=["cat", "dog", "fish", "zebra"])
    assert {Path(path).stem for path, _ in site.gets} == {"dog", "zebra"}


def test_a_truncated_transfer_is_an_error_that_names_its_file(site: Site, out: Path) -> None:
    site.drop_after = 5_000
    with pytest.raises(DownloadError, match=r"cat\.ndjson: .*gave up after 2 attempts"):
        quickdraw(site, out, categories=["cat"], per_class=10**6)
    assert not list(out.iterdir())


def test_a_file_that_is_truncated_at_its_origin_is_downloaded_again(site: Site, out: Path) -> None:
    assert isinstance(site.files, dict)
    site.files["full/simplified/cat.ndjson"] = file("cat", 80)[:-9]
    with pytest.raises(SourceError, match=r"cat\.ndjson: truncated at the origin"):
        quickdraw(site, out)
    assert not list(out.iterdir())
    site.files["full/simplified/cat.ndjson"] = file("cat", 80)
    assert quickdraw(site, out)["files"][0]["lines"] == 80


def test_a_last_line_without_a_line_feed_is_kept(site: Site, out: Path) -> None:
    assert isinstance(site.files, dict)
    site.files["full/simplified/cat.ndjson"] = file("cat", 80)[:-1]
    assert quickdraw(site, out)["files"][0]["lines"] == 80


def test_malformed_lines_are_fetched_unchanged(site: Site, out: Path) -> None:
    assert isinstance(site.files, dict)
    content = line("cat", 0) + b'{"word": "cat", "draw\n\n\xff\n' + line("cat", 1)
    site.files["full/simplified/cat.ndjson"] = content
    quickdraw(site, out, categories=["cat"])
    assert (out / "cat.ndjson").read_bytes() == content


def test_without_a_network_the_error_names_the_embedded_source(out: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r"cannot reach 127\.0\.0\.1.*source: doodles"):
        quickdraw(f"http://127.0.0.1:{closed_port()}", out, categories="all", retries=8)
    assert time.monotonic() - start < 2 * download.CONNECT + 1


def test_a_killed_fetch_resumes(site: Site, out: Path) -> None:
    site.pause = 0.02
    arguments = {
        "base_url": site.url,
        "form": "simplified",
        "categories": ["cat", "fish", "hot dog"],
        "per_class": 2_000,
        "max_concurrency": 1,
        "timeout": 5.0,
        "retries": 1,
    }
    code = (
        "import sys, json; from pathlib import Path; from ostinato.sketches import sources\n"
        "sources.quickdraw(Path(sys.argv[1]), Path(sys.argv[2]), 0, **json.loads(sys.argv[3]))"
    )
    scratch = out.parent / "scratch"
    size = len(file("cat", 2_000))
    command = [sys.executable, "-c", code, str(out), str(scratch), json.dumps(arguments)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 30
        while site.sent < 1.6 * size and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert (scratch / "cat.ndjson").exists()
    came = (scratch / "fish.ndjson.partial").stat().st_size
    assert came > 0
    site.pause, seen = 0, len(site.gets)
    fetched = quickdraw(site, out, categories=["cat", "fish", "hot dog"], per_class=2_000)
    later = dict(site.gets[seen:])
    assert set(later) == {"full/simplified/fish.ndjson", "full/simplified/hot dog.ndjson"}
    assert later["full/simplified/fish.ndjson"].startswith(f"bytes={came}-")
    assert [entry["lines"] for entry in fetched["files"]] == [2_000] * 3


# SketchRNN


def objects(arrays: list[Any]) -> np.ndarray:
    array = np.empty(len(arrays), object)
    array[:] = arrays
    return array


def drawings(count: int, dtype: str = "<i2") -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    found = [rng.integers(-9, 9, (rng.integers(1, 30), 3)).astype(dtype) for _ in range(count)]
    for rows in found:
        rows[:, 2] = rows[:, 2] > 0
    return found


def write_npz(path: Path, train: Any, protocol: int | None = None) -> Path:
    """A file as numpy writes it, or with the train pickle in another protocol."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in {"train": train, "valid": drawings(3), "test": drawings(2)}.items():
            content = io.BytesIO()
            if isinstance(value, bytes):
                np.lib.format.write_array_header_1_0(
                    content, {"descr": "|O", "fortran_order": False, "shape": (1,)}
                )
                content.write(value)
            elif protocol is None:
                array = value if isinstance(value, np.ndarray) else objects(value)
                np.lib.format.write_array(content, array)
            else:
                header = {"descr": "|O", "fortran_order": False, "shape": (len(value),)}
                np.lib.format.write_array_header_1_0(content, header)
                content.write(pickle.dumps(objects(value), protocol))
            archive.writestr(f"{key}.npy", content.getvalue())
    return path


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<f4", "<f8", "i1"])
def test_npz_files_of_numpy_are_read_unchanged(
    tmp_path: Path, dtype: str, protocol: int | None
) -> None:
    given = drawings(20, dtype)
    read = read_npz(write_npz(tmp_path / "x.npz", given, protocol))
    assert [len(read[key]) for key in ("train", "valid", "test")] == [20, 3, 2]
    for before, after in zip(given, read["train"], strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(before, after)


def test_fortran_order_is_read(tmp_path: Path) -> None:
    given = [np.asfortranarray(d) for d in drawings(5)]
    read = read_npz(write_npz(tmp_path / "x.npz", given))
    for before, after in zip(given, read["train"], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.skipif(not SHARED.exists(), reason="no real drawings beside the checkout")
@pytest.mark.parametrize("name", ["aaron_sheep", "omniglot"])
def test_sketchrnns_files_are_read_as_numpy_reads_them(name: str) -> None:
    path = SHARED / "sketchrnn" / f"{name}.npz"
    ours = read_npz(path)
    with np.load(path, allow_pickle=True, encoding="latin1") as theirs:
        for key in ("train", "valid", "test"):
            assert len(ours[key]) == len(theirs[key])
            assert all(map(np.array_equal, ours[key], theirs[key]))


class Run:
    """Pickles to a call of os.system that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def attacks(mark: Path) -> dict[str, bytes]:
    evil = Run(mark)
    system = f"(S'touch {mark}'\n"
    return {
        "bare": pickle.dumps(evil),
        "in an array": pickle.dumps(objects([evil])),
        "beside a drawing": pickle.dumps(objects([drawings(1)[0], evil])),
        "deep in an array": pickle.dumps(objects([objects([[{"a": (evil,)}]])])),
        "in protocol 0": f"cos\nsystem\n{system}tR.".encode(),
        "as an instance": f"{system}ios\nsystem\n.".encode(),
        "through builtins": pickle.dumps(objects([eval])),
        "through numpy": pickle.dumps(objects([np.load])),
        "by a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "by an attribute": b"cnumpy\nndarray\n}S'value'\ncnumpy\ndtype\nsb.",
        "a function's state": b"c_codecs\nencode\n(N}S'__new__'\ncnumpy\ndtype\nstb.",
        "a persistent id": b"Pevil\n.",
        "an extension": b"\x80\x02\x82\x01.",
    }


@pytest.mark.parametrize("attack", list(attacks(Path())))
def test_a_malicious_file_is_an_error_and_does_not_run(tmp_path: Path, attack: str) -> None:
    mark = tmp_path / "ran"
    payload = attacks(mark)[attack]
    before = {kind: dict(vars(kind)) for kind in sketchrnn_npz.STANDINS.values()}
    with pytest.raises(ArchiveError, match=r"x\.npz: train\.npy"):
        read_npz(write_npz(tmp_path / "x.npz", payload))
    assert not mark.exists()
    assert before == {kind: dict(vars(kind)) for kind in sketchrnn_npz.STANDINS.values()}


def test_the_payload_runs_if_pickles_are_trusted(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", attacks(tmp_path / "ran")["in an array"])
    with np.load(path, allow_pickle=True) as trusting:
        assert trusting["train"].size
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "train",
    [
        [np.zeros((4, 2), np.int16)],
        [np.zeros(3, np.int16)],
        [np.array([[0.0, np.nan, 1.0]])],
        [np.zeros((2, 3), "M8[s]")],
        [np.array([["a", "b", "c"]])],
        [np.array([[None, 1, 2]], object)],
        [[[1, 2, 3]]],
        np.zeros((2, 5, 4), np.int16),
        pickle.dumps(objects(drawings(2))),  # two drawings where the header says one
        pickle.dumps(objects(drawings(1)))[:-20],
        b"",
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo index that would take gigabytes
    ],
)
def test_an_npz_without_drawings_is_an_error(tmp_path: Path, train: Any) -> None:
    with pytest.raises(ArchiveError, match=r"x\.npz: train\.npy"):
        read_npz(write_npz(tmp_path / "x.npz", train))


def test_a_zip_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path / "x.npz", pickle.dumps(b"\0" * 10**7))
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(sketchrnn_npz, "MAX_BYTES", 10**6)
    with pytest.raises(ArchiveError, match="inflates"):
        read_npz(path)


def test_a_truncated_npz_is_an_error(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", drawings(50))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArchiveError, match="not a complete"):
        read_npz(path)


def test_sketchrnn_files_are_fetched_unchanged(out: Path, tmp_path: Path) -> None:
    write_npz(tmp_path / "cat.full.npz", drawings(20))
    pig = write_npz(tmp_path / "pig.npz", drawings(7)).read_bytes()
    block = {
        "files": ["{}/sketch/pig.npz?alt=media", str(tmp_path / "cat.full.npz")],
        "max_concurrency": 2,
        "timeout": 5.0,
        "retries": 1,
    }
    with serve({"sketch/pig.npz": pig}) as site:
        block["files"][0] = block["files"][0].format(site.url)  # type: ignore[index]
        bind(sources.sketchrnn, block)(out, out.parent / "scratch", 0)
    fetched = manifest(out)
    assert fetched["format"] == "npz"
    assert fetched["categories"] == ["cat", "pig"]
    assert {key: len(found) for key, found in read_npz(out / "cat.full.npz").items()} == {
        "train": 20,
        "valid": 3,
        "test": 2,
    }
    assert (out / "pig.npz").read_bytes() == pig
    assert fetched["licence"] is None


def test_googles_files_have_googles_licence(out: Path, tmp_path: Path) -> None:
    path = "storage.googleapis.com/quickdraw_dataset/sketchrnn/pig.npz"
    pig = write_npz(tmp_path / "pig.npz", drawings(1)).read_bytes()
    with serve({path: pig}) as site:
        block = {
            "files": [f"{site.url}/{path}"],
            "max_concurrency": 1,
            "timeout": 5.0,
            "retries": 1,
        }
        bind(sources.sketchrnn, block)(out, out.parent / "scratch", 0)
    assert "Google" in manifest(out)["licence"]


def test_a_malicious_file_is_an_error_of_prepare(out: Path, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "cat.npz", attacks(tmp_path / "ran")["in an array"])
    block = {"files": [str(path)], "max_concurrency": 1, "timeout": 5.0, "retries": 1}
    bind(sources.sketchrnn, block)(out, out.parent / "scratch", 0)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    block = {
        "tolerated_rejects": 0.0, "validation": 0.1, "test": 0.1, "max_points": 100,
        "only_recognised": False, "shard_size": 100, "workers": 1,
    }  # fmt: skip
    prepare = bind(dataset.prepare, block)
    with pytest.raises(ArchiveError, match=r"cat\.npz.*contains (os|posix|nt)\.system"):
        prepare(out, prepared)
    assert not (tmp_path / "ran").exists()
    assert not (prepared / "manifest.json").exists()


# The user's own folder


def own(path: Path, out: Path, **changed: Any) -> dict[str, Any]:
    block = {"path": str(path), "form": "raw", "label": "file"}
    bind(sources.folder, block | changed)(out, out.parent / "scratch", 0)
    return manifest(out)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "below").mkdir(parents=True)
    (tmp_path / "mine" / "my cat.ndjson").write_bytes(file("cat", 5) + b"broken\n")
    (tmp_path / "mine" / "below" / "dog.ndjson").write_bytes(file("dog", 4))
    (tmp_path / "mine" / "notes.txt").write_text("no drawings")
    return tmp_path / "mine"


def test_a_folder_is_copied_with_its_subfolders(mine: Path, out: Path) -> None:
    fetched = own(mine, out)
    assert [entry["path"] for entry in fetched["files"]] == ["below/dog.ndjson", "my cat.ndjson"]
    assert fetched["categories"] == ["dog", "my cat"]
    assert (out / "my cat.ndjson").read_bytes() == (mine / "my cat.ndjson").read_bytes()


def test_files_labelled_by_word_have_no_category(mine: Path, out: Path) -> None:
    assert [entry["category"] for entry in own(mine, out, label="word")["files"]] == [None, None]


def test_a_folder_without_drawings_is_an_error(tmp_path: Path, out: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(SourceError, match=r"bare: contains no \.ndjson"):
        own(tmp_path / "bare", out)
    with pytest.raises(SourceError, match="absent: no such folder"):
        own(tmp_path / "absent", out)


def test_a_link_out_of_the_folder_is_an_error(mine: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (mine / "link.ndjson").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match=r"link\.ndjson: links to a file outside"):
        own(mine, out)
    assert not list(out.iterdir())


# The embedded drawings


def doodles(out: Path, seed: int, per_class: int, categories: Any = None) -> dict[str, Any]:
    block = {"categories": categories or ["fish", "house"], "per_class": per_class}
    bind(sources.doodles, block)(out, out.parent / "scratch", seed)
    return manifest(out)


def test_embedded_drawings_have_quickdraws_schema(out: Path) -> None:
    fetched = doodles(out, 1, 5, "all")
    assert len(fetched["categories"]) >= 20
    assert set(fetched["categories"]) <= set(QUICKDRAW)
    keys = set()
    for entry in fetched["files"]:
        for text in (out / entry["path"]).read_text().splitlines():
            drawn = json.loads(text)
            keys.add(drawn["key_id"])
            assert drawn["word"] == entry["category"]
            assert drawn["recognized"] is True
            assert all(len(xs) == len(ys) == len(ts) >= 1 for xs, ys, ts in drawn["drawing"])
            times = [time for _, _, ts in drawn["drawing"] for time in ts]
            assert times[0] == 0
            assert times == sorted(set(times)), "times increase"
    assert len(keys) == 5 * len(fetched["categories"]), "keys are unique"


def test_a_larger_per_class_extends_the_embedded_drawings(out: Path, tmp_path: Path) -> None:
    doodles(out, 1, 5)
    (tmp_path / "more").mkdir()
    doodles(tmp_path / "more", 1, 9, ["fish", "house", "apple"])
    for name in ["fish.ndjson", "house.ndjson"]:
        assert (tmp_path / "more" / name).read_bytes().startswith((out / name).read_bytes())


def test_the_embedded_drawings_are_a_function_of_the_seed(out: Path, tmp_path: Path) -> None:
    folders = [out, tmp_path / "again", tmp_path / "other"]
    for target, seed in zip(folders, [1, 1, 2], strict=True):
        target.mkdir(exist_ok=True)
        doodles(target, seed, 5)
    first, again, other = ((target / "fish.ndjson").read_bytes() for target in folders)
    assert first == again
    assert not set(first.splitlines()) & set(other.splitlines())


# TFDS


def bitmaps(name: str, count: int) -> np.ndarray:
    return np.random.default_rng(len(name)).integers(0, 256, (count, 784), dtype=np.uint8)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def tfds(out: Path, base_url: str, **changed: Any) -> dict[str, Any]:
    block: dict[str, Any] = {
        "data_dir": None,
        "base_url": base_url,
        "categories": ["hot dog", "cat"],
        "per_class": 30,
        "max_concurrency": 2,
        "timeout": 5.0,
        "retries": 1,
    }
    bind(sources.tfds, block | changed)(out, out.parent / "scratch", 0)
    return manifest(out)


def rows(out: Path) -> dict[str, list[bytes]]:
    """The bitmaps of each category in the data set, as anyone can read them with TFDS."""
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(out / manifest(out)["dataset"])
    names = builder.info.features["label"].names
    found: dict[str, list[bytes]] = {name: [] for name in names}
    for example in tensorflow_datasets.as_numpy(builder.as_dataset("train")):
        assert example["image"].shape == (28, 28, 1)
        found[names[example["label"]]].append(example["image"].tobytes())
    return {name: sorted(images) for name, images in found.items()}


@pytest.fixture
def bucket() -> Iterator[Site]:
    arrays = {"cat": bitmaps("cat", 5_000), "hot dog": bitmaps("hot dog", 20)}
    with serve({f"full/numpy_bitmap/{k}.npy": npy(v) for k, v in arrays.items()}) as site:
        yield site


def test_the_first_bitmaps_become_a_tfds_data_set(bucket: Site, out: Path) -> None:
    fetched = tfds(out, bucket.url)
    assert fetched["format"] == "tfds"
    assert fetched["categories"] == ["cat", "hot dog"]
    assert fetched["counts"] == {"cat": 30, "hot dog": 20}
    assert rows(out) == {
        "cat": sorted(row.tobytes() for row in bitmaps("cat", 5_000)[:30]),
        "hot dog": sorted(row.tobytes() for row in bitmaps("hot dog", 20)),
    }
    assert bucket.sent == 50 * 784 + 2 * 128, "only the rows and the headers are downloaded"


def test_the_same_bitmaps_give_the_same_bytes(bucket: Site, out: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert tfds(out, bucket.url) == tfds(tmp_path / "again", bucket.url)


@pytest.mark.parametrize(
    "content",
    [
        npy(bitmaps("cat", 20))[:-1],
        npy(bitmaps("cat", 20).astype(np.float32)),
        npy(bitmaps("cat", 20)[:, :100]),
        b"<html>not here</html>",
        b"",
    ],
)
def test_broken_bitmaps_are_an_error(bucket: Site, out: Path, content: bytes) -> None:
    assert isinstance(bucket.files, dict)
    bucket.files["full/numpy_bitmap/cat.npy"] = content
    with pytest.raises(SourceError, match=r"cat\.npy"):
        tfds(out, bucket.url)
    assert not list(out.iterdir())


def test_bitmaps_without_a_network_are_an_error(out: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UnreachableError, match="source: doodles"):
        tfds(out, f"http://127.0.0.1:{closed_port()}", categories="all")
    assert time.monotonic() - start < 2 * download.CONNECT + 5


def test_a_prepared_tfds_data_set_is_used(out: Path, tmp_path: Path) -> None:
    import tensorflow_datasets

    stock = tensorflow_datasets.builder_cls("quickdraw_bitmap")(data_dir=tmp_path / "theirs")
    images = {"cat": bitmaps("cat", 40), "dog": bitmaps("dog", 9), "hot dog": bitmaps("hot dog", 7)}
    stored = tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name="quickdraw_bitmap",
        version=stock.version,
        features=stock.info.features,
        split_datasets={
            "train": [
                (f"{name}_{i}", {"image": row.reshape(28, 28, 1), "label": name})
                for name, array in images.items()
                for i, row in enumerate(array)
            ]
        },
        data_dir=tmp_path / "theirs",
        download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False),
    )
    assert stored.is_prepared()
    fetched = tfds(out, "http://not.used.invalid", data_dir=str(tmp_path / "theirs"))
    assert fetched["counts"] == {"cat": 30, "hot dog": 7}
    found = rows(out)
    assert set(found["cat"]) < {row.tobytes() for row in images["cat"]}
    assert found["hot dog"] == sorted(row.tobytes() for row in images["hot dog"])


def test_a_data_dir_without_the_data_set_is_an_error(out: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no prepared quickdraw_bitmap"):
        tfds(out, "http://not.used.invalid", data_dir=str(tmp_path))
