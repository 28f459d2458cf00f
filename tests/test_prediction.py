"""Batch prediction: every input of the files once, in order, also after kills; or a reason."""

import bz2
import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ostinato import cli, params, progress
from ostinato.errors import OstinatoError, ParamsError, RequestError, SourceError, StoreError
from ostinato.serving import classification
from ostinato.serving.loading import Interface, Loaded
from ostinato.serving.prediction import command, parts, predict, tables
from ostinato.serving.settings import PREDICT_OPTIONS, read_options
from ostinato.task import Json
from ostinato.translation.serving import Response as Translated
from ostinato.translation.serving import Translation

ROOT = Path(__file__).parent.parent
WIDE = 900.0  # of a drawing that the model refuses
HUGE = 901.0  # of one whose response is not finite
BUG = 902.0  # of one on which the model fails


class Killed(BaseException):
    """Ends a run as a signal would."""


@dataclass(eq=False)
class Drawings:
    """Classifies drawings by their number of points; keeps the size of each batch."""

    batches: list[int] = field(default_factory=list)
    dies: Callable[[int], bool] = lambda batch: False

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
        if self.dies(len(self.batches)):
            raise Killed
        for number, each in enumerate(inputs):
            width = max(each.strokes[0][0])
            if width == WIDE:
                raise RequestError(f"drawing {number}: too wide\n for the model")
            if width == BUG:
                raise ZeroDivisionError
        self.batches.append(len(inputs))
        return [self._answer(each.strokes[0][0], options["top_k"]) for each in inputs]

    def _answer(self, xs: list[float], top_k: Any) -> BaseModel:
        p = np.array([1 / len(xs), 1 - 1 / len(xs)])
        if max(xs) == HUGE:
            p[:] = np.nan
        return classification.response(p, ["long", "short"], top_k)


@dataclass(eq=False)
class Fake:
    """A source with one version of a model that is no file."""

    service: Any = field(default_factory=Drawings)
    domain: str = "sketches"
    version: str = "3"
    name: str = "model"

    def __post_init__(self) -> None:
        self.interface = Interface.of(self.domain)

    def current(self) -> str:
        return self.version

    def load(self, version: str) -> Loaded:
        return Loaded(version, self.service, {"run": "fake", "model": "0123"})


def line(number: int, points: int = 3, width: float | None = None) -> str:
    xs = [*range(points - 1), points if width is None else width]
    content = {"key_id": f"key{number}", "word": "x", "drawing": [[xs, xs[::-1]]]}
    return json.dumps(content) + "\n"


def write_drawings(path: Path, count: int, first: int = 0) -> Path:
    text = "".join(line(n, 2 + n * 7 % 11) for n in range(first, first + count))
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four records, and no wait for the disk."""
    monkeypatch.setattr(predict, "PART_RECORDS", 4)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """A folder with 10 and 7 drawings."""
    folder = tmp_path / "drawings"
    (folder / "more").mkdir(parents=True)
    write_drawings(folder / "a.ndjson", 10)
    write_drawings(folder / "more" / "b.ndjson", 7, first=10)
    (folder / "notes.txt").write_text("not read")
    return folder


def run(inputs: Path, output: Path, source: Fake | None = None, **more: Any) -> predict.Summary:
    options = more.pop("options", {})
    return predict.predict(source or Fake(), inputs, output, options=options, **more)


def rows_of(output: Path) -> list[dict[str, Any]]:
    if output.suffix == ".parquet":
        maps = [f.name for f in pq.read_schema(output) if str(f.type).startswith("map")]
        rows = pq.read_table(output).to_pylist()
        return [{k: dict(v) if k in maps else v for k, v in row.items()} for row in rows]
    if output.suffix == ".csv":
        with output.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(text) for text in output.read_text("utf-8").split("\n")[:-1]]


def rejects_of(output: Path) -> list[dict[str, str]]:
    return [json.loads(text) for text in parts.rejects_of(output).read_text().splitlines()]


def lineage_of(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(parts.lineage_of(output).read_text())
    return content


# The output


def test_each_input_has_a_row_with_key_response_model_and_version(
    drawings: Path, tmp_path: Path
) -> None:
    summary = run(drawings, tmp_path / "out.ndjson", options={"top_k": 1})
    assert (summary.answered, summary.rejected, summary.rows) == (17, 0, 17)
    rows = rows_of(tmp_path / "out.ndjson")
    assert [row["key_id"] for row in rows] == [f"key{n}" for n in range(17)]
    assert [row["line"] for row in rows] == [*range(1, 11), *range(1, 8)]
    assert {row["file"] for row in rows[10:]} == {"more/b.ndjson"}
    assert rows[1] == {
        "file": "a.ndjson", "line": 2, "key_id": "key1", "label": "short",
        "probability": pytest.approx(8 / 9), "probabilities": {"short": pytest.approx(8 / 9)},
        "model": "model", "version": "3",
    }  # fmt: skip
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "drawings", "out.ndjson", "out.ndjson.json",
    ]  # fmt: skip


def test_all_kinds_of_tables_have_the_same_content(drawings: Path, tmp_path: Path) -> None:
    found = {}
    for suffix in tables.SUFFIXES:
        run(drawings, tmp_path / f"out{suffix}")
        found[suffix] = rows_of(tmp_path / f"out{suffix}")
    assert found[".parquet"] == found[".ndjson"]
    for cells, row in zip(found[".csv"], found[".ndjson"], strict=True):
        assert cells.keys() == row.keys()
        assert json.loads(cells["probabilities"]) == row["probabilities"]
        assert float(cells["probability"]) == row["probability"]
        assert cells["key_id"] == row["key_id"]
    names = pq.read_schema(tmp_path / "out.parquet").names
    assert names == list(found[".ndjson"][0])


def test_nested_responses_are_lists_and_structs_in_parquet(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"text": "b", "log_probability": -0.5, "score": 1.0, "words": ["b"]}
    best = Translation(**plain, alignment=[[0.25, 0.75]], alignment_starts=[0])
    copy = Translation(**plain, alignment=None, alignment_starts=None)
    response = Translated(
        translation="b", language="fr", log_probability=-0.5, score=1.0, split=False,
        source_words=["a", "b"], translations=[best, copy],
    )  # fmt: skip
    columns = predict.format_of("translation").columns(SimpleNamespace())
    part, whole = tmp_path / "0.parquet", tmp_path / "all.parquet"
    tables.write(part, [response.model_dump()], columns)
    tables.write(tmp_path / "1.parquet", [], columns)
    tables.join([part, tmp_path / "1.parquet"], whole, columns)
    assert pq.read_table(whole).to_pylist() == [response.model_dump()]


def test_the_lineage_has_model_input_options_and_counts(drawings: Path, tmp_path: Path) -> None:
    run(drawings, tmp_path / "out.csv", options={"top_k": 2, "simplified": False})
    lineage = lineage_of(tmp_path / "out.csv")
    assert [lineage[key] for key in ("name", "version", "domain")] == ["model", "3", "sketches"]
    assert lineage["lineage"] == {"run": "fake", "model": "0123"}
    assert lineage["options"] == {"top_k": 2, "simplified": False}
    assert [file["name"] for file in lineage["input"]["files"]] == ["a.ndjson", "more/b.ndjson"]
    assert lineage["counts"] == {"answered": 17, "rejected": 0, "rows": 17, "continued": 0}
    assert len(lineage["input"]["files"][0]["sha256"]) == 64
    assert pd.Timestamp(lineage["started"]).tz is not None


def test_inputs_of_similar_size_share_a_batch(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[list[int]] = []

    class Ordered(Drawings):
        def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
            sizes.append([len(each.strokes[0][0]) for each in inputs])
            return super().predict(inputs, options)

    monkeypatch.setattr(predict, "PART_RECORDS", 100)
    run(drawings, tmp_path / "out.csv", Fake(Ordered()))
    assert [sorted(batch) for batch in sizes] == sizes


# Kills


class Renames:
    """Ends a run at its n-th rename, before it or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
        self.after, self.left, replace = after, 0, Path.replace

        def replaced(path: Path, target: Path) -> Path:
            self.left -= 1
            if self.left == 0 and not after:
                raise Killed
            found = replace(path, target)
            if self.left == 0:
                raise Killed
            return found

        monkeypatch.setattr(Path, "replace", replaced)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_a_run_that_is_killed_at_any_rename_continues_to_the_same_bytes(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, after: bool
) -> None:
    with (drawings / "a.ndjson").open("a") as file:
        file.write("broken\n")
    run(drawings, tmp_path / f"whole{suffix}")
    expected = (tmp_path / f"whole{suffix}").read_bytes()
    renames, kills = Renames(monkeypatch, after), 0
    while True:
        output = tmp_path / f"{kills}{suffix}"
        renames.left = kills + 1
        try:
            run(drawings, output)
        except Killed:
            kills += 1
        else:
            break
        done = len(list(parts.folder_of(output).glob("??????.json")))
        service = Drawings()
        summary = run(drawings, output, Fake(service))
        assert output.read_bytes() == expected
        assert summary.continued == min(4 * done, 18)
        assert sum(service.batches) + (min(4 * done, 18) - (done > 2)) == 17
        assert [reject["place"] for reject in rejects_of(output)] == ["line 11"]
        assert lineage_of(output)["counts"]["continued"] == summary.continued
        assert not parts.folder_of(output).exists()
    assert kills == 1 + 5 * 2 + 3  # description, five parts, rejects, lineage and output


def test_a_run_that_is_killed_while_it_predicts_answers_nothing_twice(
    drawings: Path, tmp_path: Path
) -> None:
    run(drawings, tmp_path / "whole.csv")
    services = []
    for batch in (1, 0, 2, 9):
        services.append(Drawings(dies=batch.__eq__))
        try:
            run(drawings, tmp_path / "out.csv", Fake(services[-1]))
        except Killed:
            assert not (tmp_path / "out.csv").exists()
    assert [service.batches for service in services] == [[4], [], [4, 4], [4, 1]]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("change", ["version", "options", "input", "output"])
def test_another_run_does_not_continue_and_says_what_differs(
    drawings: Path, tmp_path: Path, change: str
) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(Killed):
        run(drawings, output, Fake(Drawings(dies=(2).__eq__)))
    source, options = Fake(), {}
    if change == "version":
        source.version = "4"
    elif change == "options":
        options = {"top_k": 1}
    elif change == "input":
        write_drawings(drawings / "more" / "b.ndjson", 7, first=11)
    else:
        source.name = "other"
    what = {"version": "version \\(3, now 4\\)", "output": "model \\(model, now other\\)"}
    with pytest.raises(StoreError, match=rf"had another {what.get(change, change)}.*overwrite"):
        run(drawings, output, source, options=options)
    assert len(list(parts.folder_of(output).glob("??????.csv"))) == 2
    summary = run(drawings, output, source, options=options, overwrite=True)
    assert (summary.answered, summary.continued) == (17, 0)


def test_an_unfinished_run_continues_with_overwrite_too(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(drawings, tmp_path / "out.csv", Fake(Drawings(dies=(2).__eq__)))
    assert run(drawings, tmp_path / "out.csv", overwrite=True).continued == 8


def test_one_process_writes_an_output_at_a_time(drawings: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"

    class Slow(Drawings):
        def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
            with pytest.raises(StoreError, match="another process is writing"):
                run(drawings, output)
            return super().predict(inputs, options)

    assert run(drawings, output, Fake(Slow())).answered == 17


def test_a_file_that_changes_in_the_meantime_is_an_error(drawings: Path, tmp_path: Path) -> None:
    class Late(Drawings):
        def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
            os.utime(drawings / "more" / "b.ndjson", ns=(1, 1))
            return super().predict(inputs, options)

    with pytest.raises(SourceError, match=r"more/b\.ndjson: changed while it was read"):
        run(drawings, tmp_path / "out.csv", Fake(Late()))
    assert not (tmp_path / "out.csv").exists()


DRIVER = """
import os, signal, sys
from pathlib import Path
import tests.test_prediction as t
os.fsync = lambda file: None  # a signal ends the process, not the computer
folder, suffix = Path(sys.argv[1]), sys.argv[2]
t.predict.PART_RECORDS = 4
t.run(folder / "drawings", folder / f"whole{suffix}")
expected = (folder / f"whole{suffix}").read_bytes()
replace, left = Path.replace, 0
def replaced(path, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
for number in range(1, 99):
    output = folder / f"{number}{suffix}"
    if not (child := os.fork()):
        Path.replace, left = replaced, number
        t.run(folder / "drawings", output)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    t.run(folder / "drawings", output)
    assert output.read_bytes() == expected, number
    assert not t.parts.folder_of(output).exists()
print(number)
"""


@pytest.mark.slow
def test_a_run_that_gets_sigkill_continues_to_the_same_bytes(
    drawings: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), ".ndjson"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 1 + 5 * 2 + 2 + 1  # the last one was not killed


# Rejects


def test_what_cannot_be_answered_is_kept_with_place_and_reason(
    drawings: Path, tmp_path: Path
) -> None:
    (drawings / "c.ndjson").write_text("[1, 2]\n")
    lines = [line(0), "{}\n", line(2, width=WIDE), line(3, width=HUGE), "\n", line(5), "no\n"]
    (drawings / "d.ndjson").write_text("".join(lines))
    summary = run(drawings, tmp_path / "out.csv")
    assert (summary.answered, summary.rejected) == (19, 5)
    found = rejects_of(tmp_path / "out.csv")
    assert [(each["file"], each["place"]) for each in found] == [
        ("c.ndjson", ""), ("d.ndjson", "line 2"), ("d.ndjson", "line 3"), ("d.ndjson", "line 4"),
        ("d.ndjson", "line 7"),
    ]  # fmt: skip
    reasons = [each["reason"] for each in found]
    assert reasons[0].startswith("found a JSON array; write one object on each line")
    assert reasons[1:3] == ["no field 'key_id'", "too wide for the model"]
    assert reasons[3].startswith("its response has no finite probability")
    assert list(summary.rejects) == [parts.Reject(**each) for each in found[:3]]
    keys = [row["key_id"] for row in rows_of(tmp_path / "out.csv")]
    assert keys == [f"key{n}" for n in [*range(10), 0, 5, *range(10, 17)]]


def test_rejects_of_an_earlier_run_do_not_stay(drawings: Path, tmp_path: Path) -> None:
    (drawings / "c.ndjson").write_text("broken\n")
    run(drawings, tmp_path / "out.csv")
    (drawings / "c.ndjson").unlink()
    run(drawings, tmp_path / "out.csv", overwrite=True)
    assert not parts.rejects_of(tmp_path / "out.csv").exists()


def test_a_bug_of_the_model_keeps_its_traceback_and_says_where(
    drawings: Path, tmp_path: Path
) -> None:
    with (drawings / "a.ndjson").open("a") as file:
        file.write(line(0, width=BUG))
    with pytest.raises(ZeroDivisionError) as caught:
        run(drawings, tmp_path / "out.csv")
    (note,) = caught.value.__notes__
    assert "from a.ndjson, line 9 to more/b.ndjson, line 1" in note


class Numbers:
    """Refuses some numbers; names them, or only says that there is one."""

    def __init__(self, named: bool) -> None:
        self.named, self.answered = named, list[int]()

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[Any]:
        for index, each in enumerate(inputs):
            if each < 0:
                raise RequestError(f"number {index}: negative" if self.named else "too much")
        self.answered += inputs
        return [SimpleNamespace(model_dump=dict, number=each) for each in inputs]


@given(st.lists(st.integers(-3, 9)), st.booleans())
def test_refused_inputs_do_not_change_the_answers_to_the_others(
    numbers: list[int], named: bool
) -> None:
    service = Numbers(named)
    found = predict.respond(service, numbers, {})
    assert [getattr(each, "number", None) for each in found] == [
        number if number >= 0 else None for number in numbers
    ]
    assert service.answered == [number for number in numbers if number >= 0]


# Empty input, and paths


def test_nothing_to_read_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"0 files are read.*expected files that end with .ndj"):
        run(tmp_path / "empty", tmp_path / "out.csv")
    with pytest.raises(SourceError, match="no such file or folder"):
        run(tmp_path / "missing", tmp_path / "out.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_an_empty_file_gives_an_empty_table(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "empty.ndjson").write_text("")
    output = tmp_path / f"out{suffix}"
    assert run(tmp_path / "empty.ndjson", output).answered == 0
    assert rows_of(output) == []
    if suffix == ".csv":
        assert output.read_text().startswith("file,line,key_id,label")


def refusals(folder: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "out.csv", "lies in the input"
    yield folder / "more" / "out.csv", "lies in the input"
    yield tmp_path / "out.xlsx", "expected an output that ends with"
    yield tmp_path / "missing" / "out.csv", "no such folder"
    (tmp_path / "folder.csv").mkdir()
    yield tmp_path / "folder.csv", "is a folder"
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    yield tmp_path / "link.csv", "is a link"
    (tmp_path / "inside").symlink_to(folder)
    yield tmp_path / "inside" / "out.csv", "lies in the input"
    (tmp_path / "there.csv").write_text("of the user")
    yield tmp_path / "there.csv", "exists; remove it, or set --overwrite"
    (tmp_path / "mine.csv.parts").mkdir()
    (tmp_path / "mine.csv.parts" / "thesis.txt").write_text("of the user")
    yield tmp_path / "mine.csv", "found thesis.txt; expected parts of an output only"


def test_no_file_of_the_user_is_written_over(drawings: Path, tmp_path: Path) -> None:
    for output, message in refusals(drawings, tmp_path):
        with pytest.raises(OstinatoError, match=message):
            run(drawings, output)
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        run(drawings, tmp_path / "mine.csv", overwrite=True)
    assert (tmp_path / "there.csv").read_text() == "of the user"
    assert (tmp_path / "mine.csv.parts" / "thesis.txt").exists()
    assert not list(tmp_path.glob("there.csv.*"))
    alone = write_drawings(tmp_path / "alone.ndjson", 2)
    with pytest.raises(SourceError, match="lies in the input"):
        run(alone, alone, overwrite=True)


def test_a_link_out_of_the_folder_is_not_followed(drawings: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.ndjson").write_text(line(1))
    (drawings / "z.ndjson").symlink_to(tmp_path / "secret.ndjson")
    with pytest.raises(SourceError, match="links to a file outside"):
        run(drawings, tmp_path / "out.csv")


def test_a_folder_that_cannot_be_written_is_an_error(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write", full)
    with pytest.raises(StoreError, match=r"000000\.csv: not written: No space left.*continues"):
        run(drawings, tmp_path / "out.csv")


# The command


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    source = Fake()
    monkeypatch.setattr(command, "source", lambda text: source)
    return source


def test_the_command_says_what_it_did(
    fake: Fake, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (drawings / "c.ndjson").write_text("broken\n" * 5)
    output = tmp_path / "out.csv"
    arguments = ["predict", "model", str(drawings), str(output)]
    assert cli.main([*arguments, "-S", "top_k=1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{output}: answered 17 of 22 drawings, 17 rows, in ")
    assert f"5 were rejected, see {output}.rejects.ndjson:\n  c.ndjson, line 1: not JSON" in err
    assert err.endswith("  ...\n")
    assert lineage_of(output)["options"] == {"top_k": 1}
    assert cli.main(arguments) == 2
    assert "ostinato: " in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("text", "message"), [("", "found no drawings"), ("x\n", "nothing could be answered")]
)
def test_the_exit_code_says_that_nothing_was_answered(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text(text)
    assert cli.main(["predict", "model", str(file), str(tmp_path / "out.csv")]) == 1
    assert capsys.readouterr().err.endswith(f"ostinato: {file}: {message}\n")


def test_an_interrupt_leaves_the_parts(
    fake: Fake, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(batch: int) -> bool:
        if batch == 2:
            raise KeyboardInterrupt
        return False

    fake.service.dies = interrupted
    assert cli.main(["predict", "model", str(drawings), str(tmp_path / "out.csv")]) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert len(list(parts.folder_of(tmp_path / "out.csv").glob("??????.csv"))) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"topk": 1}, ParamsError, "no option 'topk' for drawings; did you mean 'top_k'"),
        ({"target": "x"}, ParamsError, "no option 'target' for drawings; there is simplified"),
        ({"top_k": "x"}, RequestError, "top_k: expected a whole number"),
        ({"simplified": 3}, ParamsError, "simplified"),
    ],
)
def test_a_wrong_option_is_an_error_before_the_model_is_loaded(
    drawings: Path, tmp_path: Path, options: dict[str, Json], error: Any, message: str
) -> None:
    source = Fake()
    source.load = pytest.fail  # type: ignore[method-assign, assignment]
    with pytest.raises(error, match=message):
        run(drawings, tmp_path / "out.csv", source, options=options)


def test_options_are_json_or_text() -> None:
    texts = ["top_k=3", "simplified=true", 'date=["day", "hour"]', "date_format=%d.%m.%Y", "x="]
    assert list(read_options(texts).values()) == [3, True, ["day", "hour"], "%d.%m.%Y", ""]
    for wrong in (["top_k"], ["=3"], ["a=1", "a=2"]):
        with pytest.raises(ParamsError, match="--set"):
            read_options(wrong)


def test_the_help_has_every_option_of_every_domain() -> None:
    for domain in params.domains():
        format, interface = predict.format_of(domain), Interface.of(domain)
        section = PREDICT_OPTIONS.partition(f"\n  {format.noun} ")[2]
        begin = section.partition("\n  ")[0] if domain == "video" else section
        options = interface.options.keys() - set(format.left_out)
        for name in (*params.arguments(format.read), *options):
            assert f"{name}=" in begin, (domain, name)


def test_progress_is_a_line_where_there_is_no_terminal(
    drawings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    caplog.set_level("INFO")
    run(drawings, tmp_path / "out.csv")
    lines = [each for each in caplog.messages if each.startswith("predicting: ")]
    assert len(lines) == 5
    assert " bytes, 4 drawings, " in lines[0]
    assert " left" in lines[0]
    assert " bytes, 17 drawings, " in lines[-1]
    assert "2 files are read, 1 are not" in caplog.text


# The other domains


@dataclass(eq=False)
class Texts:
    """Returns each text reversed."""

    seen: list[str] = field(default_factory=list)

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
        self.seen += [each.text for each in inputs]
        return [
            Translated(
                translation=each.text[::-1], language="fr", log_probability=-1.0, score=-1.0,
                split=False, source_words=each.text.split(), translations=[],
            )
            for each in inputs
        ]  # fmt: skip


def test_each_line_of_a_text_is_translated(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes("one\n\nl\u00e0\u2028two\r\n\xff".encode()[:-2] + b"\xff\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"packed\n"))
    (folder / "c.txt.bz2").write_bytes(bz2.compress(b"cut off\n" * 9)[:-5])
    (folder / "d.tsv").write_text("left\tright\nalone\n")
    summary = run(folder, tmp_path / "out.ndjson", Fake(Texts(), "translation"))
    found = {
        (row["file"], row["line"]): row["translation"] for row in rows_of(tmp_path / "out.ndjson")
    }
    assert found == {
        ("a.txt", 1): "eno", ("a.txt", 2): "", ("a.txt", 3): "owt\u2028\u00e0l",
        ("b.txt.gz", 1): "dekcap", ("d.tsv", 1): "tfel", ("d.tsv", 2): "enola",
    }  # fmt: skip
    assert summary.rejected == 2
    first, second = rejects_of(tmp_path / "out.ndjson")
    assert (first["file"], first["place"]) == ("a.txt", "line 4")
    assert "not UTF-8" in first["reason"]
    assert (second["file"], second["place"]) == ("c.txt.bz2", "")
    assert "truncated or corrupt" in second["reason"]


def test_a_column_of_a_table_of_texts_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("left\tright\nalone\n")
    service = Texts()
    run(tmp_path / "d.tsv", tmp_path / "o.csv", Fake(service, "translation"), options={"column": 2})
    assert service.seen == ["right"]
    (reject,) = rejects_of(tmp_path / "o.csv")
    assert (reject["place"], reject["reason"]) == ("line 2", "found 1 columns; expected at least 2")


class Videos:
    """Classifies videos by the size of their content."""

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[BaseModel]:
        (video,) = inputs
        if len(video.video) < 8:
            raise RequestError("video 0: corrupt: no frames")
        p = np.array([0.25, 0.75])
        return [classification.response(p, ["a", "b"], int(str(options["top_k"])))]


def test_each_video_is_classified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostinato.video import prediction as video

    monkeypatch.setattr(video, "MAX_BYTES", 99)
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for name, size in (("b.mp4", 50), ("sub/a.avi", 60), ("c.gif", 2), ("d.mp4", 100)):
        (folder / name).write_bytes(b"x" * size)
    run(folder, tmp_path / "out.ndjson", Fake(Videos(), "video"))
    rows = rows_of(tmp_path / "out.ndjson")
    assert [(row["file"], row["label"]) for row in rows] == [("b.mp4", "b"), ("sub/a.avi", "b")]
    assert [(each["file"], each["reason"]) for each in rejects_of(tmp_path / "out.ndjson")] == [
        ("c.gif", "corrupt: no frames"), ("d.mp4", "found 100 bytes; expected at most 99"),
    ]  # fmt: skip


# Series


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A served model of series with covariates, which repeats the last values of its window."""
    from ostinato.forecasting import serving
    from tests.series import prepared, table

    data = prepared(tmp_path_factory.mktemp("series"), table(), per="window", gaps="forward")

    def repeat(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = next(iter(inputs.values()))
        last = found[:, -3:, 0] if found.ndim == 3 else found[:, -3:]
        return np.stack([last, last + 0.1, last + 0.2], axis=2)

    margins = {0.8: np.ones(3), 0.95: np.full(3, 2.0)}
    return serving.Service(repeat, data.details, margins)  # type: ignore[arg-type]


def series_table() -> pd.DataFrame:
    """Two series of 20 days; the last three have future covariates only."""
    from tests.series import table

    one, other = table(20, 1), table(20, 2)
    for each in (one, other):
        each.loc[17:, ["value", "other"]] = ""
    return pd.concat([one.assign(shop="a"), other.assign(shop="b")])


SERIES = {"date": "day", "series": "shop"}


def forecasts(service: Any, file: Path, output: Path, **options: Json) -> predict.Summary:
    return run(file, output, Fake(service, "forecasting"), options={**SERIES, **options})


def test_each_series_has_a_row_for_each_step(forecaster: Any, tmp_path: Path) -> None:
    from ostinato.forecasting.histories import Input

    table = series_table()
    shuffled = table.sample(frac=1, random_state=3)
    shuffled.to_csv(tmp_path / "a.csv", index=False, sep=";")
    assert forecasts(forecaster, tmp_path / "a.csv", tmp_path / "out.csv").answered == 2
    rows = rows_of(tmp_path / "out.csv")
    assert list(rows[0]) == [
        "file", "series", "date", "forecast", "low_80", "high_80", "low_95", "high_95", "warnings",
        "model", "version",
    ]  # fmt: skip
    for name, days in table.groupby("shop"):
        past = days.iloc[:17]
        history = Input(
            dates=past["day"].tolist(), values=[float(v) for v in past["value"]], series=None,
            past_covariates={"other": past["other"].tolist()},
            future_covariates={"kind": days["kind"].tolist()}, static_covariates={},
        )  # fmt: skip
        (expected,) = forecaster.predict([history], {})
        found = [row for row in rows if row["series"] == name]
        assert [row["date"] for row in found] == expected.dates
        assert [float(row["forecast"]) for row in found] == expected.forecast
        assert [float(row["high_95"]) for row in found] == expected.intervals["0.95"].high


def test_parquet_and_csv_have_the_same_forecasts(forecaster: Any, tmp_path: Path) -> None:
    table = series_table()
    table.to_csv(tmp_path / "a.csv", index=False)
    typed = table.assign(
        day=pd.to_datetime(table["day"]),
        value=pd.to_numeric(table["value"]),
        other=pd.to_numeric(table["other"]),
    )
    typed.to_parquet(tmp_path / "a.parquet", index=False)
    found = {}
    for suffix in ("csv", "parquet"):
        forecasts(forecaster, tmp_path / f"a.{suffix}", tmp_path / f"{suffix}.ndjson")
        rows = rows_of(tmp_path / f"{suffix}.ndjson")
        found[suffix] = [{**row, "file": "", "version": ""} for row in rows]
    assert len(found["csv"]) == 6
    assert found["csv"] == found["parquet"]


def edited(table: Any, name: str) -> Any:
    """A table in which series b has a fault."""
    b = (table["shop"] == "b").to_numpy()
    days = np.flatnonzero(b).tolist()
    table = table.reset_index(drop=True).astype(object)
    if name == "date":
        table.loc[days[3], "day"] = "soon"
    elif name == "number":
        table.loc[days[3], "value"] = "many"
    elif name == "future":
        table = table.drop(index=days[-1:])
    elif name == "empty":
        table.loc[days, "value"] = ""
    elif name == "conflict":
        table.loc[days[4], "day"] = table.loc[days[3], "day"]
    elif name == "gap":
        table = table.drop(index=days[5:12])
    elif name == "name":
        table.loc[days, "shop"] = ""
    return table


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("date", "row 25: found 'soon'; expected a date"),
        ("number", "row 25: value: found 'many'; expected a number"),
        ("future", "no row for 2020-01-20 00:00:00; expected future covariates for the 3 steps"),
        ("empty", "value: found no value in 20 rows"),
        ("conflict", "rows 25, 26: contradict each other about 2020-01-04"),
        ("gap", "date 5: 2020-01-13T00:00:00, where equal steps of frequency D give"),
        ("name", "shop: found no name of a series"),
    ],
)
def test_a_broken_series_leaves_the_others(
    forecaster: Any, tmp_path: Path, name: str, reason: str
) -> None:
    edited(series_table(), name).to_csv(tmp_path / "a.csv", index=False)
    summary = forecasts(forecaster, tmp_path / "a.csv", tmp_path / "out.csv")
    assert (summary.answered, summary.rejected, summary.rows) == (1, 1, 3)
    (reject,) = rejects_of(tmp_path / "out.csv")
    assert reject["place"] == ("row 22" if name == "name" else "series 'b'")
    assert reject["reason"].startswith(reason)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_that_is_missing_rejects_its_file(
    forecaster: Any, tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    series_table().to_csv(folder / "a.csv", index=False)
    wrong = series_table().rename(columns={"day": "days"})
    if suffix == "csv":
        wrong.to_csv(folder / "b.csv", index=False)
    else:
        wrong.to_parquet(folder / "b.parquet")
        (folder / "c.parquet").write_bytes(b"PAR1")
    forecasts(forecaster, folder, tmp_path / "out.csv")
    first, *others = rejects_of(tmp_path / "out.csv")
    assert first["file"] == f"b.{suffix}"
    assert "no column 'day'; did you mean 'days'?" in first["reason"]
    assert ["not a Parquet file" in each["reason"] for each in others] == [True] * len(others)
    assert len(rows_of(tmp_path / "out.csv")) == 6


# Real models, the registry and the flow


def test_no_value_of_a_parameter_of_the_flow_is_an_option(
    fake: Fake, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.predict import arguments_of, describe

    monkeypatch.chdir(tmp_path)
    drawings.rename("--help")
    arguments = arguments_of("-S", "--help", "-o.csv", {"top_k": 1, "simplified": True}, False)
    assert cli.main(arguments) == 0
    lineage = lineage_of(Path("-o.csv"))
    assert lineage["options"] == {"top_k": 1, "simplified": True}
    assert describe("-o.csv", lineage).startswith("17 answered, 0 rejected, 17 rows\n")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A folder with raw drawings, and a model with random weights as version 1 and alias live."""
    import keras

    from ostinato import store
    from ostinato.sketches import dataset, sources
    from ostinato.sketches.models import rnn
    from ostinato.training import keras_model
    from tests.test_sketches_serving import PREPARE

    keras.utils.set_random_seed(5)
    folder = tmp_path_factory.mktemp("registered")
    for name in ("raw", "data", "parts"):
        (folder / name).mkdir()
    sources.doodles(folder / "raw", folder, 3, categories=["circle", "fish"], per_class=30)
    params.bind(dataset.prepare, PREPARE)(folder / "raw", folder / "data")
    build = {
        "cell": "gru", "units": 4, "num_layers": 1, "bidirectional": False, "pooling": "last",
        "dropout": 0.1, "weight_decay": 0.0,
    }  # fmt: skip
    model = params.bind(rnn.build, build)(dataset.load(folder / "data"))
    keras_model.save(model, folder / "parts" / "model")
    about = {"domain": "sketches", "run": "rnn", "model": "rnn", "prepare": PREPARE}
    store.write_json(folder / "parts" / "about.json", about)
    (folder / "parts" / "manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    (folder / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
    return folder


@pytest.mark.slow
def test_the_flow_answers_files_by_the_version_that_has_the_alias(
    registered: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.models import Model

    from flows.predict import predict as flow
    from ostinato.sketches import serving
    from ostinato.sketches.formats import quickdraw
    from ostinato.tracking import registry

    monkeypatch.chdir(registered)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered / 'mlflow.db'}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    registry.save("sketches", registered / "parts", registered / "version", Model())
    client = MlflowClient()
    client.create_registered_model("sketches", {"domain": "sketches"})
    tags = {"run": "rnn", "model": "0a.dir", "data": "0b.dir"}
    client.create_model_version("sketches", (registered / "version").as_uri(), tags=tags)
    client.set_registered_model_alias("sketches", "live", "1")

    lineage: Any = flow("sketches@live", "raw", "out.parquet", {"top_k": 1})
    assert lineage["counts"] == {"answered": 60, "rejected": 0, "rows": 60, "continued": 0}
    assert (lineage["name"], lineage["version"]) == ("sketches@live", "1")
    assert lineage["lineage"].items() >= {**tags, "alias": "live"}.items()
    rows = rows_of(registered / "out.parquet")
    service = serving.load(registered / "parts")
    assert len(rows) == 60
    for row in rows:
        found = dict(quickdraw.read_file(registered / "raw" / row["file"]))[row["line"]]
        assert isinstance(found, quickdraw.Drawing)
        assert found.key == row["key_id"]
        strokes = [stroke[:, :2].T.tolist() for stroke in found.strokes]
        (alone,) = service.predict([serving.Input(strokes=strokes, simplified=None)], {"top_k": 1})
        assert row["label"] == alone.label
        assert row["probability"] == pytest.approx(alone.probability, abs=1e-5)
    with pytest.raises(OstinatoError, match=r"exit code 2.*no version with alias 'champion'"):
        flow("sketches", "raw", "other.parquet")
