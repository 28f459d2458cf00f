"""Laws of the models that translate, small and untrained."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import store
from ostinato.decoding import search as decoding_search
from ostinato.decoding.search import Rules
from ostinato.task import TrainingContext
from ostinato.training import losses, runtime, teacher_forcing, trainer
from ostinato.translation.dataset.batches import BOS, EOS, PAD
from ostinato.translation.models import attention, seq2seq, transformer

BUILDS: list[tuple[Any, dict[str, Any]]] = [
    (seq2seq, {"cell": "gru", "num_layers": 1}),
    (seq2seq, {"cell": "lstm", "num_layers": 2}),
    (attention, {"scores": "general", "num_layers": 1}),
    (attention, {"scores": "additive", "num_layers": 2}),
    (transformer, {"num_heads": 2, "feedforward_units": 16, "num_layers": 2}),
]


@pytest.fixture(
    params=BUILDS,
    ids=lambda build: f"{build[0].__name__.split('.')[-1]}-{build[1]}",
    scope="module",
)
def built(request: pytest.FixtureRequest) -> tuple[Any, keras.Model]:
    module, block = request.param
    keras.utils.set_random_seed(5)
    joint = block["num_layers"] == 2
    data = SimpleNamespace(vocabulary=(13 if joint else 11, 13), joint=joint)
    model = module.build(data, units=8, dropout=0.5, word_dropout=0.1, **block)
    for weight in model.trainable_weights:  # first weights are small: their differences drown
        weight.assign(2 * weight)
    return module, model


@pytest.fixture
def sentences() -> tuple[np.ndarray, np.ndarray]:
    """Three sources with eos and three beginnings, of different lengths, padded."""
    source = [[4, 5, 6, 7, EOS], [8, EOS, PAD, PAD, PAD], [9, 10, 4, EOS, PAD]]
    before = [[BOS, 5, 6, 7], [BOS, 12, PAD, PAD], [BOS, 4, 11, PAD]]
    return np.array(source, np.int32), np.array(before, np.int32)


def told(model: keras.Model, source: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.asarray(model({"source": source, "before": before}, training=False))


def test_the_steps_of_decoding_are_those_of_training(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    module, model = built
    source, before = sentences
    expected = told(model, source, before)
    step, state, shared = module.start(model, tf.constant(source))
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], 2, axis=1), state)
    for t in range(before.shape[1]):
        last = tf.repeat(before[:, t : t + 1], 2, axis=1)
        logits, seen, state = step(last, state, shared)
        for hypothesis in range(2):
            np.testing.assert_allclose(logits[:, hypothesis], expected[:, t], atol=1e-4)
        if seen is None:
            continue
        np.testing.assert_allclose(tf.reduce_sum(seen, axis=-1), 1, atol=1e-5)
        assert (seen.numpy()[np.broadcast_to(source[:, None] == PAD, seen.shape)] == 0).all()


def test_padding_and_the_other_sentences_change_nothing(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    _, model = built
    source, before = sentences
    expected = told(model, source, before)
    padded = told(model, np.pad(source, ((0, 0), (0, 3))), np.pad(before, ((0, 0), (0, 2))))
    np.testing.assert_allclose(padded[:, : before.shape[1]], expected, atol=1e-4)
    for row in range(3):
        one = told(
            model, source[row : row + 1, : (source[row] != PAD).sum()], before[row : row + 1]
        )
        np.testing.assert_allclose(one[0], expected[row], atol=1e-4)


def test_a_prediction_depends_on_the_past_alone_and_on_all_of_the_source(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    _, model = built
    source, before = sentences
    expected = told(model, source, before)
    later = before.copy()
    later[0, 2] = 9
    changed = told(model, source, later)
    np.testing.assert_array_equal(changed[0, :2], expected[0, :2])
    assert abs(changed[0, 2:] - expected[0, 2:]).max() > 1e-4
    for place in range(4):
        other = source.copy()
        other[0, place] = 3 + (source[0, place] + 1) % 8
        assert abs(told(model, other, before)[0, 0] - expected[0, 0]).max() > 1e-5


def test_a_stored_model_translates_as_before(
    built: tuple[Any, keras.Model], sentences: Any, tmp_path: Path
) -> None:
    _, model = built
    store.write_model(tmp_path / "model.keras", model)
    again = store.read_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(told(again, *sentences), told(model, *sentences))


def test_the_graph_of_a_search_finds_what_numpy_finds(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    module, model = built
    source, _ = sentences
    coverage = 0.0 if module is seq2seq else 0.2  # it attends to nothing
    options: dict[str, Any] = {"width": 4, "best": 3, "length": 0.6, "coverage": coverage}

    @tf.function
    def search(source: Any, maximum: Any) -> Any:
        step, state, shared = module.start(model, source)
        rules = Rules(BOS, EOS, PAD, tf.zeros_like(maximum), maximum)
        return decoding_search.beam(step, state, shared, rules, source != PAD, **options)

    maximum = np.array([7, 3, 5], np.int32)
    found = search(tf.constant(source), tf.constant(maximum))

    step, state, shared = module.start(model, tf.constant(source))
    rules = Rules(BOS, EOS, PAD, np.zeros(3, int), maximum)

    def arrays(tokens: Any, state: Any, shared: Any) -> Any:
        logits, seen, state = step(tokens, tensors(state), shared)
        state = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)
        return logits.numpy(), None if seen is None else seen.numpy(), state

    def tensors(state: Any) -> Any:
        return tf.nest.map_structure(tf.constant, state)

    state = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)
    expected = decoding_search.beam_numpy(arrays, state, shared, rules, source != PAD, **options)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-4)


def test_every_weight_learns(built: tuple[Any, keras.Model], sentences: Any) -> None:
    _, model = built
    source, before = sentences
    with tf.GradientTape() as tape:
        logits = model({"source": source, "before": before}, training=False)
        loss = -tf.reduce_mean(tf.nn.log_softmax(logits)[..., 5])
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


class Few:
    """Data of six pairs, of tokens that say little."""

    def size(self, split: str) -> int:
        return 6

    def batches(self, split: str, *, batch_size: int, seed: int | None, epoch: int) -> Any:
        rng = np.random.default_rng(2)
        source, y = rng.integers(4, 11, (2, 6, 4), dtype=np.int32)
        before = np.concatenate([np.full((6, 1), BOS, np.int32), y[:, :-1]], axis=1)
        items = {"source": source, "before": before}, y, np.ones((6, 4), np.float32)
        return tf.data.Dataset.from_tensor_slices(items).batch(3)


FIT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 3,
    "smoothing": 0.1,
    "scheduled_sampling": 0.5,
    "average_checkpoints": 2,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "clip_norm": 1.0,
    "patience": 3,
}


def taught(folder: Path, on_epoch: Any) -> tuple[keras.Model, list[trainer.Record]]:
    """A small model, taught from its first weights or from where it was stopped."""
    alone: dict[str, Any] = {"devices": 1, "intra_op": None, "inter_op": None}
    with runtime.runtime(5, precision="float32", **alone):
        data = SimpleNamespace(vocabulary=(11, 11), joint=True)
        model = seq2seq.build(
            data, cell="gru", units=4, num_layers=1, dropout=0.1, word_dropout=0.1
        )
        history = teacher_forcing.fit_seq2seq(
            model, Few(), TrainingContext(folder, 1, partial(on_epoch, model)), **FIT
        )
    return model, history


def test_a_taught_model_is_the_mean_of_its_best_epochs_also_after_a_stop(tmp_path: Path) -> None:
    seen: list[tuple[float, Any]] = []

    def look(model: keras.Model, record: trainer.Record) -> None:
        cost = record["validation_token_crossentropy"]
        seen.append((cost, [weight.numpy() for weight in model.trainable_weights]))
        np.testing.assert_allclose(np.log(record["validation_perplexity"]), cost)

    model, history = taught(tmp_path / "whole", look)
    best = sorted(seen, key=lambda one: one[0])[:2]
    for weight, *parts in zip(model.trainable_weights, *(w for _, w in best), strict=True):
        np.testing.assert_allclose(weight, np.mean(parts, axis=0), rtol=1e-5, atol=1e-7)

    def stop(model: keras.Model, record: trainer.Record) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "parts", stop)
    again, resumed = taught(tmp_path / "parts", lambda model, record: None)
    for one, two in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [r["validation_loss"] for r in resumed] == [r["validation_loss"] for r in history]


def test_a_model_reads_its_guesses_by_chance() -> None:
    data = SimpleNamespace(vocabulary=(11, 11), joint=True)
    small = seq2seq.build(data, cell="gru", units=4, num_layers=1, dropout=0.1, word_dropout=0.1)
    x, _, _ = next(iter(Few().batches("train", batch_size=3, seed=None, epoch=1)))
    guessing = teacher_forcing.ScheduledSamplingModel(small)
    said = small(x, training=False).numpy()
    never = guessing({**x, "probability": tf.zeros((3, 1))}, training=False)
    np.testing.assert_array_equal(never, said)
    guesses = 1 + said[..., 1:].argmax(-1).astype(np.int32)
    read = tf.concat([x["before"][:, :1], guesses[:, :-1]], axis=1)
    always = guessing({**x, "probability": tf.ones((3, 1))}, training=False)
    np.testing.assert_allclose(always, small({**x, "before": read}, training=False), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_tokens_and_its_gradient_are_those_of_keras(smoothing: float) -> None:
    rng = np.random.default_rng(3)
    logits = tf.constant(5 * rng.normal(size=(2, 3, 7)), tf.float32)
    truth, upstream = rng.integers(0, 7, (2, 3)), tf.constant(rng.normal(size=(2, 3)), tf.float32)
    found = []
    for function in (
        lambda: losses.token_crossentropy(tf.constant(truth), logits, smoothing),
        lambda: keras.losses.categorical_crossentropy(
            tf.one_hot(truth, 7), logits, from_logits=True, label_smoothing=smoothing
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = function()
        found.append((values, tape.gradient(values, logits, upstream)))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
