"""Laws of decoding, on a small random network whose state holds all previous tokens."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import decoding
from ostinato.decoding import Constraints, DecodeResult, candidates, reference

PAD, BOS, EOS = 0, 1, 2
WORDS = (3, 4, 5)
SIZE, UNITS, SOURCE = 6, 5, 4

seeds = st.integers(0, 2**32 - 1)


class Network:
    """A batch of sources, and the step function for NumPy arrays and for tensors."""

    def __init__(self, seed: int, batch: int) -> None:
        rng = np.random.default_rng(seed)

        def weight(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        self.batch = batch
        self.embedding, self.recurrent = weight(SIZE, UNITS), weight(UNITS, UNITS)
        self.bigram, self.out = weight(SIZE, SIZE), 2 * weight(UNITS, SIZE)
        self.state = weight(batch, UNITS)
        self.source = weight(batch, SOURCE, UNITS)
        # Every source has at least one token; the rest is padding.
        self.source_mask = np.arange(SOURCE) < rng.integers(1, SOURCE + 1, size=(batch, 1))
        self.max_length = rng.integers(0, 4, size=batch)
        self.min_length = np.minimum(rng.integers(0, 3, size=batch), self.max_length)
        self.prefix = rng.choice([PAD, *WORDS], size=(batch, 2), p=[0.4, 0.2, 0.2, 0.2])
        self.prefix[:, 1] *= self.prefix[:, 0] != PAD
        self.allowed = rng.random((batch, SIZE)) < 0.8
        self.uniforms = rng.random((batch, 9)).astype(np.float32)

    def begin(self, xp: Any) -> tuple[Any, Any]:
        """The initial state, and the shared arrays."""
        history = np.zeros((self.batch, 0, 1), np.int32)
        steps = np.zeros(self.batch, np.int32)
        state = {"h": xp(self.state), "history": xp(history), "t": xp(steps)}
        return state, (xp(self.source), xp(self.source_mask))

    def numpy(self, tokens: Any, state: Any, shared: Any) -> Any:
        source, mask = shared
        h = np.tanh(self.embedding[tokens] + state["h"] @ self.recurrent)
        history = np.concatenate([state["history"], tokens[..., None, None]], axis=2)
        weights = 1.0 / (2.0 + np.arange(history.shape[2], dtype=np.float32))
        logits = h @ self.out + (self.bigram[history[..., 0]] * weights[:, None]).sum(axis=2)
        scores = np.where(mask[:, None], np.einsum("bhu,bsu->bhs", h, source), -np.inf)
        attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        return logits, attention, {"h": h, "history": history, "t": state["t"] + 1}

    def tensors(self, tokens: Any, state: Any, shared: Any) -> Any:
        source, mask = shared
        h = tf.tanh(tf.gather(self.embedding, tokens) + state["h"] @ self.recurrent)
        history = tf.concat([state["history"], tokens[..., None, None]], axis=2)
        weights = 1.0 / (2.0 + tf.range(tf.shape(history)[2], dtype=tf.float32))
        before = tf.reduce_sum(tf.gather(self.bigram, history[..., 0]) * weights[:, None], axis=2)
        scores = tf.einsum("bhu,bsu->bhs", h, source)
        attention = tf.nn.softmax(tf.where(mask[:, None], scores, -np.inf))
        return h @ self.out + before, attention, {"h": h, "history": history, "t": state["t"] + 1}

    def constraints(self, **some: Any) -> Constraints:
        lengths = {"min_length": self.min_length, "max_length": self.max_length}
        return Constraints(BOS, EOS, PAD, **{**lengths, **some})

    def reordered(self, order: Any) -> "Network":
        """The same network with the sources of these indices."""
        other = Network.__new__(Network)
        other.__dict__ = dict(self.__dict__)
        names = ("state", "source", "source_mask", "max_length", "min_length", "prefix")
        for name in (*names, "allowed", "uniforms"):
            setattr(other, name, getattr(self, name)[order])
        other.batch = len(other.state)
        return other

    def greedy(self, constraints: Constraints) -> tuple[DecodeResult, DecodeResult]:
        return (
            reference.greedy(self.numpy, *self.begin(np.asarray), constraints),
            to_numpy(decoding.greedy(self.tensors, *self.begin(tf.constant), constraints)),
        )

    def sample(self, constraints: Constraints, **options: Any) -> tuple[DecodeResult, DecodeResult]:
        begin, uniforms = self.begin, self.uniforms
        return (
            reference.sample(self.numpy, *begin(np.asarray), constraints, uniforms, **options),
            to_numpy(
                decoding.sample(self.tensors, *begin(tf.constant), constraints, uniforms, **options)
            ),
        )

    def beam(self, constraints: Constraints, **options: Any) -> tuple[DecodeResult, DecodeResult]:
        begin, mask = self.begin, self.source_mask
        return (
            reference.beam_search(self.numpy, *begin(np.asarray), constraints, mask, **options),
            to_numpy(
                decoding.beam_search(
                    self.tensors, *begin(tf.constant), constraints, mask, **options
                )
            ),
        )


def to_numpy(result: DecodeResult) -> DecodeResult:
    return DecodeResult(*(x.numpy() for x in result))


def drawn_constraints(draw: Callable[[Any], Any], network: Network) -> Constraints:
    """Constraints of all kinds."""
    return network.constraints(
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 1, 2])),
        prefix=network.prefix if draw(st.booleans()) else None,
        allowed=network.allowed if draw(st.booleans()) else None,
    )


def assert_equal(one: DecodeResult, two: DecodeResult) -> None:
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-4)


def log_probability(network: Network, b: int, tokens: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Log probability of a whole sequence, and the coverage of each of its source tokens."""
    alone, total = network.reordered([b]), 0.0
    state, shared = alone.begin(np.asarray)
    state = {key: value[:, None] for key, value in state.items()}
    covered = np.zeros(SOURCE)
    for last, token in zip((BOS, *tokens), tokens, strict=False):
        logits, attention, state = alone.numpy(np.array([[last]], np.int32), state, shared)
        total += logits[0, 0, token] - np.log(np.exp(logits[0, 0]).sum())
        covered += attention[0, 0]
    return total, covered[network.source_mask[b]]


def satisfies(words: tuple[int, ...], b: int, constraints: Constraints) -> bool:
    """Whether a sequence satisfies the constraints, by their definition and not step by step."""
    prefix = (
        [] if constraints.prefix is None else [int(w) for w in constraints.prefix[b] if w != PAD]
    )
    prefix = prefix[: constraints.max_length[b]]
    if not constraints.min_length[b] <= len(words) <= constraints.max_length[b] or len(words) < len(
        prefix
    ):
        return False
    if list(words[: len(prefix)]) != prefix:
        return False
    free = range(len(prefix), len(words))
    if constraints.allowed is not None and any(not constraints.allowed[b, words[i]] for i in free):
        return False
    runs = [
        words[i : i + constraints.no_repeat_ngram_size]
        for i in range(len(words) - constraints.no_repeat_ngram_size + 1)
    ]
    return not constraints.no_repeat_ngram_size or all(
        runs[i] not in runs[:i]
        for i in range(len(runs))
        if i + constraints.no_repeat_ngram_size - 1 in free
    )


@settings(max_examples=25)
@given(st.data(), seeds)
def test_a_large_beam_ranks_all_sequences(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=2)
    constraints = drawn_constraints(data.draw, network)
    length, coverage = data.draw(st.sampled_from([(0.0, 0.0), (0.6, 0.0), (1.0, 0.2), (0.0, 0.5)]))
    # The network may also generate bos, as any other token.
    every = [w for n in range(4) for w in itertools.product((BOS, *WORDS), repeat=n)]
    options = {
        "beam_size": 90,
        "nbest_size": 90,
        "length_penalty": length,
        "coverage_penalty": coverage,
    }
    for found in network.beam(constraints, **options):
        for b in range(network.batch):
            best = []
            for words in every:
                if satisfies(words, b, constraints):
                    total, covered = log_probability(network, b, (*words, EOS))
                    score = total / ((5 + len(words) + 1) / 6) ** length
                    score += coverage * np.log(np.minimum(covered, 1)).sum()
                    best.append((score, total, (*words, EOS)))
            best.sort(reverse=True)
            count = min(len(best), 90)
            assert (found.lengths[b] > 0).sum() == count
            scores = [score for score, _, _ in best[:count]]
            np.testing.assert_allclose(found.scores[b, :count], scores, rtol=1e-4, atol=1e-4)
            for i, (_, total, tokens) in enumerate(best[:count]):
                gaps = [abs(best[i][0] - best[j][0]) for j in (i - 1, i + 1) if 0 <= j < count]
                if min(gaps, default=1) > 1e-4:  # else rounding decides the order
                    assert tuple(found.tokens[b, i, : found.lengths[b, i]]) == tokens
                    assert found.log_probabilities[b, i] == pytest.approx(total, abs=1e-4)


@settings(max_examples=30)
@given(st.data(), seeds)
def test_beam_size_1_is_greedy_decoding(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=3)
    constraints = drawn_constraints(data.draw, network)
    options = {"beam_size": 1, "nbest_size": 1, "length_penalty": 0.0, "coverage_penalty": 0.0}
    for greedy, beam in zip(
        network.greedy(constraints), network.beam(constraints, **options), strict=True
    ):
        assert_equal(greedy, beam)


@settings(max_examples=30)
@given(st.data(), seeds)
def test_tensorflow_equals_the_numpy_reference(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=data.draw(st.integers(1, 4)))
    network.max_length = network.max_length + data.draw(st.integers(0, 4))
    constraints = drawn_constraints(data.draw, network)
    width = data.draw(st.integers(1, 5))
    options = {
        "beam_size": width,
        "nbest_size": data.draw(st.integers(1, width)),
        "length_penalty": data.draw(st.sampled_from([0.0, 0.6, 1.0])),
        "coverage_penalty": data.draw(st.sampled_from([0.0, 0.3])),
    }
    assert_equal(*network.beam(constraints, **options))
    assert_equal(*network.greedy(constraints))
    top_k = data.draw(st.sampled_from([None, 1, 2, 99]))
    top_p = data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    assert_equal(*network.sample(constraints, temperature=0.7, top_k=top_k, top_p=top_p))


@settings(max_examples=20)
@given(seeds, st.permutations(range(4)))
def test_results_do_not_depend_on_the_rest_of_the_batch(seed: int, order: list[int]) -> None:
    network = Network(seed, batch=4)
    order = order[: 1 + seed % 4]
    other = network.reordered(order)
    options = {"beam_size": 3, "nbest_size": 2, "length_penalty": 0.6, "coverage_penalty": 0.2}
    drawn = {"temperature": 1.0, "top_k": None, "top_p": 0.9}

    def all_found(network: Network) -> list[DecodeResult]:
        constraints = network.constraints()
        return [
            *network.beam(constraints, **options),
            *network.greedy(constraints),
            *network.sample(constraints, **drawn),
        ]

    for ours, theirs in zip(all_found(network), all_found(other), strict=True):
        steps = theirs.tokens.shape[-1]
        assert (ours.tokens[order][..., steps:] == PAD).all()
        assert_equal(
            DecodeResult(ours.tokens[order][..., :steps], *(x[order] for x in ours[1:])), theirs
        )


@settings(max_examples=20)
@given(seeds)
def test_results_do_not_depend_on_source_padding(seed: int) -> None:
    network = Network(seed, batch=2)
    longer = network.reordered([0, 1])
    longer.source_mask = np.pad(network.source_mask, ((0, 0), (0, 3)))
    longer.source = np.pad(network.source, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    options = {"beam_size": 3, "nbest_size": 3, "length_penalty": 0.6, "coverage_penalty": 0.4}
    both = zip(
        network.beam(network.constraints(), **options),
        longer.beam(longer.constraints(), **options),
        strict=True,
    )
    for found, padded in both:
        assert_equal(found, padded)


def test_sequences_end_with_eos_followed_by_pad() -> None:
    network = Network(3, batch=20)
    for found in network.beam(
        network.constraints(), beam_size=4, nbest_size=4, length_penalty=0.0, coverage_penalty=0.0
    ):
        for tokens, length in zip(found.tokens.reshape(-1, 4), found.lengths.ravel(), strict=True):
            assert (tokens[length:] == PAD).all()
            assert PAD not in tokens[:length]
            assert list(tokens[:length]).index(EOS) == length - 1 if length else True
        assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_model_distribution(temperature: float) -> None:
    count = 2000
    network = Network(11, batch=1).reordered([0] * count)
    network.max_length, network.min_length = np.full(count, 1), np.zeros(count, int)
    network.uniforms = np.repeat(((np.arange(count) + 0.5) / count)[:, None], 2, 1).astype(
        np.float32
    )
    state, shared = network.begin(np.asarray)
    state = {key: value[:, None] for key, value in state.items()}
    logits = network.numpy(np.full((count, 1), BOS), state, shared)[0][0, 0]
    shares = np.exp(logits / temperature)
    shares[PAD] = 0
    shares /= shares.sum()
    found = network.sample(network.constraints(), temperature=temperature, top_k=None, top_p=1.0)
    for one in found:
        counts = np.bincount(one.tokens[:, 0, 0], minlength=SIZE)
        np.testing.assert_allclose(counts / count, shares, atol=2 / count)


def test_top_p_keeps_the_smallest_set_of_tokens() -> None:
    shares = np.array([0.0, 0.0, 0.1, 0.4, 0.3, 0.2], np.float32)
    count = 1000
    uniforms = np.repeat(((np.arange(count) + 0.5) / count)[:, None], 2, 1).astype(np.float32)
    constraints = Constraints(
        BOS, EOS, PAD, min_length=np.ones(count, int), max_length=np.ones(count, int)
    )
    with np.errstate(divide="ignore"):
        logits = np.log(shares)

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        return np.broadcast_to(logits, (*tokens.shape, SIZE)), None, state

    state = np.zeros((count, 1), np.float32)
    # The minimum length excludes eos (0.1): 0.4, 0.3 and 0.2 become 0.44, 0.33 and 0.22.
    for top_p, top_k, tokens in [
        (0.0, None, {3}),
        (0.4, None, {3}),
        (0.5, None, {3, 4}),
        (0.7, None, {3, 4}),
        (0.8, None, {3, 4, 5}),
        (1.0, None, {3, 4, 5}),
        (1.0, 2, {3, 4}),
        (1.0, 1, {3}),
    ]:
        options: dict[str, Any] = {"temperature": 1.0, "top_k": top_k, "top_p": top_p}
        one = reference.sample(step, state, (), constraints, uniforms, **options)
        two = to_numpy(
            decoding.sample(step, tf.constant(state), (), constraints, uniforms, **options)
        )
        for found in (one, two):
            assert set(found.tokens[:, 0, 0].tolist()) == tokens
            counts = np.bincount(found.tokens[:, 0, 0], minlength=SIZE)[sorted(tokens)]
            expected = shares[sorted(tokens)] / shares[sorted(tokens)].sum()
            np.testing.assert_allclose(counts / count, expected, atol=2 / count)


def test_decoding_stops_when_all_sequences_are_done() -> None:
    """A network that predicts eos needs few steps, whatever the maximum length."""
    logits = np.array([0, 0, 9, 1, 1, 1], np.float32)
    steps = []

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        steps.append(1)
        return np.broadcast_to(logits, (*tokens.shape, SIZE)), None, state

    constraints = Constraints(BOS, EOS, PAD, min_length=np.zeros(2, int), max_length=np.full(2, 50))
    state = np.zeros((2, 1), np.float32)
    options: dict[str, Any] = {
        "beam_size": 3,
        "nbest_size": 3,
        "length_penalty": 0.6,
        "coverage_penalty": 0.0,
    }
    for search, begin in (
        (reference.beam_search, state),
        (decoding.beam_search, tf.constant(state)),
    ):
        steps.clear()
        found = search(step, begin, (), constraints, **options)
        assert len(steps) == 2  # eos, then eos after each of two words
        np.testing.assert_array_equal(found.lengths, [[1, 2, 2]] * 2)
    for decode, begin in (
        (reference.greedy, state),
        (decoding.greedy, tf.constant(state)),
    ):
        steps.clear()
        decode(step, begin, (), constraints)
        assert len(steps) == 1


def test_finished_sequences_leave_the_batch() -> None:
    """The network never predicts eos; each sequence repeats its own token."""
    names = np.array([5, 3, 4], np.int32)
    sizes: list[int] = []

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        sizes.append(len(tokens))
        for hypothesis in range(tokens.shape[1]):
            np.testing.assert_array_equal(state[:, hypothesis, 0], shared)
        return 9 * tf.one_hot(state[..., 0], SIZE), None, state

    constraints = Constraints(
        BOS, EOS, PAD, min_length=np.array([1, 3, 1]), max_length=np.array([1, 3, 1])
    )
    state, shared = tf.constant(names[:, None]), tf.constant(names)
    wide: Any = partial(
        decoding.beam_search, beam_size=2, nbest_size=1, length_penalty=0.6, coverage_penalty=0.0
    )
    for search in (decoding.greedy, wide):
        sizes.clear()
        found = search(step, state, shared, constraints)
        assert sizes == [3, 3, 1, 1]
        expected = [[5, EOS, PAD, PAD], [3, 3, 3, EOS], [4, EOS, PAD, PAD]]
        np.testing.assert_array_equal(found.tokens[:, 0], expected)


def test_a_finished_hypothesis_frees_its_slot_in_the_beam() -> None:
    """After bos: eos 0.5, token 3 0.3, token 4 0.2; then 3 repeats, and eos follows 4."""
    table = np.full((SIZE, SIZE), -30, np.float32)
    table[BOS, [EOS, 3, 4]] = np.log([0.5, 0.3, 0.2])
    table[3, 3], table[4, EOS] = 0, 0

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        return tf.gather(table, tokens).numpy(), None, state

    constraints = Constraints(BOS, EOS, PAD, min_length=np.zeros(1, int), max_length=np.full(1, 5))
    options: dict[str, Any] = {
        "beam_size": 2,
        "nbest_size": 2,
        "length_penalty": 0.0,
        "coverage_penalty": 0.0,
    }
    state = np.zeros((1, 1), np.float32)
    for found in (
        reference.beam_search(step, state, (), constraints, **options),
        to_numpy(decoding.beam_search(step, tf.constant(state), (), constraints, **options)),
    ):
        assert found.tokens[0, :, :2].tolist() == [[EOS, PAD], [4, EOS]]
        np.testing.assert_allclose(np.exp(found.scores[0]), [0.5, 0.2], rtol=1e-5)


def test_one_graph_decodes_batches_of_any_size() -> None:
    network = Network(5, batch=6)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, UNITS)),
            tf.TensorSpec((None, SOURCE, UNITS)),
            tf.TensorSpec((None, SOURCE), tf.bool),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None, None), tf.int32),
        ]
    )
    def search(
        state: Any, source: Any, mask: Any, min_length: Any, max_length: Any, prefix: Any
    ) -> Any:
        batch = tf.shape(state)[0]
        begin = {
            "h": state,
            "history": tf.zeros((batch, 0, 1), tf.int32),
            "t": tf.zeros((batch,), tf.int32),
        }
        constraints = Constraints(
            BOS,
            EOS,
            PAD,
            min_length,
            max_length,
            no_repeat_ngram_size=2,
            prefix=prefix,
            allowed=None,
        )
        given: tuple[Any, Any, Any, Constraints] = (
            network.tensors,
            begin,
            (source, mask),
            constraints,
        )
        options: dict[str, Any] = {
            "beam_size": 3,
            "nbest_size": 2,
            "length_penalty": 0.6,
            "coverage_penalty": 0.2,
        }
        return decoding.beam_search(*given, mask, **options), decoding.greedy(*given)

    for rows in (slice(0, 6), slice(0, 1), slice(2, 5)):
        part = network.reordered(np.arange(6)[rows])
        given = (part.state, part.source, part.source_mask, part.min_length, part.max_length)
        found = search(*given[:3], *(x.astype(np.int32) for x in (*given[3:], part.prefix)))
        constraints = part.constraints(no_repeat_ngram_size=2, prefix=part.prefix)
        expected, _ = part.beam(
            constraints, beam_size=3, nbest_size=2, length_penalty=0.6, coverage_penalty=0.2
        )
        assert_equal(to_numpy(found[0]), expected)
        assert_equal(to_numpy(found[1]), part.greedy(constraints)[0])
    assert search.experimental_get_tracing_count() == 1


def test_an_empty_batch_gives_an_empty_result() -> None:
    network = Network(1, batch=3).reordered([])
    for found in network.beam(
        network.constraints(), beam_size=2, nbest_size=2, length_penalty=0.0, coverage_penalty=0.0
    ):
        assert found.tokens.shape == (0, 2, 1)
    for found in network.greedy(network.constraints()):
        assert found.tokens.shape == (0, 1, 1)


def test_invalid_options_raise_errors() -> None:
    network = Network(1, batch=1)
    begin, constraints = network.begin(tf.constant), network.constraints()
    for search, step in (
        (decoding.beam_search, network.tensors),
        (reference.beam_search, network.numpy),
    ):
        with pytest.raises(ValueError, match="nbest_size: 3 exceeds"):
            search(
                step,
                *begin,
                constraints,
                beam_size=2,
                nbest_size=3,
                length_penalty=0.0,
                coverage_penalty=0.0,
            )
        with pytest.raises(ValueError, match="coverage_penalty: needs source_mask"):
            search(
                step,
                *begin,
                constraints,
                beam_size=2,
                nbest_size=2,
                length_penalty=0.0,
                coverage_penalty=0.1,
            )

    def without_attention(tokens: Any, state: Any, shared: Any) -> Any:
        return np.zeros((*tokens.shape, SIZE), np.float32), None, state

    for search in (decoding.beam_search, reference.beam_search):
        with pytest.raises(ValueError, match="returns no attention"):
            search(
                without_attention,
                np.zeros((1, 1), np.float32),
                (),
                constraints,
                network.source_mask,
                beam_size=2,
                nbest_size=2,
                length_penalty=0.0,
                coverage_penalty=0.1,
            )


def test_decoding_imports_neither_tensorflow_nor_keras() -> None:
    code = """
import sys
import numpy as np
from ostinato.decoding import Constraints, reference
constraints = Constraints(1, 2, 0, np.zeros(1, int), np.ones(1, int))
step = lambda tokens, state, shared: (np.zeros((*tokens.shape, 4)), None, state)
options = dict(beam_size=2, nbest_size=1, length_penalty=0.0, coverage_penalty=0.0)
reference.beam_search(step, np.zeros((1, 1)), (), constraints, **options)
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@settings(max_examples=10)
@given(seeds, st.integers(1, 5), st.sampled_from([2000, 2345, 7]))
def test_chunked_top_k_equals_a_full_sort(seed: int, count: int, size: int) -> None:
    """Ties are resolved to the lower token, also across chunks."""
    logits = np.random.default_rng(seed).integers(0, 40, (2, 3, size)).astype(np.float32)
    values, places = candidates.top_k(tf.constant(logits), count)
    expected = np.argsort(-logits, axis=-1, kind="stable")[..., :count]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, -1))
