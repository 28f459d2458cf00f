"""The packaged model answers raw strokes as evaluation does, wherever it is loaded."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ostinato import params, store
from ostinato.errors import RequestError
from ostinato.serving.classification import Response
from ostinato.sketches import dataset, evaluation, serving, sources
from ostinato.sketches.formats import strokes
from ostinato.sketches.formats.raw import RawFile, RawManifest
from ostinato.sketches.sources import generator
from ostinato.task import Manifest
from ostinato.training import keras_model
from tests.servers import closed_port
from tests.workspace import ROOT

CLASSES = ["circle", "fish", "house"]
PREPARE = {
    "tolerated_rejects": 0.01, "validation": 0.1, "test": 0.4, "max_points": 30,
    "only_recognised": False, "shard_size": 1000, "workers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw and prepared drawings, and the parts of a packaged model with random weights."""
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
    keras_model.save(model, folder / "parts" / "model")
    about = {"domain": "sketches", "run": "rnn", "model": "rnn", "prepare": PREPARE}
    store.write_json(folder / "parts" / "about.json", about)
    (folder / "parts" / "manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def evaluated(made: Path) -> Mapping[str, np.ndarray]:
    """The arrays of the evaluation."""
    return evaluation.evaluate(
        keras_model.restore(made / "parts" / "model"),
        dataset.load(made / "data"),
        1,
        resamples=10,
        bins=5,
        prefix_fractions=[],
        max_examples=1,
        num_plots=1,
        batch_size=8,
        timed_requests=1,
    ).arrays


@pytest.fixture(scope="module")
def predict(made: Path) -> Callable[..., list[Response]]:
    service = serving.load(made / "parts")

    def call(*drawings: Any, top_k: int = 0) -> list[Response]:
        inputs = [serving.Input.model_validate(drawing) for drawing in drawings]
        return service.predict(inputs, {"top_k": top_k})

    return call


@pytest.fixture(scope="module")
def requests(made: Path, evaluated: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The test drawings in raw form, in the order of the split."""
    found = serving.to_requests(made / "raw", made / "data", evaluated["keys"].tolist())
    return [found[key] for key in evaluated["keys"].tolist()]


@pytest.fixture(scope="module")
def saved(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the registered model."""
    from mlflow.models import Model

    from ostinato.tracking import registry

    folder = tmp_path_factory.mktemp("saved") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        registry.save("sketches", made / "parts", folder, Model())
    return folder


def test_raw_strokes_are_classified_as_in_the_evaluation(
    predict: Any, requests: list[dict[str, Any]], evaluated: Mapping[str, np.ndarray]
) -> None:
    assert not any("simplified" in request for request in requests)
    names = [CLASSES[i] for i in evaluated["truth"]]
    responses = [response.model_dump() for response in predict(*requests)]
    found = serving.from_responses(responses, names, CLASSES)
    assert found.keys() == evaluated.keys() - {"keys"}
    np.testing.assert_allclose(found["probabilities"], evaluated["probabilities"], atol=1e-3)
    np.testing.assert_array_equal(found["truth"], evaluated["truth"])
    np.testing.assert_array_equal(found["rank"], evaluated["rank"])
    np.testing.assert_allclose(found["likelihood"], evaluated["likelihood"], atol=1e-5)


def test_a_prepared_drawing_is_classified_as_its_raw_one(
    made: Path, predict: Any, requests: list[dict[str, Any]]
) -> None:
    split = dataset.load(made / "data").examples("test")
    simple = [
        {"strokes": [t.T.tolist() for t in strokes.from_stroke3(split[i])], "simplified": True}
        for i in range(len(split))
    ]
    for one, other in zip(predict(*requests), predict(*simple), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_predictions_are_invariant_to_translation_scale_and_times(predict: Any) -> None:
    xs, ys = [10, 90, 90, 10, 10], [10, 10, 90, 90, 10]
    plain = {"strokes": [[xs, ys]]}
    times = {"strokes": [[xs, ys, [0, 5, 9, 14, 30]]]}
    moved = {"strokes": [[[x * 4 + 700 for x in xs], [y * 4 - 300 for y in ys]]]}
    one, *others = predict(plain, times, moved)
    assert all(other == one for other in others)


def test_responses_are_independent_of_order_and_batch(predict: Any, requests: Any) -> None:
    together = predict(*requests)
    backwards = predict(*requests[::-1])[::-1]
    alone = [predict(request)[0] for request in requests[:5]]
    for one, other in [*zip(together, backwards, strict=True), *zip(together, alone, strict=False)]:
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_more_drawings_than_a_batch_are_all_classified(
    predict: Any, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(*requests)
    monkeypatch.setattr(serving, "BATCH_SIZE", 7)
    for one, other in zip(whole, predict(*requests), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert predict() == []


def test_all_lengths_and_batch_sizes_share_one_graph(made: Path, requests: Any) -> None:
    service = serving.load(made / "parts")
    predictor: Any = service.predictor
    graph = predictor._graph
    for count in (1, 2, 5):
        inputs = [serving.Input.model_validate(request) for request in requests[:count]]
        service.predict(inputs, {})
    assert predictor._graph is graph
    assert graph.experimental_get_tracing_count() == 1


def small_model(dtype: str = "float32", **changed: Any) -> Any:
    import keras

    from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling

    keras.utils.set_random_seed(7)
    given = {"pool": "sum", "activation": "linear", "merge": "concat", "dtype": dtype, **changed}
    inputs = keras.Input((None, 3), dtype="float32")
    x = keras.layers.Masking(0.0, dtype=given["dtype"])(inputs)
    x = MaskedConv1D(6, 4, activation=given["activation"])(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Bidirectional(LSTM(5, return_sequences=True), merge_mode=given["merge"])(x)
    x = MaskedPooling(given["pool"])(LSTM(3, return_sequences=True)(x))
    return keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))


def test_packed_loops_have_the_outputs_of_the_model() -> None:
    from ostinato.sketches import packed

    points = np.random.default_rng(1).normal(size=(5, 23, 3)).astype(np.float32)
    for row, length in enumerate([23, 1, 2, 9, 23]):
        points[row, length:] = 0
    for pool in ("sum", "mean", "max"):
        model = small_model(pool=pool)
        loops: Any = packed.pack(model)
        assert loops.parameters == model.count_params()
        expected = keras_model.KerasModel(model)(points)
        np.testing.assert_allclose(loops(points), expected, atol=1e-6)
        np.testing.assert_allclose(loops(points[1:4, :9]), expected[1:4], atol=1e-6)


def test_a_model_that_the_loops_do_not_support_stays_as_it_is(made: Path) -> None:
    from ostinato.sketches import packed

    for changed in ({"activation": "relu"}, {"merge": "sum"}, {"dtype": "mixed_bfloat16"}):
        assert packed.pack(small_model(**changed)) is None
    service = serving.load(made / "parts")
    graph = service.predictor
    serving.optimise(service)
    assert service.predictor is graph  # GRUs


def test_tanh_is_accurate_to_the_last_bits() -> None:
    from ostinato.sketches import packed

    x = np.linspace(-20, 20, 4001).astype(np.float32)
    found = np.array([packed.tanh(value) for value in x])
    np.testing.assert_allclose(found, np.tanh(x.astype(float)), atol=4e-7)


def test_the_top_k_classes_are_returned_most_probable_first(predict: Any, requests: Any) -> None:
    (whole,), (two,) = predict(requests[0]), predict(requests[0], top_k=2)
    values = list(whole.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert list(two.probabilities) == list(whole.probabilities)[:2]
    assert (two.label, two.probability) == next(iter(whole.probabilities.items()))


GOOD = serving.SERVING.example
BAD: dict[str, tuple[Any, str]] = {
    "no strokes": ({"strokes": []}, "no ink"),
    "empty strokes": ({"strokes": [[[], []]]}, "no ink"),
    "one point": ({"strokes": [[[5, 5], [5, 5]]]}, "no ink"),
    "not a number": ({"strokes": [[[1, float("nan")], [2, 3]]]}, "not a number"),
    "infinite": ({"strokes": [[[1, float("inf")], [2, 3]]]}, "not a number"),
    "text": ({"strokes": [[[1, "2"], [2, 3]]]}, "not a number"),
    "unequal": ({"strokes": [[[1, 2], [3, 4]], [[1, 2, 3], [1, 2]]]}, "stroke 1 has 3 x and 2 y"),
    "too flat": ({"strokes": [[1, 2], [3, 4]]}, "stroke 0"),
    "too deep": ({"strokes": [[[[1, 2]], [[3, 4]]]]}, "not a number"),
    "x alone": ({"strokes": [[[1, 2]]]}, "stroke 0 has one list"),
    "not a list": ({"strokes": 7}, "expected a list of strokes"),
    "too far": ({"strokes": [[[1, 1e9], [2, 3]]]}, "beyond"),
    "not simplified": ({"strokes": [[[1, 300], [2, 3]]], "simplified": True}, "0 to 255"),
}


@pytest.mark.parametrize("drawing", BAD)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_malformed_drawing_is_an_error_with_its_number(predict: Any, drawing: str) -> None:
    bad, reason = BAD[drawing]
    with pytest.raises(RequestError, match=f"drawing 1: .*{reason}"):
        predict(GOOD, bad, GOOD)


@pytest.mark.parametrize("top_k", [-1, -100])
def test_a_negative_number_of_classes_is_an_error(predict: Any, top_k: int) -> None:
    with pytest.raises(RequestError, match=f"top_k: found {top_k}; expected"):
        predict(GOOD, top_k=top_k)


def test_the_example_is_drawn_as_by_hand_and_stands_in_the_docs() -> None:
    """Hands draw no polygon of as many points as it has corners: models do not know such."""
    stroke = np.array(serving.STAIRS, float).T
    fewest = {
        name: min(
            sum(map(len, strokes.simplify(generator.drawing(name, np.random.default_rng(i)))))
            for i in range(100)
        )
        for name in ("stairs", "square")
    }
    assert len(strokes.simplify([stroke])[0]) >= fewest["stairs"]
    assert fewest["square"] > 5
    page = (ROOT / "docs" / "serving.md").read_text()
    assert json.dumps({"inputs": [serving.SERVING.example]})[:-1] in page


def test_a_key_of_two_raw_drawings_gives_no_request(made: Path, tmp_path: Path) -> None:
    lines = (made / "raw" / "fish.ndjson").read_bytes().splitlines()[:3]
    keys = [str(orjson.loads(line)["key_id"]) for line in lines]
    (tmp_path / "fish.ndjson").write_bytes(b"\n".join([*lines, b"{broken", lines[1], b""]))
    RawManifest("folder", "ndjson", "raw", [], [RawFile("fish.ndjson", "fish", 1)]).write(tmp_path)
    found = serving.to_requests(tmp_path, tmp_path, [*keys, "unknown"])
    assert set(found) == {keys[0], keys[2]}


def test_simplified_data_give_prepared_strokes(made: Path, tmp_path: Path) -> None:
    RawManifest("folder", "ndjson", "simplified", [], []).write(tmp_path)
    split = dataset.load(made / "data").examples("test")
    keys = split.keys.tolist()[:2]
    found = serving.to_requests(tmp_path, made / "data", keys)
    tracks = [track.T.tolist() for track in strokes.from_stroke3(split[0])]
    assert found.keys() == set(keys)
    assert found[keys[0]] == {"strokes": tracks, "simplified": True}


def test_bitmaps_are_an_error(made: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(made / "data" / "manifest.json")
    bitmaps = replace(manifest, details={**manifest.details, "kind": "bitmap"})
    (tmp_path / "data").mkdir()
    store.write_json(tmp_path / "data" / "manifest.json", bitmaps.to_json())
    store.write_json(tmp_path / "data" / "about.json", {})
    RawManifest("tfds", "tfds", None, [], []).write(tmp_path)
    with pytest.raises(RequestError, match="bitmap"):
        serving.load(tmp_path / "data")
    with pytest.raises(RequestError, match="bitmap"):
        serving.to_requests(tmp_path, tmp_path / "data", ["1"])


def test_a_class_that_the_model_does_not_know_has_the_last_rank() -> None:
    responses = [
        {"probabilities": {"cat": 0.7, "dog": 0.3}},
        {"probabilities": {"dog": 0.2, "cat": 0.8}},
    ]
    found = serving.from_responses(responses, ["dog", "eel"], ["ant", "dog", "eel"])
    assert found["truth"].tolist() == [1, 2]
    assert found["rank"].tolist() == [2, 3]  # dog is second of two, eel after both
    assert found["likelihood"].tolist() == [0.3, 0]
    assert found["probabilities"].tolist() == [[0, 0.3, 0], [0, 0.2, 0]]


def test_nothing_in_the_folder_is_a_pickle(saved: Path, made: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert not [f for f in files if f.suffix in (".pkl", ".pickle", ".pyc", ".nbi", ".nbc")]
    binary = [f.name for f in files if b"\0" in f.read_bytes()]
    assert sorted(binary) == ["model.keras", "ostinato.zip"]
    model = saved / "artifacts" / "model" / "model.keras"
    assert model.read_bytes() == (made / "parts" / "model" / "model.keras").read_bytes()


def test_the_signature_has_raw_strokes_and_options(saved: Path) -> None:
    signature = params.load(saved / "MLmodel")["signature"]
    (drawing,) = json.loads(signature["inputs"])
    points = {"type": "array", "items": {"type": "array", "items": {"type": "double"}}}
    assert drawing["properties"]["strokes"] == {"type": "array", "items": points, "required": True}
    (response,) = json.loads(signature["outputs"])
    assert set(response["properties"]) == {"label", "probability", "probabilities"}
    assert json.loads(signature["params"])[0]["name"] == "top_k"


@pytest.mark.parametrize(
    "domain", sorted(p.parent.name for p in ROOT.glob("ostinato/*/serving.py"))
)
def test_the_requirements_contain_every_imported_package(
    saved: Path, domain: str, tmp_path: Path
) -> None:
    """Of module-level imports, not of those in functions that serving never calls."""
    named = re.findall(r"^[\w.-]+", (saved / "requirements.txt").read_text(), re.MULTILINE)
    named += params.module(domain, "serving").SERVING.packages
    wanted, seen = [saved / "mlflow_model.py"], set()
    code = tmp_path
    shutil.unpack_archive(saved / "code" / "ostinato.zip", code)
    wanted += [code / f"ostinato/{domain}/serving.py", *code.glob(f"ostinato/{domain}/[!_]*.py")]
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
    distributions = {"ruamel": "ruamel.yaml"}
    # Dependencies of others:
    distributions |= {"cycler": "matplotlib", "typing_extensions": "pydantic"}
    assert {distributions.get(package, package) for package in packages} <= set(named)


def isolated(*command: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that imports nothing of the checkout and loads no pickles."""
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


def test_the_packaged_model_responds_equally_without_the_checkout(
    saved: Path, tmp_path: Path, predict: Any, requests: Any
) -> None:
    content = {"inputs": requests, "params": {"top_k": 2}}
    (tmp_path / "requests.json").write_text(json.dumps(content))
    command = (
        "-i",
        "requests.json",
        "-o",
        "responses.json",
        "-t",
        "json",
        "--env-manager",
        "local",
    )
    process = isolated("predict", "-m", str(saved), *command, cwd=tmp_path)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-2000:]
    responses = store.read_json(tmp_path / "responses.json")["predictions"]
    for one, other in zip(responses, predict(*requests, top_k=2), strict=True):
        assert one["label"] == other.label
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.slow
def test_malformed_input_over_http_has_status_400(
    saved: Path, tmp_path: Path, requests: Any, predict: Any
) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    port = address.rpartition(":")[2]
    process = isolated(
        *("serve", "-m", str(saved), "--env-manager", "local", "-h", "127.0.0.1", "-p", port),
        cwd=tmp_path,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )

    def post(content: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{address}/invocations",
            content if isinstance(content, bytes) else json.dumps(content).encode(),
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
        status, content = post({"inputs": requests, "params": {"top_k": 1}})
        assert status == 200
        labels = [response.label for response in predict(*requests)]
        assert [one["label"] for one in content["predictions"]] == labels
        assert {len(one["probabilities"]) for one in content["predictions"]} == {1}
        for bad, reason in BAD.values():
            status, content = post({"inputs": [GOOD, bad]})
            assert status == 400, reason
            assert re.search(f"drawing 1: .*{reason}", content["message"])
        assert post({"inputs": [{"ink": 3}]})[0] == 400
        far = {"strokes": [[[1e300] * 100_000, [0] * 100_000]]}
        for request, reason in (
            (b"[" * 100_000, "nested more than 64 deep"),
            (b'{"inputs": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "nested more than 64 deep"),
            (b"{inputs: " + b"1" * 100_000, "not JSON in UTF-8"),
            ({"inputs": [far]}, "drawing 0: "),
            ({"inputs": ["x" * 100_000]}, "inputs[0]: Input should be a valid dictionary"),
            ({"inputs": [GOOD], "params": {"top_k": -1}}, "params.top_k: expected"),
            ({"inputs": [GOOD], "params": {"best": 1}}, "params.'best': unknown"),
        ):
            status, content = post(request)
            assert status == 400, reason
            assert reason in content["message"]
            assert len(json.dumps(content)) < 1000, "the request is not repeated"
        assert post({"inputs": [GOOD]})[0] == 200  # the server is still running
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
