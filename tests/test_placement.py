"""Laws of layers on several devices: the weights and losses of one device."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import params, study
from ostinato.errors import ParamsError, TrainingError
from ostinato.task import Placement, TrainingContext
from ostinato.training import runtime, trainer
from ostinato.training.machine import Machine
from ostinato.training.placement import PipelinedStep, assign, one_copy, place
from ostinato.training.steps import SupervisedStep
from ostinato.training.teacher_forcing import ScheduledSamplingModel
from tests.test_study import problems, values

ROOT = Path(__file__).parents[1]
OPTIONS: dict[str, Any] = {
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "clip_norm": 0.01,
}
STACK = ["points", "mask", "lstm", "dropout", "lstm_1", "dropout_1", "dense"]


def on_one(micro_batches: int) -> Placement:
    return Placement(layers={"*": 0}, micro_batches=micro_batches)


@pytest.mark.parametrize(
    ("layers", "devices"),
    [
        ({"lstm_1": 1}, [0, 0, 0, 0, 1, 1, 1]),
        ({"*_1": 2, "dense": 1}, [0, 0, 0, 0, 2, 2, 1]),
        ({"lstm": 1, "lstm*": 3, "*": 0}, [0, 0, 1, 0, 3, 0, 0]),  # the first match counts
    ],
)
def test_a_layer_without_a_pattern_follows_the_layer_before_it(
    layers: dict[str, int], devices: list[int]
) -> None:
    found = assign(STACK, Placement(layers=layers, micro_batches=1))
    assert list(found) == STACK
    assert list(found.values()) == devices


def test_a_pattern_that_matches_nothing_is_an_error_with_near_misses() -> None:
    with pytest.raises(ParamsError, match=r"no layer matches 'lstm_2'; did you mean 'lstm_1'"):
        assign(STACK, Placement(layers={"lstm_2": 1}, micro_batches=1))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"layers": {"lstm": 0}}, "micro_batches: missing"),
        ({"layers": {"lstm": -1}, "micro_batches": 1}, "greater than or equal to 0"),
        ({"layers": {}, "micro_batches": 1}, "at least 1 item"),
        ({"layers": {"lstm": 1}, "micro_batches": 0}, "greater than or equal to 1"),
        ({"layer": {"lstm": 1}, "micro_batches": 1}, "did you mean 'layers'"),
    ],
)
def test_a_wrong_block_is_an_error(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        params.bind(Placement, block)


def test_the_check_of_a_study_reads_a_placement() -> None:
    block = {"layers": {"gru_1": 1}, "micro_batches": 2}
    study.check(values(**{"runs.gru.placement": block}))
    assert problems(values(**{"runs.gru.placement": {**block, "microbatches": 2}})) == [
        "runs.gru.placement.microbatches: unknown; did you mean 'micro_batches'?"
    ]


def pooled(*, normalised: bool = False) -> keras.Model:
    """A small functional model with a mask, a shared layer, a penalty and dropout in a row."""
    inputs = keras.Input((None, 3))
    x = keras.layers.Masking()(inputs)
    shared = keras.layers.Dense(3, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))
    drop = keras.layers.Dropout(0.4)
    x = drop(shared(drop(shared(x))))
    if normalised:
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax", name="output")(x))


def batch_of(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded sequences, labels and weights, of which some are 0."""
    generator = np.random.default_rng(size)
    x = generator.normal(size=(size, 6, 3)).astype(np.float32)
    for row, length in zip(x, generator.integers(1, 7, size), strict=True):
        row[length:] = 0
    weights = np.where(np.arange(size) % 3 == 1, 0, generator.random(size)).astype(np.float32)
    return x, generator.integers(4, size=size).astype(np.int32), weights


def after_steps(
    step: SupervisedStep, batches: list[Any]
) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """The weights after a step on each batch, and the means of each step and of a test after it."""
    (model,) = step.models
    runtime.reseed([model], 1, 1)
    batches = [tf.nest.map_structure(tf.constant, batch) for batch in batches]
    signature = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batches[0]
    )
    run = tf.function(
        lambda batch: (step.train(batch), step.test(batch)),
        input_signature=[signature],
        autograph=False,
    )
    found = [sums for batch in batches for sums in run(batch)]
    means = [{name: float(s / w) for name, (s, w) in sums.items()} for sums in found]
    return [weight.numpy() for weight in model.weights], means


def test_micro_batches_take_the_step_of_the_whole_batch() -> None:
    """With a mask, weights, a penalty, clipping, dropout and fewer examples than micro-batches."""
    batches = [batch_of(11), batch_of(2)]
    with runtime.runtime(1, Machine(), precision="float32"):
        model = pooled()
        placed = place(model, on_one(3), 1)
        weights, means = after_steps(SupervisedStep(model, **OPTIONS), batches)
        found = after_steps(PipelinedStep(placed, on_one(3), 16, **OPTIONS), batches)
    for one, other in zip(weights, found[0], strict=True):
        np.testing.assert_allclose(one, other, atol=3e-7)  # the steps' length is 0.01
    for whole, parts in zip(means, found[1], strict=True):
        assert parts == pytest.approx(whole, rel=1e-5)
    assert means[0]["gradient_norm"] > OPTIONS["clip_norm"]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with runtime.runtime(1, Machine(), precision="float32"):
        model = pooled()
        far = Placement(layers={"output": 2}, micro_batches=1)
        with pytest.raises(ParamsError, match=r"'output' is on device 2.* 0 to 1; .*DEVICES to 3"):
            place(model, far, 2)
        there = len(tf.config.list_logical_devices("CPU"))
        with pytest.raises(TrainingError, match=rf"{there + 1} requested, {there} available"):
            place(model, on_one(1), there + 1)
        with pytest.raises(ParamsError, match=r"found the model Sequential; expected a functional"):
            place(keras.Sequential([keras.layers.Dense(1)]), on_one(1), 1)
        with pytest.raises(ParamsError, match=r"micro_batches: 9 is above fit.batch_size 8"):
            PipelinedStep(model, on_one(9), 8, **OPTIONS)
        with pytest.raises(ParamsError, match=r"micro_batches: 2, but .*/moving_mean is a stat"):
            PipelinedStep(pooled(normalised=True), on_one(2), 8, **OPTIONS)
        PipelinedStep(pooled(normalised=True), on_one(1), 8, **OPTIONS)
        context = TrainingContext(tmp_path, 1, placement=on_one(1))
        with pytest.raises(ParamsError, match=r"placement: SupervisedStep trains this model"):
            trainer.train(
                SupervisedStep(model, **OPTIONS),
                cast(Any, None),
                context,
                epochs=1,
                batch_size=8,
                schedule="constant",
                warmup_fraction=0.0,
                monitor="loss",
                patience=1,
            )


def test_a_placed_model_has_one_copy() -> None:
    assert one_copy(Machine(devices=3, intra_op=1)) == Machine(devices=1, intra_op=1)


# In another process, as this one has a single device


def train_stages(folder: Path) -> None:
    """Train an LSTM stack on drawings by the stage, on three of four devices and on one."""
    from ostinato import store
    from stages import fetch, prepare, train
    from tests.workspace import default_values

    content = default_values()
    run = content["runs"].pop("sketches-gru")
    run["build"] |= {"cell": "lstm", "num_layers": 3}
    run["fit"] |= {"epochs": 2, "batch_size": 16}
    placement = {"layers": {"lstm_1": 1, "lstm_2": 3}, "micro_batches": 3}
    content["runs"] |= {"placed": {**run, "placement": placement}, "plain": run}
    os.chdir(folder)
    store.write_json(Path("params.yaml"), content)  # JSON is YAML
    os.environ["OSTINATO_DEVICES"] = "4"
    fetch.main("params.yaml", "fetch@sketches")
    prepare.main("params.yaml", "prepare@sketches")
    train.main("params.yaml", "train@placed")
    assert len(tf.config.list_logical_devices("CPU")) == 4
    del os.environ["OSTINATO_DEVICES"]
    train.main("params.yaml", "train@plain")


def differences() -> dict[str, float]:
    """The largest difference of a step of the transformer on four devices and on one."""
    from ostinato.translation.models import transformer

    data: Any = SimpleNamespace(vocab_sizes=(11, 11), shared_vocabulary=True)
    sizes = {"units": 4, "num_heads": 2, "feedforward_units": 8, "num_layers": 1}
    layers = {"transformer_layer": 1, "decoder_0": 2, "output_norm": 3, "*": 0}
    placement = Placement(layers=layers, micro_batches=2)
    generator = np.random.default_rng(1)
    source, before, y = (generator.integers(1, 11, (7, 5)).astype("int32") for _ in range(3))
    source[2:4, 3:] = before[1:3, 2:] = 0
    weights = (before != 0).astype("float32")
    x = {"source": source, "before": before, "probability": np.ones((7, 1), "float32")}
    options = {**OPTIONS, "loss": "token_crossentropy", "metrics": ["token_accuracy"]}
    with runtime.runtime(1, Machine(), precision="float32"):
        model = transformer.build(data, **sizes, dropout=0.3, word_dropout=0.2)
        placed = place(model, placement, 4)
        one = SupervisedStep(ScheduledSamplingModel(model), **options)
        other = PipelinedStep(ScheduledSamplingModel(placed), placement, 7, **options)
        found = [after_steps(step, [(x, y, weights)]) for step in (one, other)]
    pairs = zip(*(weights for weights, _ in found), strict=True)
    largest = {"weights": max(float(np.abs(a - b).max()) for a, b in pairs)}
    for when, one_device, four in zip(("train", "test"), *(m for _, m in found), strict=True):
        largest |= {f"{when} {name}": abs(one_device[name] - four[name]) for name in four}
    return largest


def products_by_device() -> dict[str, int]:
    """The matrix products of a step on a stack of four layers, one on each device."""
    inputs = keras.Input((3,))
    x = inputs
    for index in range(4):
        x = keras.layers.Dense(3, "tanh", name=f"dense_{index}")(x)
    placement = Placement(layers={f"dense_{i}": i for i in range(4)}, micro_batches=2)
    model = place(keras.Model(inputs, x), placement, 4)
    step = PipelinedStep(model, placement, 4, **{**OPTIONS, "loss": "huber", "metrics": []})
    batch = tf.ones((4, 3)), tf.ones((4, 3))
    graph = tf.function(step.train, autograph=False).get_concrete_function(batch).graph
    found = [op.device for op in graph.get_operations() if op.type == "MatMul"]
    return {device[-1:]: found.count(device) for device in found}


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """The folder, the output and the figures of a process with four devices."""
    folder = tmp_path_factory.mktemp("four")
    code = (
        "import json, logging, sys\n"
        "from pathlib import Path\n"
        "from ostinato.training.imports import import_keras_quietly\n"
        "import_keras_quietly()\n"
        "from tests import test_placement as here\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
        f"here.train_stages(Path({str(folder)!r}))\n"
        "found = {'differences': here.differences(), 'products': here.products_by_device()}\n"
        "print(json.dumps(found))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return folder, done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_placed_run_of_a_study_has_the_results_of_one_device(
    four_devices: tuple[Path, str, dict[str, Any]],
) -> None:
    """LSTMs on drawings of different lengths, with dropout, masks and clipping, two epochs."""
    import pandas as pd

    from ostinato import store
    from ostinato.sketches.models import rnn  # its layers are registered

    folder, output, _ = four_devices
    assert rnn
    assert "device 0 (CPU:0): points, mask, lstm, dropout\n" in output
    assert "device 3 (CPU:3): lstm_2, dropout_2, dense\n" in output
    assert re.search(r"CPU:1: weights 0\.\d+ MB, optimiser 0\.\d+ MB", output)
    results = [folder / "results" / name for name in ("placed", "plain")]
    placed, plain = (pd.read_csv(result / "history.csv") for result in results)
    for name in set(plain) - {"seconds", "sequences_per_second"}:
        np.testing.assert_allclose(placed[name], plain[name], rtol=1e-4, err_msg=name)
    models = [store.read_model(result / "model" / "model.keras") for result in results]
    for one, other in zip(*(model.weights for model in models), strict=True):
        assert one.path == other.path
        if one.name != "seed_generator_state":
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-5)


@pytest.mark.slow
def test_a_placed_transformer_takes_the_step_of_one_device(
    four_devices: tuple[Path, str, dict[str, Any]],
) -> None:
    """With its own predictions as input, dropout in nested layers, masks and a shared layer."""
    _, _, found = four_devices
    assert found["differences"].pop("weights") < 1e-7  # the step has a length of 0.005
    assert max(found["differences"].values()) < 1e-5, found["differences"]


@pytest.mark.slow
def test_each_device_computes_its_layers_forwards_and_backwards(
    four_devices: tuple[Path, str, dict[str, Any]],
) -> None:
    """Per micro-batch: the output, the gradient of the kernel, and that of the layer before."""
    _, _, found = four_devices
    assert found["products"] == {"0": 2 * 2, "1": 2 * 3, "2": 2 * 3, "3": 2 * 3}
