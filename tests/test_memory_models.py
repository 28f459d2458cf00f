"""Models of memory tasks: laws of their cells, of how they are trained, and of what they hold."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato.errors import ParamsError
from ostinato.memory import layers
from ostinato.memory.formats import cells
from ostinato.memory.formats import reservoir as reservoirs
from ostinato.memory.models import (
    clockwork,
    deep_transition,
    echo_state,
    leaky,
    multidimensional,
    ntm,
    rnn,
    skip,
)

ROOT = Path(__file__).parent.parent
RNN: dict[str, Any] = {
    "cell": "simple",
    "units": 3,
    "num_layers": 1,
    "activation": "tanh",
    "recurrent_initializer": "orthogonal",
    "gate_bias": "zeros",
    "initial_state": "zeros",
    "layer_normalization": False,
    "residual": False,
    "bidirectional": False,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "unroll": False,
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    keras.utils.set_random_seed(5)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def task(**given: Any) -> Any:
    """What a model needs of a data set."""
    usual = {"target": "number", "per_step": True, "features": 2, "outputs": 1}
    return SimpleNamespace(**{**usual, "steps": 6, "fixed": True, **given})


def sequences(count: int = 4, steps: int = 6, features: int = 2) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, steps, features)).astype(np.float32)


def with_weights_of(other: Any, layer: Any) -> Any:
    """``layer`` with the weights of ``other`` that have the same names."""
    found = {weight.name: weight for weight in other.weights}
    for weight in layer.weights:
        if weight.name in found:
            weight.assign(found[weight.name])
    return layer


# Cells


SIMPLE = pytest.mark.parametrize(
    "cell",
    [
        leaky.LeakyCell(3, 1.0, False),
        clockwork.ClockworkCell(3, [1]),
        deep_transition.DeepTransitionCell(3, 1, False),
    ],
    ids=["leak 1", "one period", "one layer"],
)


@SIMPLE
def test_a_cell_without_its_remedy_is_the_simple_cell(cell: Any) -> None:
    x = sequences()
    simple = keras.layers.RNN(keras.layers.SimpleRNNCell(3), return_sequences=True)
    other = keras.layers.RNN(cell, return_sequences=True)
    expected, _ = simple(x), other(x)
    with_weights_of(simple.cell, other.cell)
    np.testing.assert_allclose(other(x), expected, atol=1e-6)


def test_a_skip_connection_without_weight_is_the_simple_cell_and_reads_d_steps_back() -> None:
    x = sequences()
    simple = keras.layers.RNN(keras.layers.SimpleRNNCell(3), return_sequences=True)
    other = keras.layers.RNN(skip.SkipCell(3, 4), return_sequences=True)
    expected, _ = simple(x), other(x)
    with_weights_of(simple.cell, other.cell)
    other.cell.skip_kernel.assign(np.zeros((3, 3)))
    np.testing.assert_allclose(other(x), expected, atol=1e-6)
    other.cell.recurrent_kernel.assign(np.zeros((3, 3)))
    other.cell.skip_kernel.assign(np.eye(3))
    changed = x.copy()
    changed[:, 0] += 1
    moved = np.abs(other(changed).numpy() - other(x).numpy()).max(axis=(0, 2)) > 0
    assert moved.tolist() == [True, False, False, False, True, False]


def test_a_module_of_a_clockwork_changes_only_at_its_period_and_reads_slower_ones() -> None:
    layer = keras.layers.RNN(clockwork.ClockworkCell(4, [1, 3]), return_sequences=True)
    states = layer(sequences(steps=7)).numpy()
    moves = np.abs(np.diff(states, axis=1)).max(axis=0) > 0
    assert moves[:, :2].all()
    assert moves[:, 2:].any(axis=1).tolist() == [False, False, True, False, False, True]
    of_fast = layer.cell._reads[:2]  # what units of the fast module send to: not to slow ones
    assert of_fast.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("name", ["simple", "lstm", "gru"])
def test_the_equations_of_a_cell_give_the_values_of_keras(name: str) -> None:
    layer = rnn.LAYERS[name](3, bias_initializer="normal", return_sequences=True)
    x = sequences()
    expected = layer(x).numpy()
    sizes = 2 if name == "lstm" else 1
    for n in range(len(x)):
        found = cells.read(name, x[n], layer.get_weights(), [np.zeros(3)] * sizes)
        np.testing.assert_allclose(found["state"], expected[n], atol=1e-6)


@pytest.mark.parametrize("name", ["simple", "lstm", "gru"])
def test_normalised_sums_do_not_depend_on_the_scale_of_the_weights(name: str) -> None:
    layer = keras.layers.RNN(rnn.NORMALIZED[name](8))
    x, found = sequences(), []
    layer(x)
    for _ in range(2):  # the first time, because the variance of small sums is not divided out
        for weight in (layer.cell.kernel, layer.cell.recurrent_kernel):
            weight.assign(100 * weight)
        found.append(layer(x).numpy())
    np.testing.assert_allclose(found[1], found[0], atol=2e-3)


def every_cell() -> list[Any]:
    return [
        keras.layers.SimpleRNNCell(3),
        rnn.NormalizedSimpleCell(3),
        rnn.NormalizedLSTMCell(3),
        rnn.NormalizedGRUCell(3),
        leaky.LeakyCell(3, 4.0, True),
        skip.SkipCell(3, 2),
        clockwork.ClockworkCell(4, [1, 2]),
        deep_transition.DeepTransitionCell(3, 2, True),
        ntm.NTMCell("lstm", 3, 4, 2, 1, 1, 1),
        ntm.NTMCell("dense", 3, 4, 2, 2, 2, 1),
    ]


@pytest.mark.parametrize("number", range(10))
def test_the_gradient_of_a_cell_is_that_of_finite_differences(number: int) -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    layer = keras.layers.RNN(every_cell()[number])
    x = tf.constant(sequences(2, 4), tf.float64)
    layer(x)
    random = np.random.default_rng(1)
    weights = layer.trainable_weights
    directions = [random.normal(size=weight.shape) for weight in weights]

    def loss() -> Any:
        return tf.reduce_sum(tf.sin(layer(x)))

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, weights)
    slope = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, directions, strict=True))
    step, ends = 1e-5, []
    for sign in (1, -2):
        for weight, direction in zip(weights, directions, strict=True):
            weight.assign_add(sign * step * direction)
        ends.append(float(loss()))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


# Neural Turing machine


def test_heads_of_an_ntm_rotate_by_a_one_hot_shift_and_find_a_slot_by_its_content() -> None:
    random = np.random.default_rng(2)
    memory = random.normal(size=(1, 5, 3)).astype(np.float32)
    before = np.array([[[0.7, 0.2, 0.1, 0, 0]]], np.float32)
    key = memory[:, 3:4]

    def head(gate: float, shift: int) -> Any:
        one_hot = np.eye(3, dtype=np.float32)[[[shift + 1]]]
        numbers = [np.full((1, 1, 1), value, np.float32) for value in (100.0, gate, 1.0)]
        return ntm.address(memory, key, numbers[0], numbers[1], one_hot, numbers[2], before)

    for shift in (-1, 0, 1):
        np.testing.assert_allclose(head(0.0, shift), np.roll(before, shift, axis=-1), atol=1e-5)
        found = head(1.0, shift).numpy()
        assert found.argmax() == 3 + shift
        assert found.max() > 0.99


# How they are trained


def trained_once(step: Any, model: Any, batch: Any) -> list[np.ndarray]:
    step.train(batch)
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize(
    "changed",
    [{}, {"cell": "lstm", "num_layers": 2, "residual": True, "initial_state": "learned"}],
    ids=["simple", "lstm"],
)
def test_truncation_at_the_full_length_is_backpropagation(
    per_step: bool, changed: dict[str, Any]
) -> None:
    data = task(per_step=per_step)
    x = sequences()
    y = np.random.default_rng(4).normal(size=(4, 6, 1) if per_step else (4, 1)).astype(np.float32)
    weight = np.tile(np.array([0, 0, 1, 1, 1, 1], np.float32), (4, 1))
    batch = tuple(map(tf.constant, (x, y, weight) if per_step else (x, y)))
    results = []
    for truncation in (None, 6, 9):
        keras.utils.set_random_seed(8)
        model = rnn.build(data, **{**RNN, **changed})
        step: Any = layers.supervised(model, data, "sgd", 0.1, 1.0, 0.0)
        if truncation:
            step = layers.TruncatedStep(step, model, data, 1.0, truncation)
        sums = step.train(batch)
        results.append([float(value) for pair in sums.values() for value in pair])
        results[-1] += [value for w in model.weights for value in w.numpy().ravel()]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-4, atol=1e-6)


def test_truncation_carries_the_state_and_cuts_the_gradient() -> None:
    """Two updates of three steps each, the second from the states after the first."""
    data, x = task(), sequences()
    y = np.random.default_rng(4).normal(size=(4, 6, 1)).astype(np.float32)
    batch = (tf.constant(x), tf.constant(y), tf.ones((4, 6)))
    model = rnn.build(data, **RNN)
    start = [weight.numpy() for weight in model.weights]
    usual = layers.supervised(model, data, "sgd", 0.1, 0.0, 0.0)
    found = trained_once(layers.TruncatedStep(usual, model, data, 0.0, 3), model, batch)

    for weight, value in zip(model.weights, start, strict=True):
        weight.assign(value)
    layer, answer = model.layers[1], model.layers[-1]
    state = tf.zeros((4, 3))
    for part in (slice(0, 3), slice(3, 6)):
        with tf.GradientTape() as tape:
            h, outputs = state, []
            for t in range(part.start, part.stop):
                h, _ = layer.cell(x[:, t], [h])
                outputs.append(answer(h))
            loss = tf.reduce_mean((tf.stack(outputs, axis=1) - y[:, part]) ** 2)
        gradients = tape.gradient(loss, model.trainable_weights)
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
            weight.assign_sub(0.1 * gradient)
        state = tf.stop_gradient(h)
    for weight, value in zip(model.weights, found, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-5)


def test_a_static_graph_gives_the_answers_of_a_dynamic_one() -> None:
    x = sequences()
    for cell in ("simple", "lstm", "gru"):
        models = [rnn.build(task(), **{**RNN, "cell": cell, "unroll": u}) for u in (False, True)]
        models[1].set_weights(models[0].get_weights())
        np.testing.assert_allclose(models[1](x), models[0](x), atol=1e-6)


def test_the_flow_of_information_is_regular_through_an_orthogonal_linear_layer() -> None:
    x, flow = tf.constant(sequences()), tf.constant(sequences(features=3))
    layer = keras.layers.SimpleRNN(
        3, activation="linear", recurrent_initializer="orthogonal", return_sequences=True
    )
    states = layer(x)
    penalty = layers.InformationFlowStep.penalty
    assert float(penalty(layer, x, states, flow)) == pytest.approx(0, abs=1e-9)
    layer.cell.recurrent_kernel.assign(3 * layer.cell.recurrent_kernel)
    assert float(penalty(layer, x, states, flow)) == pytest.approx(4, rel=1e-5)


def test_the_gradient_of_the_states_is_that_of_the_loss() -> None:
    """The values that are added to the states of an unchanged model have the gradient's norm."""
    data = task(per_step=False)
    model = rnn.build(data, **RNN)
    x = tf.constant(sequences())
    (layer,), tapped = layers.tapped(model)
    taps = tf.zeros((4, 6, 3))
    with tf.GradientTape() as tape:
        tape.watch(taps)
        answer, inputs, states = tapped([x, taps])
        loss = tf.reduce_sum(answer)
    flow = tape.gradient(loss, taps).numpy()
    np.testing.assert_allclose(answer, model(x), atol=1e-6)
    np.testing.assert_array_equal(inputs, x)
    kernel = layer.cell.recurrent_kernel.numpy()
    for t in range(5, 0, -1):  # dE/dh(t - 1) = U (dE/dh(t) * (1 - h(t)^2))
        back = (flow[:, t] * (1 - states.numpy()[:, t] ** 2)) @ kernel.T
        np.testing.assert_allclose(flow[:, t - 1], back, atol=1e-5)


def test_training_that_a_model_cannot_have_is_an_error() -> None:
    both = rnn.build(task(), **{**RNN, "bidirectional": True})
    usual = layers.supervised(both, task(), "sgd", 0.1, 1.0, 0.0)
    with pytest.raises(ParamsError, match=r"in one\s+direction"):
        layers.TruncatedStep(usual, both, task(), 1.0, 3)
    lstm = rnn.build(task(), **{**RNN, "cell": "lstm"})
    usual = layers.supervised(lstm, task(), "sgd", 0.1, 1.0, 0.0)
    with pytest.raises(ParamsError, match="several states"):
        layers.InformationFlowStep(usual, lstm, task(), 1.0, 0.1)
    with pytest.raises(ParamsError, match="has no gates"):
        rnn.build(task(), **{**RNN, "gate_bias": "chrono"})
    with pytest.raises(ParamsError, match="min_length"):
        rnn.build(task(fixed=False), **{**RNN, "unroll": True})


def test_gradients_are_clipped_by_norm_and_then_by_value() -> None:
    data = task()
    model = rnn.build(data, **RNN)
    before = [weight.numpy() for weight in model.weights]
    step = layers.supervised(model, data, "sgd", 1.0, 1.0, 0.01)
    batch = (tf.constant(sequences()), 100 * tf.ones((4, 6, 1)), tf.ones((4, 6)))
    after = trained_once(step, model, batch)
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(after, before, strict=True)])
    assert np.abs(moved).max() == pytest.approx(0.01, rel=1e-3)


# Initialisers


def test_initialisers_give_each_gate_its_own_weights() -> None:
    for kind in ("orthogonal", "identity", "reservoir", "glorot"):
        weights = np.asarray(rnn.GateInitializer(kind)((20, 60)))
        gates = np.split(weights, 3, axis=1)
        if kind == "identity":
            assert all((gate == np.eye(20)).all() for gate in gates)
            continue
        assert np.abs(gates[0] - gates[1]).max() > 0.01
        for gate in gates:
            if kind == "orthogonal":
                np.testing.assert_allclose(gate @ gate.T, np.eye(20), atol=1e-5)
            if kind == "reservoir":
                assert reservoirs.spectral_radius_of(gate) == pytest.approx(rnn.RADIUS, rel=1e-4)


def test_chrono_keeps_the_state_for_times_up_to_the_longest_sequence() -> None:
    bias = np.asarray(rnn.GateBias("lstm", "chrono", 100)((4 * 500,)))
    write, keep, candidate, output = np.split(bias, 4)
    np.testing.assert_allclose(write, -keep)
    assert not candidate.any()
    assert not output.any()
    times = 1 / (1 - 1 / (1 + np.exp(-keep)))  # of forgetting
    assert times.min() >= 2 - 1e-3
    assert times.max() <= 100 + 1e-2
    assert np.median(times) == pytest.approx(50, rel=0.15)
    gru = np.asarray(rnn.GateBias("gru", "forget", 100)((2, 9)))
    assert gru.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 0], [0] * 9]


# Pictures


def test_four_passes_that_share_their_weights_follow_the_symmetries_of_the_picture() -> None:
    layer = multidimensional.FourPasses("gru", 3, shared=True)
    x = np.random.default_rng(1).normal(size=(2, 5, 5, 2)).astype(np.float32)
    found = layer(x).numpy()
    for change in (
        lambda picture: picture[:, ::-1],
        lambda picture: picture[:, :, ::-1],
        lambda picture: np.rot90(picture, axes=(1, 2)),
        lambda picture: np.swapaxes(picture, 1, 2),
    ):
        np.testing.assert_allclose(layer(change(x).copy()), change(found), atol=1e-6)
    separate = multidimensional.FourPasses("gru", 3, shared=False)
    assert separate(x).shape == (2, 5, 5, 12)
    with pytest.raises(ParamsError, match="no pictures"):
        multidimensional.build(
            task(per_step=False, steps=7), cell="gru", units=3, num_layers=1, rows=3, shared=True
        )


# Reservoirs


def drawn(**changed: Any) -> reservoirs.Reservoir:
    usual = {
        "spectral_radius": 0.9,
        "connectivity": 0.2,
        "input_scale": 0.5,
        "input_connectivity": 1.0,
        "bias_scale": 0.1,
        "leak": 0.7,
        "seed": 1,
    }
    return reservoirs.reservoir(60, 2, **{**usual, **changed})


def test_an_echo_state_network_forgets_its_initial_state() -> None:
    x = sequences(1, 300)
    starts = [np.zeros((1, 60)), np.random.default_rng(1).uniform(-1, 1, (1, 60))]
    one, other = (drawn().run(x, start) for start in starts)
    distance = np.abs(one - other).max(axis=(0, 2))
    assert distance[0] > 0.1
    assert distance[-1] < 1e-6
    wild = drawn(spectral_radius=4.0)
    one, other = (wild.run(x, start) for start in starts)
    assert np.abs(one - other).max(axis=(0, 2))[-1] > 1e-3


def test_a_reservoir_has_the_spectral_radius_and_its_states_follow_the_equation() -> None:
    found, x = drawn(), sequences(2, 5)
    assert reservoirs.spectral_radius_of(found.recurrent) == pytest.approx(0.9)
    assert np.count_nonzero(found.recurrent) / 3600 == pytest.approx(0.2, abs=0.03)
    states = found.run(x)
    for n in range(2):
        h = np.zeros(60)
        for t in range(5):
            fresh = np.tanh(found.input @ x[n, t] + found.recurrent @ h + found.bias)
            h = 0.3 * h + 0.7 * fresh
            np.testing.assert_allclose(states[n, t], h, atol=1e-12)
    large = reservoirs.recurrent_weights(600, 0.5, 0.01, np.random.default_rng(1))
    assert np.abs(np.linalg.eigvals(large)).max() == pytest.approx(0.5, rel=1e-6)


def test_a_sparse_product_gives_the_states_of_a_dense_one() -> None:
    thin = reservoirs.recurrent_weights(150, 0.9, 0.05, np.random.default_rng(1))
    found = reservoirs.Reservoir(np.ones((150, 2)), thin, np.zeros(150), 1.0)
    x = sequences(2, 4)
    h = np.zeros((2, 150))
    for t in range(4):
        h = np.tanh(x[:, t].astype(float).sum(axis=1)[:, None] + h @ thin.T)
        np.testing.assert_allclose(found.run(x)[:, t], h, atol=1e-12)


def test_a_readout_from_a_stream_is_ridge_regression_on_all_rows() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(size=(50, 4)), random.normal(size=(50, 2)) + 3
    equations = reservoirs.NormalEquations(4, 2)
    for part in range(0, 50, 7):
        equations.add(x[part : part + 7], y[part : part + 7])
    centred, ridge = x - x.mean(axis=0), 0.5
    slope = np.linalg.solve(
        centred.T @ centred + ridge * np.eye(4), centred.T @ (y - y.mean(axis=0))
    )
    found = equations.solve(ridge)
    np.testing.assert_allclose(found[1:], slope)
    np.testing.assert_allclose(found[0], y.mean(axis=0) - x.mean(axis=0) @ slope)


def test_a_delay_line_remembers_as_many_steps_as_it_has_units() -> None:
    line = reservoirs.Reservoir(
        1e-4 * np.eye(5)[:, :1], np.eye(5, k=-1), np.zeros(5), 1.0
    )  # small values: tanh is linear
    capacity = reservoirs.memory_capacity(line, delays=8, steps=400, ridge=1e-18, seed=1)
    np.testing.assert_allclose(capacity[:4], 1, atol=1e-3)
    assert (capacity[4:] < 0.1).all()


def test_an_echo_state_network_is_restored_as_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTINATO_FOLDERS", str(tmp_path))
    for target in ("number", "class", "bits"):
        model = echo_state.EchoState(
            drawn(), np.random.default_rng(1).normal(size=(63, 2)), True, target
        )
        echo_state.save(model, tmp_path)
        x = sequences()
        found = echo_state.restore(tmp_path)(x)
        np.testing.assert_array_equal(found, model(x))
        assert found.shape == (4, 6, 2)
        if target != "number":
            assert 0 <= found.min() <= found.max() <= 1


PEAK = """
import resource, sys
import numpy as np
import tensorflow as tf
from tests.test_memory_models import RNN, task
from ostinato.memory import layers
from ostinato.memory.models import rnn

length, truncation = map(int, sys.argv[1:])
data = task(fixed=False)
model = rnn.build(data, **{**RNN, "units": 64})
step = layers.supervised(model, data, "sgd", 0.001, 1.0, 0.0)
if truncation:
    step = layers.TruncatedStep(step, model, data, 1.0, truncation)
x = tf.random.normal((32, length, 2))
batch = (x, x[..., :1], tf.ones((32, length)))
train = tf.function(step.train)
train(tuple(part[:, :100] for part in batch))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train(batch)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.long
def test_the_memory_of_a_truncated_training_does_not_grow_with_the_sequence() -> None:
    def mib(length: int, truncation: int) -> float:
        command = [sys.executable, "-c", PEAK, str(length), str(truncation)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return float(done.stdout.splitlines()[-1])

    whole, cut, longer = mib(4000, 0), mib(4000, 100), mib(8000, 100)
    assert whole > 100  # states of 64 units for each step and sequence are 32 MiB
    assert max(cut, longer) < whole / 3
