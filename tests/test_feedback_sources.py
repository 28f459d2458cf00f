"""The source `feedback`: labelled requests are added to the data, never to the test split."""

from collections import Counter
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ostinato import inputs, params, store
from ostinato.errors import DataError, ParamsError, SourceError
from ostinato.sketches import sources
from ostinato.sketches.dataset import raw_files
from ostinato.sketches.formats.raw import RawFile, RawManifest
from ostinato.study import Study
from ostinato.translation import sources as translation
from ostinato.translation.formats.parallel_text import read_pairs
from ostinato.translation.formats.raw import RawManifest as PairManifest
from tests import served_log

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BASE = {"source": "doodles", "doodles": {"categories": ["circle", "house"], "per_class": 4}}


def drawing(number: int) -> dict[str, Any]:
    return {"strokes": [[[0, 10.25 + number, 40], [5, 60, 30.5]]]}


def fetch(folder: Path, base: Any = None, labels: Path | None = None) -> RawManifest:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    block = {
        "base": base or BASE,
        "log": str(folder / "log"),
        "model": "sketches",
        "labels": labels and str(labels),
    }
    params.bind(sources.feedback, block)(raw, folder, 1)
    return RawManifest.read(raw)


def log(folder: Path, given: list[Any], truth: list[Any]) -> list[dict[str, Any]]:
    rows = served_log.answers("sketches", NOW, given, [{"label": "circle"}] * len(given))
    served_log.write(folder / "log", "requests", rows)
    served_log.write(folder / "log", "feedback", served_log.truths(rows, truth, NOW))
    return rows


def added_lines(folder: Path) -> list[Any]:
    return [orjson.loads(x) for x in (folder / "raw/feedback.ndjson").read_bytes().splitlines()]


def test_labelled_drawings_are_added_and_everything_else_is_counted(tmp_path: Path) -> None:
    given = [drawing(n) for n in (0, 1, 2, 2, 3, 3, 4, 5)]
    truth = ["circle", "house", "house", "house", "circle", "house", "dog", 7]
    rows = log(tmp_path, given, truth)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        f"request_id,truth\n{rows[0]['request_id']},circle\n{rows[1]['request_id']},circle\nno,circle\n"
    )
    found = fetch(tmp_path, labels=labels)
    assert found.source == "feedback"
    assert found.feedback == {
        "joined": 7,  # all but the second, of which the file says otherwise
        "unknown": 1,
        "doubled": 1,
        "contradicting": 2 + 2,  # by its labels; equal drawings of two categories
        "unusable": 1,
        "without input": 0,
        "added": 2,
        "unknown category": 1,
        "equal drawings": 1,
    }
    *base, added = found.files
    assert [file.tested for file in base] == [True, True]
    assert (added.path, added.category, added.tested) == ("feedback.ndjson", None, False)
    assert {line["word"]: line["drawing"] for line in added_lines(tmp_path)} == {
        "circle": drawing(0)["strokes"],
        "house": drawing(2)["strokes"],
    }
    assert fetch(tmp_path, labels=labels) == found


def test_feedback_is_trained_on_and_never_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, [drawing(n) for n in range(60)], ["circle", "house"] * 30)
    source = fetch(tmp_path)
    chunks = raw_files.chunks(tmp_path / "raw", source, max_points=100, only_recognised=False)
    found: dict[str, Any] = {}
    prepare: Any = import_module("ostinato.sketches.dataset.prepare")
    monkeypatch.setattr(prepare.shards, "spill", lambda rows, names, path: rows.splits)
    for chunk in chunks:
        fractions = {"train": 0.1, "validation": 0.3, "test": 0.6}
        _, found[chunk.file] = prepare._read_and_spill(fractions, [chunk], tmp_path)
    assert 2 in np.concatenate([found["circle.ndjson"], found["house.ndjson"]])
    counts = np.bincount(found["feedback.ndjson"], minlength=3)
    assert counts[0] > counts[1] > 5
    assert counts[2] == 0


def test_raw_drawings_are_simplified_for_a_base_of_simplified_ones(tmp_path: Path) -> None:
    log(tmp_path, [drawing(0)], ["circle"])
    lines = [{"key_id": "a", "word": "circle", "drawing": [[[0, 255], [0, 255]]]}]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "circle.ndjson").write_bytes(b"".join(orjson.dumps(x) for x in lines))
    folder = {"path": str(tmp_path / "own"), "form": "simplified", "label": "file"}
    fetch(tmp_path, {"source": "folder", "folder": folder})
    (line,) = added_lines(tmp_path)
    points = np.array(line["drawing"][0])
    assert points.max() == 255
    assert points.dtype.kind == "i"


def test_without_labels_the_data_are_those_of_the_base(tmp_path: Path) -> None:
    rows = served_log.answers("sketches", NOW, [drawing(0)], [{}])
    served_log.write(tmp_path / "log", "requests", rows)
    found = fetch(tmp_path)
    assert [file.path for file in found.files] == ["circle.ndjson", "house.ndjson"]
    assert found.feedback["added"] == 0


def test_a_log_without_inputs_says_what_to_set(tmp_path: Path) -> None:
    log(tmp_path, [None, None], ["circle", "house"])
    with pytest.raises(DataError, match="start the server with --log-inputs keep"):
        fetch(tmp_path)


def test_a_base_that_cannot_be_extended_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, [drawing(0)], ["circle"])

    def archive(folder: Path, scratch: Path, seed: int) -> None:
        file = RawFile("a.npz", "circle", 1)
        RawManifest("sketchrnn", "npz", None, ["circle"], [file]).write(folder)

    monkeypatch.setattr(params, "function", lambda module, name: archive)
    monkeypatch.setattr(params, "fetch_problems", lambda module, block: [])
    with pytest.raises(SourceError, match="base: sketchrnn provides npz"):
        fetch(tmp_path, {"source": "sketchrnn", "sketchrnn": {}})


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"source": "feedback"}, "another source than feedback"),
        ({"source": "doodles", "doodles": {"per_class": 0}}, "doodles.per_class"),
        ({"source": "quickdrw"}, "no source 'quickdrw'; did you mean 'quickdraw'"),
    ],
)
def test_a_wrong_base_is_named(tmp_path: Path, base: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        fetch(tmp_path, base)


def test_the_log_and_the_files_of_the_base_are_inputs_of_the_graph() -> None:
    folder = {"path": "own", "form": "raw", "label": "file"}
    block = {"base": {"source": "folder", "folder": folder}, "log": "log", "labels": "more.csv"}
    data = {"domain": "sketches", "fetch": {"source": "feedback", "feedback": block}}
    study = Study(Path("params.yaml"), {"data": {"a": data}})
    found = dict(inputs.local_inputs(study, "a"))
    assert found == {
        "feedback.base.folder.path": "own",
        "feedback.log": "log",
        "feedback.labels": "more.csv",
    }


def test_corrected_translations_are_trained_on_and_never_tested(tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("".join(f"Text {n}\tTexte {n}\n" for n in range(40)))
    given = [{"text": f"Word number {n}"} for n in range(60)]
    rows = served_log.answers("translation", NOW, given, [{"translation": "x"}] * 60)
    served_log.write(tmp_path / "log", "requests", rows)
    truth = [f"Mot {n}" for n in range(59)] + [" "]
    served_log.write(tmp_path / "log", "feedback", served_log.truths(rows, truth, NOW))
    raw = tmp_path / "raw"
    raw.mkdir()
    tsv = {"languages": ["en", "fr"], "file": str(tmp_path / "own.tsv"), "columns": [1, 2],
           "timeout": 1.0, "retries": 1}  # fmt: skip
    block = {"base": {"source": "tsv", "tsv": tsv}, "log": str(tmp_path / "log"),
             "model": "translation", "labels": None}  # fmt: skip
    params.bind(translation.feedback, block)(raw, tmp_path, 1)
    manifest = store.read_json(raw / "manifest.json")
    assert (manifest["source"], manifest["base"]) == ("feedback", "tsv")
    assert (manifest["feedback"]["added"], manifest["feedback"]["unusable"]) == (59, 1)
    pairs = list(read_pairs(raw, PairManifest.read(raw)))
    assert len(pairs) == 99
    prepare: Any = import_module("ostinato.translation.dataset.prepare")
    partitions = [tmp_path / f"part-{number}" for number in range(prepare.PARTITIONS)]
    counts: Counter[str] = Counter()
    prepare._partition(pairs, partitions, {"test": 0.5, "validation": 0.2}, 0.0, 1.0, counts)
    written = [row for part in partitions for row in prepare._rows(part)]
    splits = Counter(row.split for row in written if row.source.startswith("Word"))
    assert splits["test"] == 0
    assert splits["train"] > 5
    assert splits["validation"] > 3
    assert splits.total() + counts["leak"] == 59
    assert Counter(row.split for row in written if row.source.startswith("Text"))["test"] > 10
