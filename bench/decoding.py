"""Decoding speed of `attention`, in sentences/s: one graph against loops in Python.

    python -m bench.decoding [--sentences 160] [--rounds 5]

Random sentences of 8 to 20 tokens and an untrained model of Multi30k's size, which ends by chance
alone, so that each translation is about as long as it may be: its source and ten tokens more. All
sides take the same step function (so all have a cache) and find the same tokens; they take turns,
round by round, and the first round warms up. Medians over the rounds, and the medians of ours
over each other side in the same round.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from sequences import decoding, training
from sequences.decoding import Rules, length_penalty
from sequences.translation import attention
from sequences.translation.examples.batches import BOS, EOS, PAD

VOCABULARY = 8_000
BUILD: dict[str, Any] = {"units": 256, "layers": 1, "scores": "general", "dropout": 0.0}
BATCH, WIDTH, LENGTH = 80, 5, 0.6

Side = Callable[[Any, Any], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(8, 21, args.sentences))
    source = rng.integers(4, VOCABULARY, (args.sentences, 21)).astype(np.int32)
    source[np.arange(21) > lengths[:, None]] = PAD
    source[np.arange(len(source)), lengths] = EOS
    with training.machine(1, precision="float32", devices=1, intra_op=None, inter_op=None):
        model = attention.build(SimpleNamespace(vocabulary=(VOCABULARY, VOCABULARY)), **BUILD)
    for kind, sides in {
        "greedy": {
            "one graph": graph(model, 1),
            "loop in Python": lambda x, most: loop(model, x, most, 1),
        },
        f"beam of {WIDTH}": {
            "one graph": graph(model, WIDTH),
            "loop in Python": lambda x, most: loop(model, x, most, WIDTH),
        },
    }.items():
        report(kind, sides, source, lengths, args.rounds)


def report(kind: str, sides: dict[str, Side], source: Any, lengths: Any, rounds: int) -> None:
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        found: dict[str, list[Any]] = {}
        for name, side in sides.items():
            start = time.perf_counter()
            found[name] = []
            for i in range(0, len(source), BATCH):
                long = lengths[i : i + BATCH]
                found[name].append(side(source[i : i + BATCH, : long.max() + 1], long + 10))
            if number:
                rates[name].append(len(source) / (time.perf_counter() - start))
        first, *others = found.values()
        for other in others:
            for one, two in zip(first, other, strict=True):
                assert (np.asarray(one)[:, : two.shape[1]] == two).mean() > 0.99, "other tokens"
    ours, *_ = rates
    for name, values in rates.items():
        ratio = np.median(np.array(rates[ours]) / values)
        print(f"{kind:10} {name:16} {np.median(values):8.1f} sentences/s  ours {ratio:.2f} times")


def graph(model: Any, width: int) -> Side:
    @tf.function(reduce_retracing=True)
    def search(source: Any, maximum: Any) -> Any:
        step, state = attention.start(model, source)
        rules = Rules(BOS, EOS, PAD, tf.zeros_like(maximum), maximum)
        if width == 1:
            return decoding.greedy(step, state, rules).tokens[:, 0]
        options: dict[str, Any] = {"best": 1, "length": LENGTH, "coverage": 0.0}
        return decoding.beam(step, state, rules, width=width, **options).tokens[:, 0]

    def side(source: Any, maximum: Any) -> Any:
        return search(tf.constant(source), tf.constant(maximum, tf.int32)).numpy()

    return side


def loop(model: Any, source: Any, maximum: Any, width: int) -> Any:
    """The beam search of `decoding.beam` as one writes it first: a loop that calls the step."""
    step, state = attention.start(model, tf.constant(source))
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], width, axis=1), state)
    batch, steps, rows = len(source), int(maximum.max()) + 1, np.arange(len(source))[:, None]
    tokens = np.full((batch, width, steps), PAD, np.int32)
    live = np.full((batch, width), -np.inf, np.float32)
    live[:, 0] = 0
    last = np.full((batch, width), BOS, np.int32)
    finished: list[list[tuple[float, Any]]] = [[] for _ in range(batch)]
    for t in range(steps):
        logits, _, state = step(tf.constant(last), state)
        scores = tf.nn.log_softmax(logits).numpy()
        scores[:, :, PAD] = -np.inf
        over = t >= maximum
        scores[over, :, :EOS] = scores[over, :, EOS + 1 :] = -np.inf
        scores = (live[..., None] + scores).reshape(batch, -1)
        best = np.argpartition(-scores, 2 * width, axis=1)[:, : 2 * width]
        best = np.take_along_axis(best, np.argsort(-scores[rows, best], axis=1), 1)
        values, parents, new = scores[rows, best], best // VOCABULARY, best % VOCABULARY
        parents_kept = np.zeros((batch, width), np.int64)
        previous, live = tokens.copy(), np.full((batch, width), -np.inf, np.float32)
        for b in range(batch):
            if len(finished[b]) >= width:
                continue
            place = 0
            for i in range(2 * width):
                if values[b, i] == -np.inf:
                    break
                if new[b, i] == EOS:
                    if i < width:
                        sequence = previous[b, parents[b, i]].copy()
                        sequence[t] = EOS
                        finished[b].append((values[b, i] / length_penalty(t + 1, LENGTH), sequence))
                elif place < width:
                    tokens[b, place] = previous[b, parents[b, i]]
                    tokens[b, place, t] = last[b, place] = new[b, i]
                    live[b, place], parents_kept[b, place] = values[b, i], parents[b, i]
                    place += 1
            if len(finished[b]) >= width:
                live[b] = -np.inf
        if (live == -np.inf).all():
            break
        state = tf.nest.map_structure(
            lambda leaf, at=parents_kept: tf.gather(leaf, at, batch_dims=1), state
        )
    return np.stack([max(found, key=lambda pair: pair[0])[1] for found in finished])


if __name__ == "__main__":
    main()
