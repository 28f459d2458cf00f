"""Local files that sources read are inputs of the graph; remote ones are looked at by flows."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from ruamel.yaml import YAML

from flows.engine import origins
from ostinato import download, inputs, params, store
from ostinato.errors import SourceError
from ostinato.study import Study
from ostinato.units import LocationType, type_arguments
from stages import fetch
from tests.servers import serve

DRAWING = {"word": "moon", "drawing": [[[0, 9, 9], [0, 0, 9], [0, 1, 2]]], "key_id": "1"}


def study_of(fetch_block: dict[str, Any], domain: str = "sketches") -> Study:
    """A study with one data set, read from a params.yaml in the working directory."""
    values = {
        "root": ".", "at": "", "seed": 1, "runs": {}, "ensembles": {},
        "data": {"mine": {"domain": domain, "fetch": fetch_block, "prepare": {}}},
    }  # fmt: skip
    YAML().dump(values, Path("params.yaml"))
    return Study.load()


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


def folder_source(path: str = "drawings") -> dict[str, Any]:
    return {"source": "folder", "folder": {"path": path, "form": "raw", "label": "file"}}


def written(study: Study) -> dict[str, Any]:
    inputs.write(study)
    found: dict[str, Any] = store.read_json(study.inputs_folder / "mine.json")
    return found


def test_each_change_of_a_local_folder_changes_the_state(tmp_path: Path) -> None:
    study, folder = study_of(folder_source()), tmp_path / "drawings"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.ndjson").write_text("1")
    (folder / "deep" / "b.ndjson").write_text("2")
    first = written(study)
    assert first["folder.path"]["files"] == 2
    assert written(study) == first
    (folder / "a.ndjson").touch()
    assert written(study) == first, "a time is no content"
    changes = {
        "new": lambda: (folder / "deep" / "c.ndjson").write_text("1"),
        "same size": lambda: (folder / "a.ndjson").write_text("3"),
        "renamed": lambda: (folder / "a.ndjson").rename(folder / "d.ndjson"),
        "removed": lambda: (folder / "d.ndjson").unlink(),
    }
    seen = [first]
    for what, change in changes.items():
        change()
        now = written(study)
        assert now not in seen, what
        seen.append(now)


def test_the_state_is_that_of_the_contents_wherever_they_are(tmp_path: Path) -> None:
    states = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.ndjson").write_text("1")
        states.append(written(study_of(folder_source(name))))
    assert states[0] == states[1]


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(folder_source())
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "a.ndjson").write_text("1")
    first = written(study)
    monkeypatch.setattr(inputs, "_md5", lambda file: pytest.fail(f"{file} is read again"))
    assert written(study) == first


def test_a_large_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_READ_BYTES", 3)
    monkeypatch.setattr(inputs, "_md5", lambda file: pytest.fail(f"{file} is read"))
    study, file = study_of(folder_source()), tmp_path / "drawings" / "a.ndjson"
    file.parent.mkdir()
    file.write_text("12345")
    first = written(study)
    assert written(study) == first
    os.utime(file, (1, 1))
    assert written(study) != first


def test_embedded_data_and_urls_have_no_local_input() -> None:
    assert written(study_of({"source": "doodles", "doodles": {}})) == {}
    block = {"where": "https://example.org/a.csv"}
    assert written(study_of({"source": "csv", "csv": block}, "forecasting")) == {}


def test_a_block_that_is_not_chosen_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "drawings").mkdir()
    assert written(study_of({**folder_source(), "source": "doodles", "doodles": {}})) == {}


def test_the_drawings_of_a_video_source_are_an_input(tmp_path: Path) -> None:
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "a.ndjson").write_text("1")
    block = {"source": "order", "order": {"drawings": folder_source(), "frames": 12}}
    assert set(written(study_of(block, "video"))) == {"order.drawings.folder.path"}


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert inputs.state(tmp_path, {}, {})["files"] == 4


def test_a_file_without_permission_is_left_to_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    seen: dict[str, list[Any]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
        before = inputs.state(tmp_path, {}, seen)
    assert before["files"] == 1
    assert inputs.state(tmp_path, seen, {}) != before


def test_a_list_of_files_is_an_input(tmp_path: Path) -> None:
    (tmp_path / "cat.npz").write_text("1")
    block = {"files": ["cat.npz", "https://example.org/dog.npz"]}
    found = written(study_of({"source": "sketchrnn", "sketchrnn": block}))
    assert set(found) == {"sketchrnn.files[0]"}


def test_what_is_not_on_this_computer_keeps_its_last_state(tmp_path: Path) -> None:
    study, folder = study_of(folder_source()), tmp_path / "drawings"
    assert written(study) == {"folder.path": None}
    folder.mkdir()
    (folder / "a.ndjson").write_text("1")
    first = written(study)
    folder.rename(tmp_path / "elsewhere")
    assert written(study) == first


def test_the_state_of_a_removed_data_set_is_removed(tmp_path: Path) -> None:
    study = study_of(folder_source())
    written(study)
    store.write_json(study.inputs_folder / "former.json", {})
    inputs.write(study)
    assert [file.name for file in study.inputs_folder.iterdir()] == ["mine.json"]


def test_a_relative_path_is_found_from_an_experiment_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main" / "drawings").mkdir(parents=True)
    (tmp_path / "main" / "drawings" / "moon.ndjson").write_text(json.dumps(DRAWING) + "\n")
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    study_of(folder_source())
    monkeypatch.setattr(fetch, "load_study", Study.load)
    with pytest.raises(SourceError, match=f"looked for at {tmp_path}/temporary/drawings"):
        fetch.main("params.yaml", "mine")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    fetch.main("params.yaml", "mine")
    assert Path("data/raw/mine/moon.ndjson").exists()


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "drawings").mkdir(parents=True)
    block = {"path": "~/drawings", "form": "raw", "label": "file"}
    found = inputs.found("sketches", "folder", block, "data.mine.fetch.folder")
    assert found["path"] == str(tmp_path / "home" / "drawings")


def every_parameter() -> Iterator[Any]:
    for domain in params.domains():
        sources = params.module(domain, "sources")
        for name, function in params.functions(sources).items():
            for key, hint in get_type_hints(function, include_extras=True).items():
                if key not in ("folder", "scratch", "seed", "return"):
                    yield pytest.param(function, key, hint, id=f"{domain}.{name}.{key}")


@pytest.mark.parametrize(("function", "key", "hint"), list(every_parameter()))
def test_a_parameter_that_names_files_has_the_type_location(
    function: Any, key: str, hint: Any
) -> None:
    """TFDS's data folder is not watched: it is never changed, and may have hundreds of GB."""
    named = key in ("path", "where", "base_url", "file", "files", "train", "test")
    texts = hint in (str, str | None, list[str])
    marked = any(isinstance(part, LocationType) for part in type_arguments(hint))
    assert marked or not (named and texts)


# Remote files


def fetched(url: str) -> None:
    """What the stage fetch does in a process of its own."""
    download._states.clear()
    study = Study.load()
    raw = study.raw_folder("mine") / "a.csv"
    raw.unlink(missing_ok=True)
    raw.parent.mkdir(parents=True, exist_ok=True)
    download.fetch_all({raw: url}, download.Whole, max_concurrency=1, timeout=5, retries=0)
    store.write_json(study.urls_file("mine"), download.states())
    lock = {"cmd": "x", "outs": [{"path": "data/raw/mine", "md5": raw.read_text()}]}
    YAML().dump({"stages": {"fetch@mine": lock}}, Path("dvc.lock"))


def test_a_flow_fetches_only_what_may_be_new() -> None:
    study = study_of({"source": "doodles", "doodles": {}})
    with serve({"a.csv": b"1"}) as site:
        assert origins.may_be_new(study, "mine"), "never fetched"
        fetched(f"{site.url}/a.csv")
        origins.remember(study, "mine")
        reads = len(site.gets)
        assert not origins.may_be_new(study, "mine")
        assert len(site.gets) == reads, "only looked at"
        site.files = {"a.csv": b"2"}
        assert origins.may_be_new(study, "mine")
        former = Path("dvc.lock").read_bytes()
        fetched(f"{site.url}/a.csv")
        origins.remember(study, "mine")
        assert not origins.may_be_new(study, "mine")
        Path("dvc.lock").write_bytes(former)  # the flow has restored the former data
        assert origins.may_be_new(study, "mine")
        site.files = {}
        assert origins.may_be_new(study, "mine"), "the fetch reports the missing file"


def test_a_server_that_tells_no_version_is_read_again() -> None:
    study = study_of({"source": "doodles", "doodles": {}})
    with serve({"a.csv": b"1"}) as site:
        site.validators = False
        fetched(f"{site.url}/a.csv")
        origins.remember(study, "mine")
        assert origins.may_be_new(study, "mine")
    assert origins.may_be_new(study, "mine"), "a server that is away"


def test_a_file_of_an_earlier_process_has_no_known_state(tmp_path: Path) -> None:
    download._states.clear()
    (tmp_path / "a").write_text("1")
    url = "http://127.0.0.1:9/a"
    download.fetch_all(
        {tmp_path / "a": url}, download.Whole, max_concurrency=1, timeout=1, retries=0
    )
    assert download.states() == {url: None}
