"""The registered model: raw strokes in, and out what evaluation said, wherever it is loaded."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ostinato import errors, params, store
from ostinato.errors import EvaluationError
from ostinato.evaluation import classification
from ostinato.sketches import dataset, evaluation, serving, sources
from ostinato.sketches.dataset import strokes
from tests.servers import closed_port
from tests.workspace import ROOT

CLASSES = ["circle", "fish", "house"]
PREPARE = {
    "tolerated_rejects": 0.01, "validation": 0.1, "test": 0.4, "points": 30,
    "only_recognised": False, "shard_size": 1000, "workers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw and prepared drawings, and parts/ of a registered model with random weights."""
    import keras

    from ostinato.sketches.models import rnn

    keras.utils.set_random_seed(5)
    folder = tmp_path_factory.mktemp("made")
    for name in ("raw", "data", "parts"):
        (folder / name).mkdir()
    sources.doodles(folder / "raw", folder, 3, categories=CLASSES, per_class=30)
    params.bind(dataset.prepare, PREPARE)(folder / "raw", folder / "data")
    data = dataset.load(folder / "data")
    build = {
        "cell": "gru", "units": 16, "num_layers": 1, "bidirectional": True, "pooling": "last",
        "dropout": 0.1, "weight_decay": 0.0,
    }  # fmt: skip
    model = params.bind(rnn.build, build)(data)
    store.write_model(folder / "parts" / "model.keras", model)
    about = {"domain": "sketches", "model": "rnn", "prepare": {"points": PREPARE["points"]}}
    store.write_json(folder / "parts" / "about.json", about)
    (folder / "parts" / "manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def evaluated(made: Path) -> dict[str, Any]:
    """The arrays that evaluation writes."""
    data = dataset.load(made / "data")
    split = data.examples("test")
    call = evaluation.compiled(store.read_model(made / "parts" / "model.keras"))
    probabilities = np.empty((len(split), len(data.classes)), np.float16)
    rank = np.empty(len(split), np.int32)
    for rows, p, _ in evaluation.outputs(
        call, data, [split[i] for i in range(len(split))], 8, "test"
    ):
        probabilities[rows], rank[rows] = p, classification.ranks(p, split.labels[rows])
    return {
        "keys": split.keys, "truth": split.labels, "rank": rank, "probabilities": probabilities,
    }  # fmt: skip


@pytest.fixture(scope="module")
def answer(made: Path) -> Callable[..., list[serving.Answer]]:
    model = serving.load(made / "parts")

    def ask(*drawings: Any, best: int = 0) -> list[serving.Answer]:
        return model([serving.Drawing.model_validate(drawing) for drawing in drawings], best)

    return ask


@pytest.fixture(scope="module")
def asked(made: Path, evaluated: dict[str, Any]) -> list[dict[str, Any]]:
    """The test drawings in their raw form, in the order of the split."""
    found = serving.questions(made / "raw", made / "data", evaluated["keys"])
    return [found[key] for key in evaluated["keys"]]


@pytest.fixture(scope="module")
def saved(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registered model's folder."""
    from mlflow.models import Model

    from ostinato.tracking import registry

    folder = tmp_path_factory.mktemp("saved") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        registry.save("sketches", made / "parts", folder, Model())
    return folder


def test_raw_strokes_are_answered_as_in_evaluation(
    answer: Any, asked: list[dict[str, Any]], evaluated: dict[str, Any]
) -> None:
    assert not any("simplified" in question for question in asked)
    names = [CLASSES[i] for i in evaluated["truth"]]
    told = [a.model_dump() for a in answer(*asked)]
    found = serving.arrays(told, names, CLASSES)
    np.testing.assert_allclose(found["probabilities"], evaluated["probabilities"], atol=1e-3)
    np.testing.assert_array_equal(found["truth"], evaluated["truth"])
    np.testing.assert_array_equal(found["rank"], evaluated["rank"])


def test_a_prepared_drawing_is_answered_as_its_raw_one(
    made: Path, answer: Any, asked: list[dict[str, Any]], evaluated: dict[str, Any]
) -> None:
    split = dataset.load(made / "data").examples("test")
    simple = [
        {"strokes": [t.T.tolist() for t in strokes.from_stroke3(split[i])], "simplified": True}
        for i in range(len(split))
    ]
    for one, other in zip(answer(*asked), answer(*simple), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_place_and_scale_and_times_do_not_matter(answer: Any) -> None:
    xs, ys = [10, 90, 90, 10, 10], [10, 10, 90, 90, 10]
    plain = {"strokes": [[xs, ys]]}
    times = {"strokes": [[xs, ys, [0, 5, 9, 14, 30]]]}
    moved = {"strokes": [[[x * 4 + 700 for x in xs], [y * 4 - 300 for y in ys]]]}
    one, *others = answer(plain, times, moved)
    assert all(other == one for other in others)


def test_neither_order_nor_company_changes_an_answer(answer: Any, asked: Any) -> None:
    together = answer(*asked)
    backwards = answer(*asked[::-1])[::-1]
    alone = [answer(question)[0] for question in asked[:5]]
    for one, other in [*zip(together, backwards, strict=True), *zip(together, alone, strict=False)]:
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_more_drawings_than_a_batch_are_all_answered(
    answer: Any, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(*asked)
    monkeypatch.setattr(serving, "BATCH", 7)
    for one, other in zip(whole, answer(*asked), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert answer() == []


def test_all_lengths_and_batches_share_one_graph(made: Path, asked: Any) -> None:
    traced = []
    compiled = evaluation.compiled

    def counting(model: Any) -> Any:
        def called(x: Any, training: bool) -> Any:
            traced.append(x.shape)
            return model(x, training=training)

        called.input_shape = model.input_shape  # type: ignore[attr-defined]
        return compiled(called)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "compiled", counting)
        model = serving.load(made / "parts")
    for count in (1, 2, 5):
        model([serving.Drawing.model_validate(question) for question in asked[:count]], 0)
    assert len(traced) == 1


def test_the_likeliest_come_first_and_only_as_many_as_asked(answer: Any, asked: Any) -> None:
    (whole,), (two,) = answer(asked[0]), answer(asked[0], best=2)
    values = list(whole.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert list(two.probabilities) == list(whole.probabilities)[:2]
    assert (two.label, two.probability) == next(iter(whole.probabilities.items()))


GOOD = serving.EXAMPLE
BAD: dict[str, tuple[Any, str]] = {
    "no strokes": ({"strokes": []}, "no ink"),
    "empty strokes": ({"strokes": [[[], []]]}, "no ink"),
    "one place": ({"strokes": [[[5, 5], [5, 5]]]}, "no ink"),
    "not a number": ({"strokes": [[[1, float("nan")], [2, 3]]]}, "not a number"),
    "infinite": ({"strokes": [[[1, float("inf")], [2, 3]]]}, "not a number"),
    "text": ({"strokes": [[[1, "2"], [2, 3]]]}, "not a number"),
    "unequal": ({"strokes": [[[1, 2], [3, 4]], [[1, 2, 3], [1, 2]]]}, "stroke 1 has 3 x and 2 y"),
    "too flat": ({"strokes": [[1, 2], [3, 4]]}, "stroke 0"),
    "too deep": ({"strokes": [[[[1, 2]], [[3, 4]]]]}, "not a number"),
    "x alone": ({"strokes": [[[1, 2]]]}, "stroke 0 is not a list of x and y"),
    "no list": ({"strokes": 7}, "not a list of strokes"),
    "too far": ({"strokes": [[[1, 1e9], [2, 3]]]}, "beyond"),
    "not simplified": ({"strokes": [[[1, 300], [2, 3]]], "simplified": True}, "0 to 255"),
}


@pytest.mark.parametrize("drawing", BAD)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_bad_drawing_is_named_with_the_reason(answer: Any, drawing: str) -> None:
    bad, reason = BAD[drawing]
    with pytest.raises(errors.RequestError, match=f"drawing 1: .*{reason}"):
        answer(GOOD, bad, GOOD)


def test_keys_that_name_two_raw_drawings_are_not_asked(made: Path, tmp_path: Path) -> None:
    lines = (made / "raw" / "fish.ndjson").read_bytes().splitlines()[:3]
    keys = [str(orjson.loads(line)["key_id"]) for line in lines]
    (tmp_path / "fish.ndjson").write_bytes(b"\n".join([*lines, b"{broken", lines[1], b""]))
    files = [{"path": "fish.ndjson"}]
    store.write_json(
        tmp_path / "manifest.json", {"format": "ndjson", "form": "raw", "files": files}
    )
    found = serving.questions(tmp_path, tmp_path, [*keys, "unknown"])
    assert set(found) == {keys[0], keys[2]}


def test_bitmaps_are_refused_with_the_reason(made: Path, tmp_path: Path) -> None:
    manifest = store.read_json(made / "data" / "manifest.json") | {"kind": "bitmap"}
    store.write_json(tmp_path / "manifest.json", {**manifest, "format": "tfds", "form": "bitmap"})
    store.write_json(tmp_path / "about.json", {})
    with pytest.raises(errors.RequestError, match="bitmap"):
        serving.load(tmp_path)
    with pytest.raises(errors.RequestError, match="bitmap"):
        serving.questions(tmp_path, tmp_path, ["1"])


def test_a_class_that_was_not_known_is_never_right() -> None:
    told = [
        {"probabilities": {"cat": 0.7, "dog": 0.3}},
        {"probabilities": {"dog": 0.2, "cat": 0.8}},
    ]
    found = serving.arrays(told, ["dog", "eel"], ["ant", "dog", "eel"])
    assert found["truth"].tolist() == [1, 2]
    assert found["rank"].tolist() == [2, 3]  # dog is second of two, eel behind both
    assert found["probabilities"].tolist() == [[0, 0.3, 0], [0, 0.2, 0]]


def test_outcomes_average_to_the_scores(evaluated: dict[str, Any]) -> None:
    rank = evaluated["rank"]
    wanted = {
        "top1": classification.top(rank, 1),
        "top5": classification.top(rank, 5),
        "map3": classification.mean_average_precision(rank, 3),
        "log_loss": -classification.log_loss(
            classification.likelihoods(evaluated["probabilities"], evaluated["truth"])
        ),
    }
    for metric, value in wanted.items():
        assert evaluation.outcomes(metric, evaluated).mean() == pytest.approx(value)
    with pytest.raises(EvaluationError, match="did you mean 'top5'"):
        evaluation.outcomes("top2", evaluated)


def test_nothing_in_the_folder_is_a_pickle(saved: Path, made: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert not [f for f in files if f.suffix in (".pkl", ".pickle", ".pyc", ".nbi", ".nbc")]
    binary = [f.name for f in files if b"\0" in f.read_bytes()]
    assert binary == ["model.keras"]
    model = saved / "artifacts" / "model.keras"
    assert model.read_bytes() == (made / "parts" / "model.keras").read_bytes()


def test_the_signature_is_that_of_raw_drawings(saved: Path) -> None:
    signature = params.load(saved / "MLmodel")["signature"]
    (drawing,) = json.loads(signature["inputs"])
    points = {"type": "array", "items": {"type": "array", "items": {"type": "double"}}}
    assert drawing["properties"]["strokes"] == {"type": "array", "items": points, "required": True}
    (told,) = json.loads(signature["outputs"])
    assert set(told["properties"]) == {"label", "probability", "probabilities"}
    assert json.loads(signature["params"])[0]["name"] == "best"


@pytest.mark.parametrize("domain", sorted(p.parent.name for p in ROOT.glob("ostinato/*/served.py")))
def test_the_requirements_name_every_package_that_the_code_imports(
    saved: Path, domain: str
) -> None:
    """Of what is imported on loading, not within functions that serving never calls."""
    named = re.findall(r"^[\w.-]+", (saved / "requirements.txt").read_text(), re.MULTILINE)
    named += getattr(params.module(domain, "serving"), "PACKAGES", ())
    wanted, seen = [saved / "served.py"], set()
    code = saved / "code"
    wanted += [code / f"ostinato/{domain}/served.py", *code.glob(f"ostinato/{domain}/[!_]*.py")]
    packages: set[str] = {"tensorflow"}
    while wanted:
        file = wanted.pop()
        if file in seen or not file.exists():
            continue
        seen.add(file)
        for node in ast.parse(file.read_text()).body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            for module in modules:
                if module.startswith("ostinato"):
                    path = code / module.replace(".", "/")
                    wanted += [path.with_suffix(".py"), path / "__init__.py"]
                else:
                    packages.add(module.split(".")[0])
    packages -= set(sys.stdlib_module_names)
    spelt = {"ruamel": "ruamel.yaml"}
    spelt |= {"cycler": "matplotlib", "typing_extensions": "pydantic"}  # which bring them
    assert {spelt.get(package, package) for package in packages} <= set(named)


def fresh(*command: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that knows neither the checkout nor pickles."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "mlflow", "models", *command],
        cwd=cwd,
        env={**inherited, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_elsewhere_and_without_the_checkout_it_answers_the_same(
    saved: Path, tmp_path: Path, answer: Any, asked: Any
) -> None:
    (tmp_path / "asked.json").write_text(json.dumps({"inputs": asked, "params": {"best": 2}}))
    command = ("-i", "asked.json", "-o", "told.json", "-t", "json", "--env-manager", "local")
    process = fresh("predict", "-m", str(saved), *command, cwd=tmp_path)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-2000:]
    told = store.read_json(tmp_path / "told.json")["predictions"]
    for one, other in zip(told, answer(*asked, best=2), strict=True):
        assert one["label"] == other.label
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.slow
def test_it_serves_over_http_and_bad_input_is_the_clients_error(
    saved: Path, tmp_path: Path, asked: Any, answer: Any
) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    port = address.rpartition(":")[2]
    process = fresh(
        *("serve", "-m", str(saved), "--env-manager", "local", "-h", "127.0.0.1", "-p", port),
        cwd=tmp_path,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )

    def ask(content: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    try:
        for _ in range(240):
            time.sleep(0.5)
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=2).close()
                break
            except OSError:
                continue
        status, told = ask({"inputs": asked, "params": {"best": 1}})
        assert status == 200
        labels = [a.label for a in answer(*asked)]
        assert [one["label"] for one in told["predictions"]] == labels
        assert {len(one["probabilities"]) for one in told["predictions"]} == {1}
        for bad, reason in BAD.values():
            status, told = ask({"inputs": [GOOD, bad]})
            assert status == 400, reason
            assert re.search(f"drawing 1: .*{reason}", told["message"])
        assert ask({"inputs": [{"ink": 3}]})[0] == 400
        assert ask({"inputs": [GOOD]})[0] == 200  # and it is still there
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
