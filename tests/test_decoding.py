"""The laws of decoding, on a small random network with a memory of all that it has said."""

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

from ostinato.decoding import search as decoding_search
from ostinato.decoding.search import Found, Rules

PAD, BOS, EOS = 0, 1, 2
WORDS = (3, 4, 5)
SIZE, UNITS, SOURCE = 6, 5, 4

seeds = st.integers(0, 2**32 - 1)


class Network:
    """Sequences with sources of their own, and a step for arrays and one for tensors."""

    def __init__(self, seed: int, batch: int) -> None:
        rng = np.random.default_rng(seed)

        def weight(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        self.batch = batch
        self.embedding, self.recurrent = weight(SIZE, UNITS), weight(UNITS, UNITS)
        self.said, self.out = weight(SIZE, SIZE), 2 * weight(UNITS, SIZE)
        self.state = weight(batch, UNITS)
        self.source = weight(batch, SOURCE, UNITS)
        # Every source has at least one token; the rest is padding.
        self.real = np.arange(SOURCE) < rng.integers(1, SOURCE + 1, size=(batch, 1))
        self.maximum = rng.integers(0, 4, size=batch)
        self.minimum = np.minimum(rng.integers(0, 3, size=batch), self.maximum)
        self.prefix = rng.choice([PAD, *WORDS], size=(batch, 2), p=[0.4, 0.2, 0.2, 0.2])
        self.prefix[:, 1] *= self.prefix[:, 0] != PAD
        self.allowed = rng.random((batch, SIZE)) < 0.8
        self.draws = rng.random((batch, 9)).astype(np.float32)

    def begin(self, xp: Any) -> tuple[Any, Any]:
        """The first state, and what is shared."""
        said = np.zeros((self.batch, 0, 1), np.int32)
        state = {"h": xp(self.state), "said": xp(said), "t": xp(np.zeros(self.batch, np.int32))}
        return state, (xp(self.source), xp(self.real))

    def numpy(self, tokens: Any, state: Any, shared: Any) -> Any:
        source, real = shared
        h = np.tanh(self.embedding[tokens] + state["h"] @ self.recurrent)
        said = np.concatenate([state["said"], tokens[..., None, None]], axis=2)
        weights = 1.0 / (2.0 + np.arange(said.shape[2], dtype=np.float32))
        logits = h @ self.out + (self.said[said[..., 0]] * weights[:, None]).sum(axis=2)
        scores = np.where(real[:, None], np.einsum("bhu,bsu->bhs", h, source), -np.inf)
        attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        return logits, attention, {"h": h, "said": said, "t": state["t"] + 1}

    def tensors(self, tokens: Any, state: Any, shared: Any) -> Any:
        source, real = shared
        h = tf.tanh(tf.gather(self.embedding, tokens) + state["h"] @ self.recurrent)
        said = tf.concat([state["said"], tokens[..., None, None]], axis=2)
        weights = 1.0 / (2.0 + tf.range(tf.shape(said)[2], dtype=tf.float32))
        before = tf.reduce_sum(tf.gather(self.said, said[..., 0]) * weights[:, None], axis=2)
        scores = tf.einsum("bhu,bsu->bhs", h, source)
        attention = tf.nn.softmax(tf.where(real[:, None], scores, -np.inf))
        return h @ self.out + before, attention, {"h": h, "said": said, "t": state["t"] + 1}

    def rules(self, **some: Any) -> Rules:
        return Rules(BOS, EOS, PAD, **{"minimum": self.minimum, "maximum": self.maximum, **some})

    def taken(self, order: Any) -> "Network":
        """The same network with other ostinato in its batch."""
        other = Network.__new__(Network)
        other.__dict__ = dict(self.__dict__)
        for name in ("state", "source", "real", "maximum", "minimum", "prefix", "allowed", "draws"):
            setattr(other, name, getattr(self, name)[order])
        other.batch = len(other.state)
        return other

    def greedy(self, rules: Rules) -> tuple[Found, Found]:
        return (
            decoding_search.greedy_numpy(self.numpy, *self.begin(np.asarray), rules),
            arrays(decoding_search.greedy(self.tensors, *self.begin(tf.constant), rules)),
        )

    def sample(self, rules: Rules, **options: Any) -> tuple[Found, Found]:
        begin, draws = self.begin, self.draws
        return (
            decoding_search.sample_numpy(self.numpy, *begin(np.asarray), rules, draws, **options),
            arrays(
                decoding_search.sample(self.tensors, *begin(tf.constant), rules, draws, **options)
            ),
        )

    def beam(self, rules: Rules, **options: Any) -> tuple[Found, Found]:
        begin, real = self.begin, self.real
        return (
            decoding_search.beam_numpy(self.numpy, *begin(np.asarray), rules, real, **options),
            arrays(decoding_search.beam(self.tensors, *begin(tf.constant), rules, real, **options)),
        )


def arrays(found: Found) -> Found:
    return Found(*(x.numpy() for x in found))


def chosen(draw: Callable[[Any], Any], network: Network) -> Rules:
    """Rules of all kinds."""
    return network.rules(
        ngram=draw(st.sampled_from([0, 0, 1, 2])),
        prefix=network.prefix if draw(st.booleans()) else None,
        allowed=network.allowed if draw(st.booleans()) else None,
    )


def same(one: Found, two: Found) -> None:
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-4)


def log_probability(network: Network, b: int, tokens: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Of a whole sequence, and how much each of its source tokens was attended to."""
    alone, total = network.taken([b]), 0.0
    state, shared = alone.begin(np.asarray)
    state = {key: value[:, None] for key, value in state.items()}
    covered = np.zeros(SOURCE)
    for last, token in zip((BOS, *tokens), tokens, strict=False):
        logits, attention, state = alone.numpy(np.array([[last]], np.int32), state, shared)
        total += logits[0, 0, token] - np.log(np.exp(logits[0, 0]).sum())
        covered += attention[0, 0]
    return total, covered[network.real[b]]


def may_be(words: tuple[int, ...], b: int, rules: Rules) -> bool:
    """Whether the rules let a sequence be; written from their definition, not step by step."""
    prefix = [] if rules.prefix is None else [int(w) for w in rules.prefix[b] if w != PAD]
    prefix = prefix[: rules.maximum[b]]
    if not rules.minimum[b] <= len(words) <= rules.maximum[b] or len(words) < len(prefix):
        return False
    if list(words[: len(prefix)]) != prefix:
        return False
    free = range(len(prefix), len(words))
    if rules.allowed is not None and any(not rules.allowed[b, words[i]] for i in free):
        return False
    runs = [words[i : i + rules.ngram] for i in range(len(words) - rules.ngram + 1)]
    return not rules.ngram or all(
        runs[i] not in runs[:i] for i in range(len(runs)) if i + rules.ngram - 1 in free
    )


@settings(max_examples=25)
@given(st.data(), seeds)
def test_a_wide_beam_finds_all_sequences_in_the_right_order(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=2)
    rules = chosen(data.draw, network)
    length, coverage = data.draw(st.sampled_from([(0.0, 0.0), (0.6, 0.0), (1.0, 0.2), (0.0, 0.5)]))
    # The network may also say bos, as any other token.
    every = [w for n in range(4) for w in itertools.product((BOS, *WORDS), repeat=n)]
    options = {"width": 90, "best": 90, "length": length, "coverage": coverage}
    for found in network.beam(rules, **options):
        for b in range(network.batch):
            best = []
            for words in every:
                if may_be(words, b, rules):
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
                if min(gaps, default=1) > 1e-4:  # else rounding orders them
                    assert tuple(found.tokens[b, i, : found.lengths[b, i]]) == tokens
                    assert found.log_probabilities[b, i] == pytest.approx(total, abs=1e-4)


@settings(max_examples=30)
@given(st.data(), seeds)
def test_a_beam_of_one_is_greedy(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=3)
    rules = chosen(data.draw, network)
    options = {"width": 1, "best": 1, "length": 0.0, "coverage": 0.0}
    for greedy, beam in zip(network.greedy(rules), network.beam(rules, **options), strict=True):
        same(greedy, beam)


@settings(max_examples=30)
@given(st.data(), seeds)
def test_tensorflow_finds_what_numpy_finds(data: st.DataObject, seed: int) -> None:
    network = Network(seed, batch=data.draw(st.integers(1, 4)))
    network.maximum = network.maximum + data.draw(st.integers(0, 4))
    rules = chosen(data.draw, network)
    width = data.draw(st.integers(1, 5))
    options = {
        "width": width,
        "best": data.draw(st.integers(1, width)),
        "length": data.draw(st.sampled_from([0.0, 0.6, 1.0])),
        "coverage": data.draw(st.sampled_from([0.0, 0.3])),
    }
    same(*network.beam(rules, **options))
    same(*network.greedy(rules))
    top_k = data.draw(st.sampled_from([None, 1, 2, 99]))
    nucleus = data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    same(*network.sample(rules, temperature=0.7, top_k=top_k, nucleus=nucleus))


@settings(max_examples=20)
@given(seeds, st.permutations(range(4)))
def test_the_order_of_a_batch_and_its_other_sequences_change_nothing(
    seed: int, order: list[int]
) -> None:
    network = Network(seed, batch=4)
    order = order[: 1 + seed % 4]
    other = network.taken(order)
    options = {"width": 3, "best": 2, "length": 0.6, "coverage": 0.2}
    drawn = {"temperature": 1.0, "top_k": None, "nucleus": 0.9}

    def all_found(network: Network) -> list[Found]:
        rules = network.rules()
        return [
            *network.beam(rules, **options),
            *network.greedy(rules),
            *network.sample(rules, **drawn),
        ]

    for ours, theirs in zip(all_found(network), all_found(other), strict=True):
        steps = theirs.tokens.shape[-1]
        assert (ours.tokens[order][..., steps:] == PAD).all()
        same(Found(ours.tokens[order][..., :steps], *(x[order] for x in ours[1:])), theirs)


@settings(max_examples=20)
@given(seeds)
def test_padding_of_the_source_changes_nothing(seed: int) -> None:
    network = Network(seed, batch=2)
    longer = network.taken([0, 1])
    longer.real = np.pad(network.real, ((0, 0), (0, 3)))
    longer.source = np.pad(network.source, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    options = {"width": 3, "best": 3, "length": 0.6, "coverage": 0.4}
    both = zip(
        network.beam(network.rules(), **options),
        longer.beam(longer.rules(), **options),
        strict=True,
    )
    for found, padded in both:
        same(found, padded)


def test_what_is_found_ends_with_eos_and_pad_alone_follows() -> None:
    network = Network(3, batch=20)
    for found in network.beam(network.rules(), width=4, best=4, length=0.0, coverage=0.0):
        for tokens, length in zip(found.tokens.reshape(-1, 4), found.lengths.ravel(), strict=True):
            assert (tokens[length:] == PAD).all()
            assert PAD not in tokens[:length]
            assert list(tokens[:length]).index(EOS) == length - 1 if length else True
        assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_even_draws_give_each_token_its_share_of_the_probability(temperature: float) -> None:
    count = 2000
    network = Network(11, batch=1).taken([0] * count)
    network.maximum, network.minimum = np.full(count, 1), np.zeros(count, int)
    network.draws = np.repeat(((np.arange(count) + 0.5) / count)[:, None], 2, 1).astype(np.float32)
    state, shared = network.begin(np.asarray)
    state = {key: value[:, None] for key, value in state.items()}
    logits = network.numpy(np.full((count, 1), BOS), state, shared)[0][0, 0]
    shares = np.exp(logits / temperature)
    shares[PAD] = 0
    shares /= shares.sum()
    found = network.sample(network.rules(), temperature=temperature, top_k=None, nucleus=1.0)
    for one in found:
        counts = np.bincount(one.tokens[:, 0, 0], minlength=SIZE)
        np.testing.assert_allclose(counts / count, shares, atol=2 / count)


def test_the_nucleus_is_the_fewest_tokens_that_hold_its_share() -> None:
    shares = np.array([0.0, 0.0, 0.1, 0.4, 0.3, 0.2], np.float32)
    count = 1000
    draws = np.repeat(((np.arange(count) + 0.5) / count)[:, None], 2, 1).astype(np.float32)
    rules = Rules(BOS, EOS, PAD, minimum=np.ones(count, int), maximum=np.ones(count, int))
    with np.errstate(divide="ignore"):
        logits = np.log(shares)

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        return np.broadcast_to(logits, (*tokens.shape, SIZE)), None, state

    state = np.zeros((count, 1), np.float32)
    # eos is barred at first: 0.4, 0.3 and 0.2 of 0.9 are left, or 0.44, 0.33 and 0.22.
    for nucleus, top_k, tokens in [
        (0.0, None, {3}),
        (0.4, None, {3}),
        (0.5, None, {3, 4}),
        (0.7, None, {3, 4}),
        (0.8, None, {3, 4, 5}),
        (1.0, None, {3, 4, 5}),
        (1.0, 2, {3, 4}),
        (1.0, 1, {3}),
    ]:
        options: dict[str, Any] = {"temperature": 1.0, "top_k": top_k, "nucleus": nucleus}
        one = decoding_search.sample_numpy(step, state, (), rules, draws, **options)
        two = arrays(decoding_search.sample(step, tf.constant(state), (), rules, draws, **options))
        for found in (one, two):
            assert set(found.tokens[:, 0, 0].tolist()) == tokens
            counts = np.bincount(found.tokens[:, 0, 0], minlength=SIZE)[sorted(tokens)]
            expected = shares[sorted(tokens)] / shares[sorted(tokens)].sum()
            np.testing.assert_allclose(counts / count, expected, atol=2 / count)


def test_the_search_stops_when_every_beam_is_done() -> None:
    """A network that ends at once needs few steps, however many are allowed."""
    logits = np.array([0, 0, 9, 1, 1, 1], np.float32)
    steps = []

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        steps.append(1)
        return np.broadcast_to(logits, (*tokens.shape, SIZE)), None, state

    rules = Rules(BOS, EOS, PAD, minimum=np.zeros(2, int), maximum=np.full(2, 50))
    state = np.zeros((2, 1), np.float32)
    options: dict[str, Any] = {"width": 3, "best": 3, "length": 0.6, "coverage": 0.0}
    for search, begin in (
        (decoding_search.beam_numpy, state),
        (decoding_search.beam, tf.constant(state)),
    ):
        steps.clear()
        found = search(step, begin, (), rules, **options)
        assert len(steps) == 2  # eos, then eos after each of two words
        np.testing.assert_array_equal(found.lengths, [[1, 2, 2]] * 2)
    for walk, begin in (
        (decoding_search.greedy_numpy, state),
        (decoding_search.greedy, tf.constant(state)),
    ):
        steps.clear()
        walk(step, begin, (), rules)
        assert len(steps) == 1


def test_a_sequence_that_is_done_leaves_the_batch() -> None:
    """The network never ends by itself; each sequence says its own number."""
    names = np.array([5, 3, 4], np.int32)
    sizes: list[int] = []

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        sizes.append(len(tokens))
        for hypothesis in range(tokens.shape[1]):
            np.testing.assert_array_equal(state[:, hypothesis, 0], shared)
        return 9 * tf.one_hot(state[..., 0], SIZE), None, state

    rules = Rules(BOS, EOS, PAD, minimum=np.array([1, 3, 1]), maximum=np.array([1, 3, 1]))
    state, shared = tf.constant(names[:, None]), tf.constant(names)
    wide: Any = partial(decoding_search.beam, width=2, best=1, length=0.6, coverage=0.0)
    for search in (decoding_search.greedy, wide):
        sizes.clear()
        found = search(step, state, shared, rules)
        assert sizes == [3, 3, 1, 1]
        expected = [[5, EOS, PAD, PAD], [3, 3, 3, EOS], [4, EOS, PAD, PAD]]
        np.testing.assert_array_equal(found.tokens[:, 0], expected)


def test_what_ends_leaves_its_place_to_the_next_hypothesis() -> None:
    """After bos: eos 0.5, word 3 0.3, word 4 0.2; then 3 goes on with 4, and 4 ends."""
    table = np.full((SIZE, SIZE), -30, np.float32)
    table[BOS, [EOS, 3, 4]] = np.log([0.5, 0.3, 0.2])
    table[3, 3], table[4, EOS] = 0, 0

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        return tf.gather(table, tokens).numpy(), None, state

    rules = Rules(BOS, EOS, PAD, minimum=np.zeros(1, int), maximum=np.full(1, 5))
    options: dict[str, Any] = {"width": 2, "best": 2, "length": 0.0, "coverage": 0.0}
    state = np.zeros((1, 1), np.float32)
    for found in (
        decoding_search.beam_numpy(step, state, (), rules, **options),
        arrays(decoding_search.beam(step, tf.constant(state), (), rules, **options)),
    ):
        assert found.tokens[0, :, :2].tolist() == [[EOS, PAD], [4, EOS]]
        np.testing.assert_allclose(np.exp(found.scores[0]), [0.5, 0.2], rtol=1e-5)


def test_one_graph_serves_batches_of_any_size() -> None:
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
    def search(state: Any, source: Any, real: Any, least: Any, most: Any, prefix: Any) -> Any:
        batch = tf.shape(state)[0]
        begin = {
            "h": state,
            "said": tf.zeros((batch, 0, 1), tf.int32),
            "t": tf.zeros((batch,), tf.int32),
        }
        rules = Rules(BOS, EOS, PAD, least, most, ngram=2, prefix=prefix, allowed=None)
        given: tuple[Any, Any, Any, Rules] = (network.tensors, begin, (source, real), rules)
        options: dict[str, Any] = {"width": 3, "best": 2, "length": 0.6, "coverage": 0.2}
        return decoding_search.beam(*given, real, **options), decoding_search.greedy(*given)

    for rows in (slice(0, 6), slice(0, 1), slice(2, 5)):
        part = network.taken(np.arange(6)[rows])
        given = (part.state, part.source, part.real, part.minimum, part.maximum)
        found = search(*given[:3], *(x.astype(np.int32) for x in (*given[3:], part.prefix)))
        rules = part.rules(ngram=2, prefix=part.prefix)
        expected, _ = part.beam(rules, width=3, best=2, length=0.6, coverage=0.2)
        same(arrays(found[0]), expected)
        same(arrays(found[1]), part.greedy(rules)[0])
    assert search.experimental_get_tracing_count() == 1


def test_no_sequence_is_an_empty_answer() -> None:
    network = Network(1, batch=3).taken([])
    for found in network.beam(network.rules(), width=2, best=2, length=0.0, coverage=0.0):
        assert found.tokens.shape == (0, 2, 1)
    for found in network.greedy(network.rules()):
        assert found.tokens.shape == (0, 1, 1)


def test_options_that_cannot_work_are_errors() -> None:
    network = Network(1, batch=1)
    begin, rules = network.begin(tf.constant), network.rules()
    for search, step in (
        (decoding_search.beam, network.tensors),
        (decoding_search.beam_numpy, network.numpy),
    ):
        with pytest.raises(ValueError, match="best: 3 ostinato"):
            search(step, *begin, rules, width=2, best=3, length=0.0, coverage=0.0)
        with pytest.raises(ValueError, match="coverage: which source tokens"):
            search(step, *begin, rules, width=2, best=2, length=0.0, coverage=0.1)

    def blind(tokens: Any, state: Any, shared: Any) -> Any:
        return np.zeros((*tokens.shape, SIZE), np.float32), None, state

    for search in (decoding_search.beam, decoding_search.beam_numpy):
        with pytest.raises(ValueError, match="gives no attention"):
            search(
                blind,
                np.zeros((1, 1), np.float32),
                (),
                rules,
                network.real,
                width=2,
                best=2,
                length=0.0,
                coverage=0.1,
            )


def test_the_numpy_part_needs_no_tensorflow() -> None:
    code = """
import sys
import numpy as np
from ostinato import decoding
rules = decoding.Rules(1, 2, 0, np.zeros(1, int), np.ones(1, int))
step = lambda tokens, state, shared: (np.zeros((*tokens.shape, 4)), None, state)
decoding.beam_numpy(step, np.zeros((1, 1)), (), rules, width=2, best=1, length=0.0, coverage=0.0)
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@settings(max_examples=10)
@given(seeds, st.integers(1, 5), st.sampled_from([2000, 2345, 7]))
def test_the_likeliest_of_many_tokens_are_those_of_all(seed: int, count: int, size: int) -> None:
    """Ties go to the lower token, also where it stands in another chunk."""
    logits = np.random.default_rng(seed).integers(0, 40, (2, 3, size)).astype(np.float32)
    values, places = decoding_search._top(tf.constant(logits), count)
    expected = np.argsort(-logits, axis=-1, kind="stable")[..., :count]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, -1))
