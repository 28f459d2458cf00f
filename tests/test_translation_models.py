"""Laws of the translation models, small and untrained."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import decoding
from ostinato.decoding import Constraints, reference
from ostinato.task import Part, TrainingContext
from ostinato.training import keras_model, losses, runtime, teacher_forcing, trainer
from ostinato.training.machine import Machine
from ostinato.translation.dataset import BOS, EOS, PAD
from ostinato.translation.models import attention, seq2seq, transformer

BUILDS: list[tuple[Any, dict[str, Any]]] = [
    (seq2seq, {"cell": "gru", "num_layers": 1}),
    (seq2seq, {"cell": "lstm", "num_layers": 2}),
    (attention, {"attention_score": "general", "num_layers": 1}),
    (attention, {"attention_score": "additive", "num_layers": 2}),
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
    shared = block["num_layers"] == 2
    data = SimpleNamespace(vocab_sizes=(13 if shared else 11, 13), shared_vocabulary=shared)
    model = module.build(data, units=8, dropout=0.5, word_dropout=0.1, **block)
    for weight in model.trainable_weights:  # initial weights are too small to tell outputs apart
        weight.assign(2 * weight)
    return module, model


@pytest.fixture
def sentences() -> tuple[np.ndarray, np.ndarray]:
    """Three padded sources with eos and three target prefixes, of different lengths."""
    source = [[4, 5, 6, 7, EOS], [8, EOS, PAD, PAD, PAD], [9, 10, 4, EOS, PAD]]
    before = [[BOS, 5, 6, 7], [BOS, 12, PAD, PAD], [BOS, 4, 11, PAD]]
    return np.array(source, np.int32), np.array(before, np.int32)


def predict(model: keras.Model, source: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.asarray(model({"source": source, "before": before}, training=False))


def test_decoding_steps_equal_the_training_graph(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    module, model = built
    source, before = sentences
    expected = predict(model, source, before)
    step, state, shared = module.start_decoding(model, tf.constant(source))
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], 2, axis=1), state)
    for t in range(before.shape[1]):
        last = tf.repeat(before[:, t : t + 1], 2, axis=1)
        logits, attended, state = step(last, state, shared)
        for hypothesis in range(2):
            np.testing.assert_allclose(logits[:, hypothesis], expected[:, t], atol=1e-4)
        if attended is None:
            continue
        np.testing.assert_allclose(tf.reduce_sum(attended, axis=-1), 1, atol=1e-5)
        padding = np.broadcast_to(source[:, None] == PAD, attended.shape)
        assert (attended.numpy()[padding] == 0).all()


def test_outputs_do_not_depend_on_padding_and_other_sentences(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    _, model = built
    source, before = sentences
    expected = predict(model, source, before)
    padded = predict(model, np.pad(source, ((0, 0), (0, 3))), np.pad(before, ((0, 0), (0, 2))))
    np.testing.assert_allclose(padded[:, : before.shape[1]], expected, atol=1e-4)
    for row in range(3):
        one = predict(
            model, source[row : row + 1, : (source[row] != PAD).sum()], before[row : row + 1]
        )
        np.testing.assert_allclose(one[0], expected[row], atol=1e-4)


def test_predictions_depend_on_the_past_and_on_the_whole_source(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    _, model = built
    source, before = sentences
    expected = predict(model, source, before)
    later = before.copy()
    later[0, 2] = 9
    changed = predict(model, source, later)
    np.testing.assert_array_equal(changed[0, :2], expected[0, :2])
    assert abs(changed[0, 2:] - expected[0, 2:]).max() > 1e-4
    for position in range(4):
        other = source.copy()
        other[0, position] = 3 + (source[0, position] + 1) % 8
        assert abs(predict(model, other, before)[0, 0] - expected[0, 0]).max() > 1e-5


def test_a_restored_model_is_the_same(
    built: tuple[Any, keras.Model], sentences: Any, tmp_path: Path
) -> None:
    _, model = built
    keras_model.save(model, tmp_path)
    restored = keras_model.restore(tmp_path)
    assert restored.parameters == model.count_params()
    np.testing.assert_array_equal(predict(restored.model, *sentences), predict(model, *sentences))


def test_compiled_beam_search_equals_the_numpy_reference(
    built: tuple[Any, keras.Model], sentences: Any
) -> None:
    module, model = built
    source, _ = sentences
    options: dict[str, Any] = {
        "beam_size": 4,
        "nbest_size": 3,
        "length_penalty": 0.6,
        "coverage_penalty": 0.0 if module is seq2seq else 0.2,  # it has no attention
    }

    @tf.function
    def search(source: Any, max_length: Any) -> Any:
        step, state, shared = module.start_decoding(model, source)
        constraints = Constraints(BOS, EOS, PAD, tf.zeros_like(max_length), max_length)
        return decoding.beam_search(step, state, shared, constraints, source != PAD, **options)

    max_length = np.array([7, 3, 5], np.int32)
    result = search(tf.constant(source), tf.constant(max_length))

    step, state, shared = module.start_decoding(model, tf.constant(source))
    constraints = Constraints(BOS, EOS, PAD, np.zeros(3, int), max_length)

    def numpy_step(tokens: Any, state: Any, shared: Any) -> Any:
        logits, attended, state = step(tokens, tensors(state), shared)
        state = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)
        return logits.numpy(), None if attended is None else attended.numpy(), state

    def tensors(state: Any) -> Any:
        return tf.nest.map_structure(tf.constant, state)

    state = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)
    expected = reference.beam_search(
        numpy_step, state, shared, constraints, source != PAD, **options
    )
    np.testing.assert_array_equal(result.tokens, expected.tokens)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4, atol=1e-4)


def test_every_weight_has_a_gradient(built: tuple[Any, keras.Model], sentences: Any) -> None:
    _, model = built
    source, before = sentences
    with tf.GradientTape() as tape:
        logits = model({"source": source, "before": before}, training=False)
        loss = -tf.reduce_mean(tf.nn.log_softmax(logits)[..., 5])
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


class SixPairs:
    """Six random pairs."""

    def size(self, split: str) -> int:
        return 6

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        rng = np.random.default_rng(2)
        source, y = rng.integers(4, 11, (2, 6, 4), dtype=np.int32)
        before = np.concatenate([np.full((6, 1), BOS, np.int32), y[:, :-1]], axis=1)
        items = {"source": source, "before": before}, y, np.ones((6, 4), np.float32)
        return tf.data.Dataset.from_tensor_slices(items).batch(3)


FIT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 3,
    "label_smoothing": 0.1,
    "scheduled_sampling": 0.5,
    "average_checkpoints": 2,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "clip_norm": 1.0,
    "patience": 3,
}


def train(folder: Path, on_epoch: Any) -> tuple[keras.Model, list[trainer.Record]]:
    """Train a small model, or resume its training."""
    with runtime.runtime(5, Machine(), precision="float32"):
        data = SimpleNamespace(vocab_sizes=(11, 11), shared_vocabulary=True)
        model = seq2seq.build(
            data, cell="gru", units=4, num_layers=1, dropout=0.1, word_dropout=0.1
        )
        history = teacher_forcing.fit_seq2seq(
            model, SixPairs(), TrainingContext(folder, 1, partial(on_epoch, model)), **FIT
        )
    return model, history


def test_a_trained_model_averages_its_best_epochs_also_when_resumed(tmp_path: Path) -> None:
    epochs: list[tuple[float, Any]] = []

    def collect(model: keras.Model, record: trainer.Record) -> None:
        loss = record["validation_token_crossentropy"]
        epochs.append((loss, [weight.numpy() for weight in model.trainable_weights]))
        np.testing.assert_allclose(np.log(record["validation_perplexity"]), loss)

    model, history = train(tmp_path / "whole", collect)
    best = sorted(epochs, key=lambda one: one[0])[:2]
    for weight, *parts in zip(model.trainable_weights, *(w for _, w in best), strict=True):
        np.testing.assert_allclose(weight, np.mean(parts, axis=0), rtol=1e-5, atol=1e-7)

    def stop(model: keras.Model, record: trainer.Record) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop)
    again, resumed = train(tmp_path / "parts", lambda model, record: None)
    for one, two in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [r["validation_loss"] for r in resumed] == [r["validation_loss"] for r in history]


def test_scheduled_sampling_replaces_tokens_by_predictions() -> None:
    data = SimpleNamespace(vocab_sizes=(11, 11), shared_vocabulary=True)
    small = seq2seq.build(data, cell="gru", units=4, num_layers=1, dropout=0.1, word_dropout=0.1)
    x, _, _ = next(iter(SixPairs().batches("train", batch_size=3, seed=None, epoch=1)))
    sampling = teacher_forcing.ScheduledSamplingModel(small)
    logits = small(x, training=False).numpy()
    never = sampling({**x, "probability": tf.zeros((3, 1))}, training=False)
    np.testing.assert_array_equal(never, logits)
    predictions = 1 + logits[..., 1:].argmax(-1).astype(np.int32)
    before = tf.concat([x["before"][:, :1], predictions[:, :-1]], axis=1)
    always = sampling({**x, "probability": tf.ones((3, 1))}, training=False)
    np.testing.assert_allclose(always, small({**x, "before": before}, training=False), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_crossentropy_and_its_gradient_equal_keras(smoothing: float) -> None:
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
