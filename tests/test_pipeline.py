"""The whole way, from fetch to report.md and MLflow, in a workspace of its own."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ostinato import params
from tests.servers import serve
from tests.workspace import Values, Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def test_repro_makes_every_result_and_then_nothing(workspace: Workspace) -> None:
    ran = workspace.ran(workspace("dvc", "repro"))
    assert set(ran) == {
        "fetch@sketches",
        "prepare@sketches",
        "train@sketches-gru",
        "train@sketches-nearest",
        "evaluate@sketches-gru",
        "evaluate@sketches-nearest",
        "check",
        "report",
    }
    assert workspace.ran(workspace("dvc", "repro")) == ["check"]
    report = (workspace.folder / "report.md").read_text()
    assert "sketches-gru" in report
    assert "sketches-nearest" in report
    metrics = json.loads(workspace("dvc", "metrics", "show", "--json"))
    assert len(metrics[""]["data"]) == 2
    plots = json.loads(workspace("dvc", "plots", "show", "--json"))
    assert "results/sketches-gru/history.csv" in plots["data"]
    runs = workspace.runs()
    names = sorted(run["name"] for run in runs)
    assert names == ["prepare sketches", "sketches-gru", "sketches-nearest"]
    assert all(run["status"] == "FINISHED" for run in runs)
    assert workspace("git", "status", "--porcelain", "--ignored", "scratch") in (
        "",
        "!! scratch/\n",
    )
    workspace.commit()


def test_the_same_again_is_the_same_to_the_last_byte(workspace: Workspace) -> None:
    lock = YAML(typ="safe").load(workspace.folder / "dvc.lock")
    names = ["fetch@sketches", "prepare@sketches", "train@sketches-gru", "evaluate@sketches-gru"]
    assert workspace.ran(workspace("dvc", "repro", "--force", "--single-item", *names)) == names
    again = YAML(typ="safe").load(workspace.folder / "dvc.lock")
    timed = ("history.csv", "speed.json", "figures")
    for name in names:
        outs = zip(lock["stages"][name]["outs"], again["stages"][name]["outs"], strict=True)
        for one, two in outs:
            if not one["path"].endswith(timed):
                assert one["md5"] == two["md5"], one["path"]


def test_a_new_model_is_one_file_and_one_entry(workspace: Workspace) -> None:
    source = '''
"""The mean point of a drawing, and a dense layer on it."""

import keras

from ostinato.layers import MaskedPooling
from ostinato.training.trainer import fit
from ostinato.units import Units

__all__ = ["build", "fit"]


def build(data, *, units: Units):
    strokes = keras.Input((None, 3))
    hidden = MaskedPooling("mean")(keras.layers.Masking()(strokes))
    hidden = keras.layers.Dense(units, "relu")(hidden)
    classes = keras.layers.Dense(len(data.classes), "softmax", dtype="float32")(hidden)
    return keras.Model(strokes, classes)
'''
    (workspace.folder / "ostinato" / "sketches" / "models" / "mean_point.py").write_text(source)

    def add(values: Values) -> None:
        run = values["runs"]["sketches-gru"]
        values["runs"]["sketches-mean"] = {**run, "model": "mean_point", "build": {"units": 4}}

    workspace.edit(add)
    ran = workspace.ran(workspace("dvc", "repro"))
    assert ran == ["check", "train@sketches-mean", "evaluate@sketches-mean", "report"]
    assert "sketches-mean" in (workspace.folder / "report.md").read_text()
    workspace("dvc", "params", "diff")
    workspace.commit()


def test_a_misspelt_key_stops_the_run_and_says_where(workspace: Workspace) -> None:
    def misspell(values: Values) -> None:
        values["runs"]["sketches-gru"]["build"]["unitz"] = 3

    before = (workspace.folder / "params.yaml").read_text()
    workspace.edit(misspell)
    done = workspace.run("dvc", "repro")
    assert done.returncode != 0
    assert "runs.sketches-gru.build.unitz: unknown; did you mean 'units'" in done.stderr
    assert "Traceback" not in done.stderr
    (workspace.folder / "params.yaml").write_text(before)
    workspace("dvc", "repro")


def test_real_input_over_http_from_fetch_to_report(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    block = {"categories": ["apple", "circle", "star"], "per_class": 60}
    sources = params.module("sketches", "sources")
    params.bind(sources.doodles, block)(tmp_path / "made", tmp_path, 1)
    whole = {f"full/raw/{p.name}": p.read_bytes() for p in (tmp_path / "made").glob("*.ndjson")}
    circle, star = "full/raw/circle.ndjson", "full/raw/star.ndjson"
    quickdraw = {
        "base_url": "http://127.0.0.1:9", "form": "simplified", "categories": ["cat"],
        "per_class": 60, "max_concurrency": 2, "timeout": 10.0, "retries": 5,
    }  # fmt: skip
    workspace.edit(lambda values: values["data"]["sketches"]["fetch"].update(quickdraw=quickdraw))
    workspace.commit()
    with serve(whole) as site:
        values = {
            "source": "quickdraw",
            "quickdraw.base_url": site.url,
            "quickdraw.form": "raw",
            "quickdraw.categories": "[apple,circle,star]",
            "quickdraw.retries": "1",
        }
        given = [x for key, v in values.items() for x in ("-S", f"data.sketches.fetch.{key}={v}")]

        def run(per_class: int, *more: str) -> list[str]:
            # Another number is another fetch: else what has come before is not fetched again.
            number = f"data.sketches.fetch.quickdraw.per_class={per_class}"
            return ["dvc", "exp", "run", *given, "-S", number, *more]

        site.files = {name: content for name, content in whole.items() if name != star}
        missing = workspace.run(*run(101))
        assert missing.returncode != 0
        assert f"{site.url}/{star}" in missing.stderr
        assert "404" in missing.stderr

        site.files = {**whole, circle: whole[circle][:-100]}
        cut = workspace.run(*run(102))
        assert cut.returncode != 0
        assert "circle.ndjson: truncated at the origin" in cut.stderr

        lines = whole[circle].splitlines(keepends=True)
        broken = [line[:50] + b"\n" if i < 3 else line for i, line in enumerate(lines)]
        site.files = {**whole, circle: b"".join(broken)}
        many = workspace.run(*run(103))
        assert many.returncode != 0
        assert "3 of 180 lines are malformed" in many.stderr
        assert "circle.ndjson:1: not JSON" in many.stderr

        workspace(*run(103, "-S", "data.sketches.prepare.tolerated_rejects=0.05"))
    manifest = json.loads((workspace.folder / "data" / "sketches" / "manifest.json").read_text())
    assert (manifest["source"], manifest["details"]["malformed"]) == ("quickdraw", 3)
    rejects = (workspace.folder / "data" / "sketches" / "rejects.ndjson").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [1, 2, 3]
    names = [run["name"] for run in workspace.runs()]
    assert names.count("sketches-nearest") == 2, "of the embedded drawings, and of these"
