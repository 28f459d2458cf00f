"""Search for ostinato, token by token, over a step function: greedy, by sampling, by beam.

``greedy``, ``sample`` and ``beam`` are TensorFlow loops: called inside a ``tf.function`` they are
one graph. ``greedy_numpy``, ``sample_numpy`` and ``beam_numpy`` find the same, sentence by
sentence and hypothesis by hypothesis, and need no TensorFlow: they say what the others mean.

A sequence never changes with the batch that it is in: not with the order of the ostinato, nor
with their padding. A tie goes to the hypothesis that was better before, then to the likelier
token, then to the lower one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato.units import Count, Fraction, NonNegative, Temperature

if TYPE_CHECKING:
    import tensorflow as tf

Step = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
"""``step(tokens, state, shared) -> (logits, attention, state)``.

tokens: int32 (batch, hypothesis), the last token of each. state: what a hypothesis remembers, a
nest of arrays (batch, hypothesis, ...) that may grow along all axes but the last. shared: what all
hypotheses of a sequence have in common, a nest of arrays (batch, ...). logits: (batch, hypothesis,
vocabulary). attention: (batch, hypothesis, source), each row a distribution over the source
tokens, or None. The batch becomes smaller while ostinato come to their end.
"""

LOWEST = np.float32(-np.inf)
FULL = 7 / 8  # of a batch's ostinato are alive, or those that are done make room
CHUNK = 50  # tokens of which first the largest logit alone is looked at
FAINTEST = np.float32(1e-9)  # the least coverage of a source token: keeps its logarithm finite


@dataclass(frozen=True)
class Rules:
    """What a sequence may be. The arrays are NumPy's or TensorFlow's, as the search is.

    Where rules collide, the end at ``maximum`` goes before ``prefix``, and that before the
    others. A hypothesis that may not go on at all is dropped.

    Attributes:
        bos: token that a sequence is begun with; it is not part of what is found.
        eos: token that ends it; it is part of what is found.
        pad: token that fills what is found on the right, and is never chosen.
        minimum: int (batch,): tokens before eos, at least.
        maximum: int (batch,): tokens before eos, at most.
        ngram: no run of so many tokens comes twice; 0 lets them.
        prefix: int (batch, position): the tokens to begin with, filled with pad; or None.
        allowed: bool (batch or 1, vocabulary): what may be chosen, besides eos; or None.
    """

    bos: int
    eos: int
    pad: int
    minimum: Any
    maximum: Any
    ngram: int = 0
    prefix: Any = None
    allowed: Any = None


class Found(NamedTuple):
    """The ostinato found, the best first.

    tokens: int32 (batch, best, position), with eos, filled with pad.
    lengths: int32 (batch, best): tokens, eos included; 0 where there is no further sequence.
    log_probabilities: float32 (batch, best): of the tokens under the model, in nats, before
        temperature and rules; minus infinity where there is no further sequence.
    scores: float32 (batch, best): what they are ordered by.
    """

    tokens: Any
    lengths: Any
    log_probabilities: Any
    scores: Any


def length_penalty(length: Any, strength: float) -> Any:
    """What a log probability is divided by: ((5 + length) / 6) ** strength; length counts eos.

    Wu et al. 2016, arXiv 1609.08144, equation 14.
    """
    return ((length + np.float32(5)) / np.float32(6)) ** np.float32(strength)


# ------------------------------------------------------------------------------------ TensorFlow


def greedy(step: Step, state: Any, shared: Any, rules: Rules) -> Found:
    """The likeliest token at each step.

    Args:
        step: see ``Step``.
        state: what it begins with, a nest of tensors (batch, ...).
        shared: what it is given, a nest of tensors (batch, ...).
        rules: what a sequence may be.

    Returns:
        One sequence each; its score is its log probability.
    """
    import tensorflow as tf

    def first(own: "tf.Tensor", drawn: Any, t: "tf.Tensor") -> "tf.Tensor":
        return tf.zeros(tf.shape(own)[:2], tf.int32)

    return _walk(step, state, shared, rules, 1, first, ())


def sample(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    draws: Any,
    *,
    temperature: Temperature,
    top_k: Count | None,
    nucleus: Fraction,
) -> Found:
    """Tokens drawn from the model's distribution, cut off and made flatter or steeper.

    Args:
        step: see ``Step``.
        state: what it begins with, a nest of tensors (batch, ...).
        shared: what it is given, a nest of tensors (batch, ...).
        rules: what a sequence may be.
        draws: float32 (batch, position) in 0 to 1, below 1, at least one more than the largest
            ``maximum``: all the randomness there is.
        temperature: what logits are divided by.
        top_k: draw from so many of the likeliest tokens; null draws from all.
        nucleus: draw from the fewest of the likeliest tokens that have this share of the
            probability (Holtzman et al. 2020, arXiv 1904.09751); 1 draws from all.

    Returns:
        One sequence each; its score is its log probability, without the temperature.
    """
    import tensorflow as tf

    def choose(own: "tf.Tensor", drawn: "tf.Tensor", t: "tf.Tensor") -> "tf.Tensor":
        weights = tf.nn.softmax(own[:, 0] / temperature)
        up_to = tf.cumsum(weights, axis=-1)
        # The first token with which the sum reaches the nucleus is the last one of it.
        inside = (up_to - weights < nucleus) & (weights > 0)
        mass = tf.reduce_max(tf.where(inside, up_to, 0), axis=-1)
        passed = inside & (up_to <= (tf.gather(drawn, t, axis=1) * mass)[:, None])
        place, count = (tf.reduce_sum(tf.cast(x, tf.int32), axis=-1) for x in (passed, inside))
        return tf.maximum(tf.minimum(place, count - 1), 0)[:, None]

    return _walk(step, state, shared, rules, top_k, choose, tf.convert_to_tensor(draws))


def beam(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    uncovered: Any = None,
    *,
    width: Count,
    best: Count,
    length: NonNegative,
    coverage: NonNegative,
) -> Found:
    """The best of the ostinato that a search in breadth meets.

    Of all one-token extensions of the living hypotheses, taken by log probability, those among the
    first ``width`` that end with eos are finished, and the first ``width`` that do not live on. A
    sequence is done when ``width`` hypotheses are finished, or none lives. The ``width`` best
    finished ones are kept, by log probability / length penalty + coverage penalty (Wu et al. 2016,
    arXiv 1609.08144, equation 14).

    Args:
        step: see ``Step``.
        state: what it begins with, a nest of tensors (batch, ...).
        shared: what it is given, a nest of tensors (batch, ...).
        rules: what a sequence may be.
        uncovered: bool (batch, source): which source tokens are to be covered, not padding; needed
            where ``coverage`` is not 0.
        width: hypotheses.
        best: how many ostinato are given, at most ``width``.
        length: strength of the length penalty; 0 turns it off.
        coverage: strength of the coverage penalty; 0 turns it off.

    Raises:
        ValueError: ``best`` is more than ``width``; a coverage penalty without ``uncovered``, or
            without the step's attention.
    """
    import tensorflow as tf

    _check(uncovered, width, best, coverage)
    arrays, steps = _arrays(rules)
    batch = tf.shape(arrays["maximum"])[0]
    covered = tf.zeros((batch, 0))
    if coverage:  # padding as if it were covered: adds nothing to the penalty
        covered = 1 - tf.cast(uncovered, tf.float32)
    nothing = tf.fill((batch, width), LOWEST)
    blank = tf.fill((batch, width, steps), tf.constant(rules.pad, tf.int32))
    finished = (blank, tf.zeros((batch, width), tf.int32), nothing, nothing)
    # Each sequence begins with one hypothesis, which the first step makes as many as there may be.
    last = tf.fill((batch, 1), tf.constant(rules.bos, tf.int32))
    own = tf.nest.map_structure(lambda leaf: tf.expand_dims(leaf, 1), (covered, state))
    begin = (tf.zeros((batch, 1)), last, blank[:, :1], *own)

    def body(t: "tf.Tensor", given: Any, state: Any, finished: Any) -> tuple[Any, Any]:
        arrays, shared = given
        live, last, tokens, covered, state = state
        logits, attention, state = step(last, state, shared)
        # Of its own extensions a hypothesis needs no more: one ends, and the others fill the beam.
        own, own_tokens = _candidates(logits, tokens, t, replace(rules, **arrays), width + 1)
        every = own.shape[-1]
        among = every * tf.shape(own)[1]
        values, places = tf.math.top_k(
            tf.reshape(live[..., None] + own, (-1, among)), tf.minimum(2 * width, among)
        )
        parents = places // every
        chosen = tf.gather(tf.reshape(own_tokens, (-1, among)), places, batch_dims=1)
        fill = ((0, 0), (0, 2 * width - tf.shape(places)[1]))  # of the first step, or few words
        values = tf.pad(values, fill, constant_values=LOWEST)
        parents, chosen = tf.pad(parents, fill), tf.pad(chosen, fill)

        def extended(of: "tf.Tensor", new: "tf.Tensor") -> "tf.Tensor":
            """All tokens of candidates."""
            before = tf.gather(tokens, of, batch_dims=1)
            return tf.where(tf.range(steps) == t, new[..., None], before)

        if coverage:
            if attention is None:
                raise ValueError("coverage: the step function gives no attention")
            covered += tf.cast(attention, tf.float32)

        ended = chosen == rules.eos
        ending = tf.where(ended, values, LOWEST)[:, :width]
        scores = ending / length_penalty(tf.cast(t + 1, tf.float32), length)
        if coverage:
            ink = tf.gather(covered, parents[:, :width], batch_dims=1)
            ink = tf.math.log(tf.clip_by_value(ink, FAINTEST, 1.0))
            scores += coverage * tf.reduce_sum(ink, axis=-1)
        whole = extended(parents[:, :width], chosen[:, :width])
        new = (whole, tf.fill(tf.shape(ending), t + 1), ending, scores)
        both = [tf.concat([a, b], axis=1) for a, b in zip(finished, new, strict=True)]
        _, kept = tf.math.top_k(both[3], width)
        finished = tuple(tf.gather(x, kept, batch_dims=1) for x in both)
        done = tf.reduce_all(finished[3] > LOWEST, axis=1, keepdims=True)

        live, kept = tf.math.top_k(tf.where(ended | done, LOWEST, values), width)
        of, last = (tf.gather(x, kept, batch_dims=1) for x in (parents, chosen))
        covered, state = tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, of, batch_dims=1), (covered, state)
        )
        return (live, last, extended(of, last), covered, state), finished

    def alive(state: Any) -> "tf.Tensor":
        return tf.reduce_any(state[0] > LOWEST, axis=1)

    finished = _loop(body, alive, (arrays, shared), begin, finished)
    tokens, lengths, log_probabilities, scores = (x[:, :best] for x in finished)
    exists = scores > LOWEST
    tokens = tf.where(exists[..., None], tokens, rules.pad)
    return Found(tokens, tf.where(exists, lengths, 0), log_probabilities, scores)


def align(step: Step, state: Any, shared: Any, tokens: "tf.Tensor", bos: int) -> "tf.Tensor | None":
    """What given ostinato attend to while they are said.

    Args:
        step: see ``Step``.
        state: what it begins with, a nest of tensors (batch, ...).
        shared: what it is given, a nest of tensors (batch, ...).
        tokens: int32 (batch, hypothesis, position), as in ``Found``.
        bos: token that a sequence is begun with.

    Returns:
        float32 (batch, hypothesis, position, source): a row for the saying of each token. None
        where the step function gives no attention.
    """
    import tensorflow as tf

    shape = tf.shape(tokens)
    before = tf.pad(tokens[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=bos)
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], shape[1], axis=1), state)
    if step(before[..., 0], state, shared)[1] is None:
        return None

    def body(t: "tf.Tensor", told: "tf.TensorArray", state: Any) -> tuple[Any, ...]:
        _, attention, state = step(before[..., t], state, shared)
        return t + 1, told.write(t, tf.cast(attention, tf.float32)), state

    begin = (tf.constant(0), tf.TensorArray(tf.float32, shape[2]), state)
    growing = (tf.TensorShape([]), None, tf.nest.map_structure(_growing, state))
    _, told, _ = tf.while_loop(lambda t, *_: t < shape[2], body, begin, shape_invariants=growing)
    return tf.transpose(told.stack(), (1, 2, 0, 3))


def _walk(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    count: int | None,
    choose: Callable[["tf.Tensor", Any, "tf.Tensor"], "tf.Tensor"],
    draws: Any,
) -> Found:
    """One hypothesis for each sequence.

    ``choose(log probabilities, draws, t)`` gives the place (batch, 1) of its next token among the
    ``count`` likeliest ones.
    """
    import tensorflow as tf

    arrays, steps = _arrays(rules)
    batch = tf.shape(arrays["maximum"])[0]

    def body(t: "tf.Tensor", given: Any, state: Any, told: Any) -> tuple[Any, Any]:
        arrays, shared, draws = given
        (alive, last, state), (tokens, value) = state, told
        logits, _, state = step(last, state, shared)
        own, own_tokens = _candidates(logits, tokens, t, replace(rules, **arrays), count)
        place = choose(own, draws, t)[..., None]
        new = tf.gather(own_tokens, place, batch_dims=2)[..., 0]
        gained = tf.gather(own, place, batch_dims=2)[..., 0]
        value = tf.where(alive, value + gained, value)
        last = tf.where(alive, new, rules.pad)
        tokens = tf.where(tf.range(steps) == t, last[..., None], tokens)
        alive &= (new != rules.eos) & (value > LOWEST)
        return (alive, last, state), (tokens, value)

    blank = tf.fill((batch, 1, steps), tf.constant(rules.pad, tf.int32))
    first = tf.fill((batch, 1), tf.constant(rules.bos, tf.int32))
    state = tf.nest.map_structure(lambda leaf: tf.expand_dims(leaf, 1), state)
    tokens, values = _loop(
        body,
        lambda state: state[0][:, 0],
        (arrays, shared, draws),
        (tf.fill((batch, 1), True), first, state),
        (blank, tf.zeros((batch, 1))),
    )
    tokens = tf.where((values > LOWEST)[..., None], tokens, rules.pad)
    lengths = tf.reduce_sum(tf.cast(tokens != rules.pad, tf.int32), axis=-1)
    return Found(tokens, lengths, values, values)


def _loop(
    body: Callable[["tf.Tensor", Any, Any, Any], tuple[Any, Any]],
    alive: Callable[[Any], "tf.Tensor"],
    given: Any,
    state: Any,
    told: Any,
) -> Any:
    """What is told when no sequence is alive any more.

    ``body(t, given, state, told)`` takes nests (batch, ...) and gives the next state and what is
    told then; ``alive(state)`` is bool (batch,). Whenever some ostinato are done, what is told of
    them is put aside, and the batch goes on without them.
    """
    import tensorflow as tf

    def full(t: "tf.Tensor", state: Any, told: Any) -> "tf.Tensor":
        living = tf.cast(alive(state), tf.float32)
        return tf.reduce_sum(living) > FULL * tf.cast(tf.size(living), tf.float32)

    def part(
        rows: "tf.Tensor", whole: Any, t: "tf.Tensor", state: Any, told: Any, given: Any
    ) -> tuple[Any, ...]:
        begin = (t, state, told)
        t, state, told = tf.while_loop(
            full,
            lambda t, state, told: (t + 1, *body(t, given, state, told)),
            begin,
            shape_invariants=tf.nest.map_structure(_growing, begin),
        )
        whole = tf.nest.map_structure(
            lambda to, own: tf.tensor_scatter_nd_update(to, rows[:, None], own), whole, told
        )
        kept = tf.where(alive(state))[:, 0]
        rows, state, told, given = tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, kept), (rows, state, told, given)
        )
        return rows, whole, t, state, told, given

    rows = tf.range(tf.shape(told[0])[0])
    begin = (rows, told, tf.constant(0), state, told, given)
    _, whole, *_ = tf.while_loop(
        lambda rows, *_: tf.size(rows) > 0,
        part,
        begin,
        shape_invariants=tf.nest.map_structure(_growing, begin),
    )
    return whole


def _arrays(rules: Rules) -> tuple[dict[str, "tf.Tensor"], "tf.Tensor"]:
    """The rules that have a row for each sequence, and the most tokens of one, eos included."""
    import tensorflow as tf

    arrays = {name: tf.cast(getattr(rules, name), tf.int32) for name in ("minimum", "maximum")}
    batch = tf.shape(arrays["maximum"])[0]
    if rules.prefix is not None:
        arrays["prefix"] = tf.cast(rules.prefix, tf.int32)
    if rules.allowed is not None:
        allowed = tf.cast(rules.allowed, tf.bool)
        arrays["allowed"] = tf.broadcast_to(allowed, (batch, tf.shape(allowed)[1]))
    return arrays, tf.maximum(tf.reduce_max(arrays["maximum"]), 0) + 1


def _candidates(
    logits: "tf.Tensor", tokens: "tf.Tensor", t: "tf.Tensor", rules: Rules, count: int | None
) -> tuple["tf.Tensor", "tf.Tensor"]:
    """The log probabilities of the likeliest tokens that may follow, the best first, and which.

    Both are (batch, hypothesis, count); one is minus infinity where there is no further token.
    ``tokens`` (batch, hypothesis, position) were chosen in the ``t`` steps before.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    size = logits.shape[-1]
    count = min(count or size, size)
    ruled = logits
    if rules.allowed is not None:
        ends = tf.range(size) == rules.eos
        ruled = tf.where((rules.allowed | ends)[:, None], ruled, LOWEST)
    if rules.ngram:
        ruled = tf.where(_repeating(tokens, t, rules.ngram, size), LOWEST, ruled)
    # Pad and eos are barred here, and not among all logits, which are many: so two more are taken.
    own, chosen = _top(ruled, min(count + 2, size))
    # The softmax of one token tells the sum over all: no other pass over the logits is as fast.
    likeliest = chosen[..., :1]
    if ruled is not logits:
        likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)[..., None]
    share = tf.gather(tf.nn.softmax(logits), likeliest, batch_dims=2)
    total = tf.gather(logits, likeliest, batch_dims=2) - tf.math.log(share)
    early = (t < rules.minimum)[:, None, None]
    own = tf.where((chosen == rules.pad) | ((chosen == rules.eos) & early), LOWEST, own)
    own, places = tf.math.top_k(own, count)
    chosen = tf.gather(chosen, places, batch_dims=2)

    forced = tf.constant(rules.pad, tf.int32)
    if rules.prefix is not None:
        padded = tf.pad(rules.prefix, ((0, 0), (0, 1)), constant_values=rules.pad)
        forced = padded[:, tf.minimum(t, tf.shape(rules.prefix)[1])]
    forced = tf.where(t >= rules.maximum, rules.eos, forced)
    forced = tf.repeat(forced[:, None, None], tf.shape(logits)[1], axis=1)
    first = tf.where(tf.range(count) == 0, tf.gather(logits, forced, batch_dims=2), LOWEST)
    only = forced != rules.pad
    return tf.where(only, first, own) - total, tf.where(only, forced, chosen)


def _top(logits: "tf.Tensor", count: int) -> tuple["tf.Tensor", "tf.Tensor"]:
    """``tf.math.top_k`` of (batch, hypothesis, vocabulary), faster where the vocabulary is large.

    The ``count`` largest stand in the ``count`` chunks with the largest maxima.
    """
    import tensorflow as tf

    size = logits.shape[-1]
    if size <= 4 * count * CHUNK:
        top: tuple[tf.Tensor, tf.Tensor] = tf.math.top_k(logits, count)
        return top
    if fill := -size % CHUNK:
        logits = tf.pad(logits, ((0, 0), (0, 0), (0, fill)), constant_values=LOWEST)
    shape = tf.shape(logits)
    chunks = tf.reshape(logits, (shape[0], shape[1], (size + fill) // CHUNK, CHUNK))
    # In their order, so that a tie goes to the lower token.
    kept = tf.sort(tf.math.top_k(tf.reduce_max(chunks, axis=-1), count).indices)
    few = tf.reshape(tf.gather(chunks, kept, batch_dims=2), (shape[0], shape[1], count * CHUNK))
    values, places = tf.math.top_k(few, count)
    return values, tf.gather(kept, places // CHUNK, batch_dims=2) * CHUNK + places % CHUNK


def _repeating(tokens: "tf.Tensor", t: "tf.Tensor", n: int, size: int) -> "tf.Tensor":
    """Which next tokens would end a run of ``n`` that is there: bool (batch, hypothesis, size)."""
    import tensorflow as tf

    shape = tf.shape(tokens)
    steps = shape[2]
    windows = tf.maximum(steps - n + 1, 0)
    same = tf.fill((shape[0], shape[1], windows), True) & (tf.range(windows) + n <= t)
    for i in range(n - 1):
        # The i-th of the last n - 1 tokens against the i-th of each window.
        recent = tokens[:, :, tf.clip_by_value(t - n + 1 + i, 0, steps - 1)]
        same &= tokens[:, :, i : i + windows] == recent[..., None]
    following = tokens[:, :, n - 1 : n - 1 + windows]
    place = tf.reshape(tf.range(shape[0] * shape[1]), (shape[0], shape[1], 1)) * size + following
    hits = tf.scatter_nd(
        tf.reshape(place, (-1, 1)),
        tf.reshape(tf.cast(same, tf.int32), (-1,)),
        (shape[0] * shape[1] * size,),
    )
    return tf.reshape(hits > 0, (shape[0], shape[1], size))


def _growing(leaf: "tf.Tensor") -> "tf.TensorShape":
    """The shape of a tensor whose axes may change from step to step, but that of features."""
    import tensorflow as tf

    shape = leaf.shape.as_list()
    return tf.TensorShape([None] * len(shape[:2]) + [None] * len(shape[2:-1]) + shape[2:][-1:])


def _check(uncovered: Any, width: int, best: int, coverage: float) -> None:
    if best > width:
        raise ValueError(f"best: {best} ostinato cannot come from a beam of width {width}")
    if coverage and uncovered is None:
        raise ValueError("coverage: which source tokens are to be covered is not given")


# ----------------------------------------------------------------------------------------- NumPy


@dataclass(frozen=True)
class _Hypothesis:
    parent: int  # its place among the hypotheses before
    tokens: tuple[int, ...]
    value: np.float32  # log probability
    covered: NDArray[np.float32]  # (source,)


def greedy_numpy(step: Step, state: Any, shared: Any, rules: Rules) -> Found:
    """``greedy`` with arrays in place of tensors."""
    return _walk_numpy(step, state, shared, rules, lambda logits, b, t: int(np.argmax(logits)))


def sample_numpy(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    draws: Any,
    *,
    temperature: Temperature,
    top_k: Count | None,
    nucleus: Fraction,
) -> Found:
    """``sample`` with arrays in place of tensors."""

    def choose(logits: NDArray[np.float32], b: int, t: int) -> int:
        order = np.argsort(-logits, kind="stable")[:top_k]
        scaled = logits[order] / np.float32(temperature)
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        up_to = np.cumsum(weights)
        count = int(((up_to - weights < np.float32(nucleus)) & (weights > 0)).sum())
        place = int((up_to[:count] <= draws[b, t] * up_to[count - 1]).sum())
        return int(order[max(min(place, count - 1), 0)])

    return _walk_numpy(step, state, shared, rules, choose)


def beam_numpy(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    uncovered: Any = None,
    *,
    width: Count,
    best: Count,
    length: NonNegative,
    coverage: NonNegative,
) -> Found:
    """``beam`` with arrays in place of tensors."""
    _check(uncovered, width, best, coverage)
    batch = len(rules.maximum)
    covered = np.zeros((batch, 0), np.float32)
    if coverage:
        covered = 1 - np.asarray(uncovered, np.float32)
    live = [[_Hypothesis(0, (), np.float32(0), covered[b])] for b in range(batch)]
    finished: list[list[tuple[np.float32, _Hypothesis]]] = [[] for _ in range(batch)]
    state = _mapped(state, lambda leaf: np.repeat(leaf[:, None], width, axis=1))
    while any(live):
        last = np.full((batch, width), rules.pad, np.int32)
        for b, hypotheses in enumerate(live):
            last[b, : len(hypotheses)] = [(rules.bos, *h.tokens)[-1] for h in hypotheses]
        logits, attention, state = step(last, state, shared)
        if coverage and attention is None:
            raise ValueError("coverage: the step function gives no attention")
        parents = np.zeros((batch, width), np.int32)
        for b, hypotheses in enumerate(live):
            candidates = []
            for place, h in enumerate(hypotheses):
                row = np.asarray(logits[b, place], np.float32)
                total = _logsumexp(row)
                seen = h.covered + attention[b, place] if coverage else h.covered
                ruled = _ruled_numpy(row, h.tokens, b, rules)
                order = np.argsort(-ruled, kind="stable")
                for token in order[ruled[order] > LOWEST].tolist():
                    value = h.value + (row[token] - total)
                    candidates.append(_Hypothesis(place, (*h.tokens, token), value, seen))
            candidates.sort(key=lambda h: -h.value)
            for h in candidates[:width]:
                if h.tokens[-1] == rules.eos:
                    score = h.value / length_penalty(np.float32(len(h.tokens)), length)
                    if coverage:
                        ink = np.log(np.clip(h.covered, FAINTEST, 1))
                        score += np.float32(coverage) * ink.sum()
                    finished[b].append((score, h))
            finished[b] = sorted(finished[b], key=lambda pair: -pair[0])[:width]
            going = [h for h in candidates if h.tokens[-1] != rules.eos][:width]
            live[b] = going if len(finished[b]) < width else []
            parents[b, : len(live[b])] = [h.parent for h in live[b]]
        rows = np.arange(batch)[:, None]
        state = _mapped(state, lambda leaf, at=(rows, parents): leaf[at])  # type: ignore[misc]
    return _found(
        [[(h.tokens, h.value, score) for score, h in hypotheses[:best]] for hypotheses in finished],
        best,
        rules,
    )


def _walk_numpy(
    step: Step,
    state: Any,
    shared: Any,
    rules: Rules,
    choose: Callable[[NDArray[np.float32], int, int], int],
) -> Found:
    """One hypothesis for each sequence: ``choose(logits, sequence, t)`` gives its next token."""
    batch = len(rules.maximum)
    tokens: list[tuple[int, ...]] = [()] * batch
    values = np.zeros(batch, np.float32)
    alive = np.ones(batch, bool)
    state = _mapped(state, lambda leaf: leaf[:, None])
    while alive.any():
        last = np.array([[(rules.bos, *chosen)[-1]] for chosen in tokens], np.int32)
        logits, _, state = step(last, state, shared)
        for b in np.flatnonzero(alive).tolist():
            row = np.asarray(logits[b, 0], np.float32)
            ruled = _ruled_numpy(row, tokens[b], b, rules)
            alive[b] = ruled.max() > LOWEST
            if alive[b]:
                token = choose(ruled, b, len(tokens[b]))
                values[b] += row[token] - _logsumexp(row)
                tokens[b] = (*tokens[b], token)
                alive[b] = token != rules.eos
            else:
                values[b] = LOWEST
    found = [
        [(chosen, value, value)] if value > LOWEST else []
        for chosen, value in zip(tokens, values, strict=True)
    ]
    return _found(found, 1, rules)


def _ruled_numpy(
    logits: NDArray[np.float32], tokens: tuple[int, ...], b: int, rules: Rules
) -> NDArray[np.float32]:
    """Logits (vocabulary,), minus infinity where the rules bar a token after ``tokens``."""
    t, barred = len(tokens), np.zeros(len(logits), bool)
    if rules.allowed is not None:
        allowed = np.asarray(rules.allowed)
        barred |= ~allowed[b if len(allowed) > 1 else 0]
    barred[rules.eos] = t < rules.minimum[b]
    barred[rules.pad] = True
    if n := rules.ngram:
        for i in range(t - n + 1):
            if tokens[i : i + n - 1] == tokens[t - n + 1 :]:
                barred[tokens[i + n - 1]] = True
    if rules.prefix is not None and t < rules.prefix.shape[1]:
        forced = rules.prefix[b, t]
        if forced != rules.pad:
            barred = np.arange(len(logits)) != forced
    if t >= rules.maximum[b]:
        barred = np.arange(len(logits)) != rules.eos
    return np.where(barred, LOWEST, logits).astype(np.float32)


def _found(found: list[list[tuple[tuple[int, ...], Any, Any]]], best: int, rules: Rules) -> Found:
    steps = int(np.max(rules.maximum, initial=0)) + 1
    shape = (len(found), best)
    tokens = np.full((*shape, steps), rules.pad, np.int32)
    lengths = np.zeros(shape, np.int32)
    values, scores = np.full(shape, LOWEST), np.full(shape, LOWEST)
    for b, ostinato in enumerate(found):
        for i, (chosen, value, score) in enumerate(ostinato):
            tokens[b, i, : len(chosen)] = chosen
            lengths[b, i], values[b, i], scores[b, i] = len(chosen), value, score
    return Found(tokens, lengths, values, scores)


def _logsumexp(row: NDArray[np.float32]) -> np.float32:
    highest = row.max()
    return np.float32(highest + np.log(np.exp(row - highest).sum()))


def _mapped(nest: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of each array of a nest of tuples, lists and mappings."""
    if isinstance(nest, dict):
        return {key: _mapped(value, function) for key, value in nest.items()}
    if isinstance(nest, (tuple, list)):
        return type(nest)(_mapped(value, function) for value in nest)
    return function(nest)
