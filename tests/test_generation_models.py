"""Laws of the generators: one likelihood however it is computed, one drawing for each seed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato.generation import layers
from ostinato.generation.dataset import Drawings
from ostinato.generation.dataset.augmentation import augment
from ostinato.generation.formats import mixture
from ostinato.generation.formats.drawings import END, START, to_stroke5
from ostinato.generation.layers import (
    CELLS,
    Generator,
    RecurrentGenerator,
    VariationalStep,
    read_before,
    unroll,
)
from ostinato.generation.models import decoder_only, nearest, sketch_rnn, transformer
from ostinato.generation.models.transformer import CausalTransformer

ROOT = Path(__file__).parents[1]
CONDITIONINGS = ("initial_state", "input", "both")
SIZES: dict[str, Any] = {"mixtures": 3, "classes": 3, "scale": 10.0, "longest": 12}


def recurrent(cell: str = "lstm", conditioning: str = "both", **changed: Any) -> RecurrentGenerator:
    keras.utils.set_random_seed(1)
    settings: dict[str, Any] = {
        "cell": cell,
        "encoder_units": 6,
        "decoder_units": 8,
        "latent_size": 4,
        "conditioning": conditioning,
        "recurrent_dropout": 0.1,
        **SIZES,
    }
    return RecurrentGenerator(**(settings | changed))


def causal() -> CausalTransformer:
    keras.utils.set_random_seed(1)
    return CausalTransformer(
        hidden_dim=8, num_heads=2, num_layers=2, feedforward_dim=16, dropout=0.1, **SIZES
    )


def drawn(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [
        np.concatenate([rng.integers(-20, 20, (n, 2)), rng.random((n, 1)) < 0.3], axis=1).astype(
            np.int16
        )
        for n in lengths
    ]


NETWORKS = [
    *[pytest.param(lambda c=c: recurrent(c), id=c) for c in CELLS],
    *[pytest.param(lambda c=c: recurrent(conditioning=c), id=c) for c in CONDITIONINGS[:2]],
    pytest.param(lambda: recurrent(encoder_units=0, latent_size=0), id="decoder_only"),
    pytest.param(causal, id="transformer"),
]
LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize("build", NETWORKS)
def test_the_outputs_row_by_row_are_those_of_all_rows_at_once(build: Any) -> None:
    network = build()
    rows = tf.constant(to_stroke5(drawn(5, 9, 12), 10.0))
    latent = tf.random.stateless_normal((3, network.latent_size), (1, 2))
    whole = network.decode(rows, LABELS, latent).numpy()
    step, state = network.roller(tf.constant(LABELS), latent, rows.shape[1])
    before = read_before(rows)
    for t in range(rows.shape[1]):
        outputs, state = step(tf.constant(t), before[:, t], state)
        np.testing.assert_allclose(outputs, whole[:, t], atol=1e-5)


@pytest.mark.parametrize("build", NETWORKS)
def test_a_likelihood_depends_on_no_other_drawing_and_on_no_padding(build: Any) -> None:
    generator = Generator(build())
    drawings = drawn(5, 9, 12)
    together = generator.measure(drawings, LABELS, [1, 2, 3])
    for i in range(3):
        alone = generator.measure(drawings[i : i + 1], LABELS[i : i + 1], [i + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            if one is not None and all_of_them is not None:
                assert one[0] == pytest.approx(all_of_them[i], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("build", NETWORKS)
def test_a_seed_gives_one_drawing_alone_or_among_others(build: Any) -> None:
    generator = Generator(build())
    heat = np.array([0.5, 1.0, 1.5])
    together = generator.draw(LABELS, [5, 6, 7], heat)
    for i in range(3):
        part = slice(i, i + 1)
        alone = generator.draw(LABELS[part], [5 + i], heat[part])[0]
        np.testing.assert_array_equal(alone, together[i])
    other = generator.draw(LABELS, [8, 9, 10], heat)
    assert any(not np.array_equal(a, b) for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize("build", NETWORKS)
def test_a_beginning_stays_as_it_is(build: Any) -> None:
    generator = Generator(build())
    drawings = drawn(5, 9, 20)  # one has more rows than the longest training drawing
    begun = [rows[: len(rows) - 1] for rows in drawings]
    for begin, rows in zip(
        begun, generator.draw(LABELS, [1, 2, 3], np.ones(3), beginnings=begun), strict=True
    ):
        np.testing.assert_array_equal(rows[: len(begin)], begin)
        assert len(rows) <= max(12, len(begin) + 1)


@pytest.mark.parametrize("build", NETWORKS)
def test_a_saved_model_draws_the_same(build: Any, tmp_path: Path) -> None:
    network = build()
    layers.save(network, tmp_path / "one")
    again = layers.load(type(network), tmp_path / "one")
    expected = Generator(network).draw(LABELS, [1, 2, 3], np.ones(3))
    for rows, other in zip(expected, again.draw(LABELS, [1, 2, 3], np.ones(3)), strict=True):
        np.testing.assert_array_equal(rows, other)
    layers.save(again.network, tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.slow
def test_another_process_with_another_number_of_threads_draws_the_same(tmp_path: Path) -> None:
    layers.save(recurrent(encoder_units=64, decoder_units=128, longest=80), tmp_path / "model")
    code = """
import json, sys
from pathlib import Path
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[2]))
from ostinato.generation import layers
from ostinato.generation.dataset import Drawings
from ostinato.generation.dataset.augmentation import augment
generator = layers.restore(Path(sys.argv[1]))
rows = generator.draw(np.arange(60) % 3, list(range(60)), np.full(60, 0.7))
print(json.dumps([each.tolist() for each in rows]))
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "model"), threads],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ).stdout
        for threads in ("1", "2")
    ]
    assert json.loads(found[0]) == json.loads(found[1])


def test_the_gradient_of_the_fast_loop_is_that_of_its_steps() -> None:
    keras.utils.set_random_seed(1)
    cell = layers.LSTM(4)
    cell.build(3)
    inputs = tf.random.stateless_normal((6, 2, 3), (1, 1))
    keep = tf.constant(np.random.default_rng(1).integers(0, 2, (6, 2, 4)) / 0.5, tf.float32)
    state = tuple(tf.random.stateless_normal((2, 4), (2, i)) for i in range(2))
    weight = tf.random.stateless_normal((6, 2, 4), (3, 3))

    def gradients(fast: bool) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([inputs, *state])
            x = cell.project(inputs)
            if fast:
                outputs = unroll(cell, x, state, keep)
            else:
                now, found = state, []
                for t in range(6):
                    now = cell.step(x[t], now, keep[t])
                    found.append(now[0])
                outputs = tf.stack(found)
            loss = tf.reduce_sum(outputs * weight)
        return loss, *tape.gradient(loss, [inputs, *state, *cell.trainable_weights])

    for fast, slow in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_the_loop_over_rows_repeats_the_step(cell: str) -> None:
    keras.utils.set_random_seed(1)
    built = CELLS[cell](4)
    built.build(3)
    x = built.project(tf.random.stateless_normal((5, 2, 3), (1, 1)))
    state = tuple(tf.zeros((2, size)) for size in built.state_sizes)
    outputs = unroll(built, x, state)
    for t in range(5):
        state = built.step(x[t], state)
        np.testing.assert_allclose(outputs[t], state[0], atol=1e-6)


def test_a_layer_normalised_cell_does_not_depend_on_the_scale_of_its_input() -> None:
    cell = layers.LayerNormLSTM(4)
    cell.build(3)
    x = cell.project(tf.random.stateless_normal((1, 2, 3), (1, 1)))[0] * 100
    zeros = (tf.zeros((2, 4)), tf.zeros((2, 4)))
    np.testing.assert_allclose(cell.step(x, zeros)[0], cell.step(x * 2, zeros)[0], atol=1e-4)


def test_a_hyper_cell_begins_as_a_layer_normalised_one() -> None:
    """Its scales are constants at the start, and normalised gates do not depend on a constant."""
    keras.utils.set_random_seed(1)
    hyper, plain = layers.HyperLSTM(4), layers.LayerNormLSTM(4)
    for cell in (hyper, plain):
        cell.build(3)
    for name in ("kernel", "recurrent"):
        getattr(plain, name).assign(getattr(hyper, name))
    inputs = tf.random.stateless_normal((3, 2, 3), (1, 1)) * 100  # the variance's epsilon is small
    found = [
        unroll(cell, cell.project(inputs), tuple(tf.zeros((2, size)) for size in cell.state_sizes))
        for cell in (hyper, plain)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=2e-2)


def test_draws_follow_the_mixture() -> None:
    """One component: mean, deviations and correlation; the share of each pen state."""
    outputs = np.array(
        [np.log(0.2), np.log(0.7), np.log(0.1), 0, 1, -2, 0.5, -0.5, np.arctanh(0.6)]
    )
    rng = np.random.default_rng(1)
    count = 40_000
    noise = np.concatenate([rng.random((count, 2)), rng.standard_normal((count, 2))], axis=1)
    rows = mixture.draw(
        tf.constant(np.tile(outputs, (count, 1)), tf.float32),
        tf.constant(noise, tf.float32),
        tf.ones(count),
    ).numpy()
    np.testing.assert_allclose(rows[:, 2:].mean(axis=0), [0.2, 0.7, 0.1], atol=0.01)
    np.testing.assert_allclose(rows[:, :2].mean(axis=0), [1, -2], atol=0.03)
    np.testing.assert_allclose(rows[:, :2].std(axis=0), np.exp([0.5, -0.5]), rtol=0.02)
    assert np.corrcoef(rows[:, 0], rows[:, 1])[0, 1] == pytest.approx(0.6, abs=0.02)


def test_a_low_temperature_draws_the_most_probable_row() -> None:
    outputs = tf.constant([[0.0, 3, 1, 0, 5, 0, 7, 0, -7, 0, 0, 0, 0, 0, 0]])
    row = mixture.draw(outputs, tf.constant([[0.99, 0.99, 2.0, 2.0]]), tf.constant([1e-6]))
    np.testing.assert_allclose(row, [[7, -7, 0, 1, 0]], atol=1e-2)


def test_nothing_comes_after_an_end() -> None:
    def step(t: Any, rows: Any, state: Any) -> Any:
        """Ends the first drawing in row 2, and never the other one."""
        end = tf.where((t == 2) & (tf.range(2) == 0), 50.0, -50.0)
        zeros = tf.zeros((2, 8))
        return tf.concat([tf.stack([tf.zeros(2), tf.zeros(2), end], axis=1), zeros[:, :6]], 1), []

    rows = mixture.roll_out(
        step,
        [],
        tf.fill((2, 6, 4), 0.5),
        tf.ones(2),
        tf.zeros((2, 1, 5)),
        tf.zeros(2, tf.int32),
        1.0,
    ).numpy()
    np.testing.assert_array_equal(rows[0, :2, 4], 0)
    np.testing.assert_array_equal(rows[0, 2:], np.tile(END, (4, 1)))
    np.testing.assert_array_equal(rows[1, :, 4], 0)


def step_of(network: Any, **changed: Any) -> VariationalStep:
    return VariationalStep(network, optimizer="sgd", learning_rate=0.0, clip_norm=0.0, **changed)


def measured(step: VariationalStep, drawings: list[np.ndarray], training: bool = True) -> Any:
    rows, labels = tf.constant(to_stroke5(drawings, 10.0)), tf.constant(LABELS[: len(drawings)])
    labels = tf.cast(labels, tf.int32)
    method = step.train if training else step.test
    sums = tf.distribute.get_strategy().run(method, args=((rows, labels),))
    return {name: float(total / weight) for name, (total, weight) in sums.items()}


def test_the_weight_of_kl_rises_and_stops_at_its_tolerance() -> None:
    network = recurrent(recurrent_dropout=0.0)
    assert network.encoder is not None
    network.encoder.mean.bias.assign([1.0, 1, 1, 1])  # L_KL is near 0.5
    drawings = drawn(5, 9, 12)
    step = step_of(network, kl_weight=2.0, kl_start=0.1, kl_decay=0.5, kl_tolerance=0.2)
    for number in range(4):
        found = measured(step, drawings)
        eta = 1 - 0.9 * 0.5**number
        expected = found["reconstruction"] + 2 * eta * found["kl"]
        assert found["loss"] == pytest.approx(expected, rel=1e-5)
    found = measured(step, drawings, training=False)
    assert found["loss"] == pytest.approx(found["reconstruction"] + 2 * found["kl"], rel=1e-5)
    tolerant = step_of(network, kl_weight=2.0, kl_tolerance=0.9)
    found = measured(tolerant, drawings)
    assert found["loss"] == pytest.approx(found["reconstruction"] + 2 * 0.9, rel=1e-5)
    with tf.GradientTape() as tape:
        loss, _ = tolerant._measure(
            (tf.constant(to_stroke5(drawings, 10.0)), tf.constant(LABELS, tf.int32)), 1.0, True
        )
    gradient = tape.gradient(loss, network.encoder.log_variance.kernel)
    assert np.isfinite(gradient).all()


def test_stretching_and_dropping_keep_the_other_points_in_place() -> None:
    rows = tf.constant(to_stroke5(drawn(30, 50, 80), 10.0))
    np.testing.assert_allclose(augment(rows, 0.0, 0.0, (1, 2)), rows, atol=1e-5)
    fewer = augment(rows, 0.0, 0.5, (1, 2)).numpy()
    lifted = rows.numpy()[..., 3].sum(axis=1)
    np.testing.assert_array_equal(fewer[..., 3].sum(axis=1), lifted)  # no stroke loses its end
    for before, after in zip(rows.numpy(), fewer, strict=True):
        ours, theirs = (each[each[:, 4] == 0] for each in (after, before))
        assert 2 < len(ours) < len(theirs)
        places = np.round(np.cumsum(theirs[:, :2], axis=0), 3).tolist()
        for place in np.round(np.cumsum(ours[:, :2], axis=0), 3):
            assert np.abs(np.array(places) - place).max(axis=1).min() < 2e-3
        np.testing.assert_array_equal(after[len(ours) :], np.tile(END, (len(after) - len(ours), 1)))
    wide = augment(rows, 0.2, 0.0, (1, 2)).numpy()
    factor = wide[..., :2].sum(axis=1) / rows.numpy()[..., :2].sum(axis=1)
    assert (np.abs(factor - 1) <= 0.2 + 1e-5).all()
    assert np.ptp(factor) > 0.01


def test_a_decoder_reads_the_start_and_the_rows_before() -> None:
    rows = tf.constant(to_stroke5(drawn(3), 10.0))
    before = read_before(rows).numpy()
    np.testing.assert_array_equal(before[0, 0], START)
    np.testing.assert_array_equal(before[0, 1:], rows[0, :-1])


class Copies:
    """A data set for `nearest`."""

    classes = ("a", "b", "c")

    def __init__(self) -> None:
        drawings = drawn(5, 9, 12)
        self.drawings = Drawings(
            np.concatenate(drawings),
            np.cumsum([len(d) for d in drawings]),
            LABELS.astype(np.int32),
            np.array(["1", "2", "3"]),
        )

    def examples(self, split: str) -> Any:
        return self.drawings


def test_the_floor_draws_a_training_drawing_of_the_class(tmp_path: Path) -> None:
    data: Any = Copies()
    model = nearest.build(data, jitter=0.0)
    for rows, own in zip(model.draw(LABELS, [1, 2, 3], np.ones(3)), data.drawings, strict=True):
        np.testing.assert_array_equal(rows, own)
    begun = [rows[:3] for rows in data.drawings]
    finished = model.draw(np.array([0, 0, 0]), [1, 2, 3], np.ones(3), beginnings=begun)
    for begin, rows in zip(begun, finished, strict=True):
        np.testing.assert_array_equal(rows[:3], begin)
    noisy = nearest.build(data, jitter=3.0)
    nearest.save(noisy, tmp_path)
    again = nearest.restore(tmp_path)
    one, other = (m.draw(LABELS, [1, 2, 3], np.ones(3)) for m in (noisy, again))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], data.drawings[0])


def test_a_model_without_condition_ignores_the_class() -> None:
    data: Any = SimpleNamespace(classes=("a", "b", "c"), scale=10.0, longest=12)
    network = decoder_only.build(
        data, cell="lstm", decoder_units=8, mixtures=3, conditioning="none", recurrent_dropout=0.0
    )
    generator, drawings = Generator(network), drawn(5, 5, 5)
    one, _ = generator.measure(drawings, LABELS, [1, 1, 1])
    other, _ = generator.measure(drawings, LABELS[::-1], [1, 1, 1])
    np.testing.assert_array_equal(one, other)


def test_the_sizes_of_the_paper_can_be_built() -> None:
    data: Any = SimpleNamespace(classes=("cat",), scale=10.0, longest=250)
    network = sketch_rnn.build(
        data,
        cell="lstm",
        encoder_units=256,
        decoder_units=512,
        latent_size=128,
        mixtures=20,
        conditioning="both",
        class_conditional=False,
        recurrent_dropout=0.1,
    )
    recurrent_weights = 2 * 4 * 256 * (5 + 256 + 1) + 4 * 512 * (5 + 128 + 512 + 1)
    dense = 2 * 128 * (512 + 1) + 2 * 512 * (128 + 1) + (512 + 1) * 123
    assert Generator(network).parameters == recurrent_weights + dense
    assert transformer.build(
        data,
        head_dim=8,
        num_heads=2,
        num_layers=1,
        feedforward_dim=8,
        mixtures=2,
        class_conditional=False,
        dropout=0.0,
    ).count_params()
