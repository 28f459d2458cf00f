"""Decoding speed of `attention`, in sentences/s: one graph against loops in Python.

    python -m bench.decoding [--model MODEL.keras --data PREPARED] [--sentences 1000] [--rounds 5]
        [--batch 64] [--threads 2] [--python TORCH/python] [--sorted] [--cpu]

The first sentences of the test split, and a trained model (of one layer, with general scores).
Without them: random sentences of 8 to 20 tokens, and an untrained model of Multi30k's size, which
ends by chance alone, so that each translation is as long as it may be: its source and ten tokens
more, and no sentence is done long before the others of its batch. The sides:

- one graph: `ostinato/decoding/search.py`, on batches of like length, as `scores.translator` makes them
- Keras: its layers with the same weights, called step by step in a Python loop
- own step: the step function that the graph has, called step by step in a Python loop
- PyTorch: bench/decoding_peer.py in an interpreter that has torch, with glibc told to keep its
  memory, which it is faster with

The loops read the sentences in the order in which they stand, as plain loops do, or with --sorted
the very batches of the graph. All have a cache and have to find the same tokens. They take turns,
round by round, and the first round warms up; --cpu counts processor time, for a machine that has
other work. Medians over the rounds, and the medians of ours over each other side in the same round.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bench import decoding_peer
from bench.decoding_peer import LENGTH, walk
from ostinato import store
from ostinato.decoding import search
from ostinato.decoding.search import Rules
from ostinato.training import runtime
from ostinato.translation.dataset import load
from ostinato.translation.dataset.batches import BOS, EOS, PAD
from ostinato.translation.models import attention

VOCABULARY = 8_000
BUILD: dict[str, Any] = {
    "units": 256,
    "num_layers": 1,
    "scores": "general",
    "dropout": 0.0,
    "word_dropout": 0.0,
}
DATA = SimpleNamespace(vocabulary=(VOCABULARY, VOCABULARY), joint=False)
WIDTH = 5

Batches = list[tuple[Any, Any, Any]]  # which sentences, their tokens, and how long they may become
Side = Callable[[], tuple[float, list[Any]]]  # decodes all batches: seconds, and tokens of each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="model.keras of a run of attention")
    parser.add_argument("--data", type=Path, help="the prepared data that it was trained on")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", help="PyTorch's interpreter; without it, no PyTorch")
    parser.add_argument("--sorted", action="store_true", help="the loops' batches are, too")
    parser.add_argument("--cpu", action="store_true", help="processor time, not the wall's")
    args = parser.parse_args()
    if bool(args.model) != bool(args.data):
        parser.error("--model and --data go together")
    threads = {"intra_op": args.threads, "inter_op": args.threads}
    with runtime.runtime(1, precision="float32", devices=1, **threads):
        model = store.read_model(args.model) if args.model else attention.build(DATA, **BUILD)
    decoder = model.get_layer("decoder")
    if (decoder.layers, decoder.scores) != (1, "general"):
        parser.error(f"{args.model}: the other sides have one layer and general scores")
    source, most = given(args.data, args.sentences)
    lengths = (source != PAD).sum(axis=1)

    def batches(order: Any) -> Batches:
        rows = [order[start : start + args.batch] for start in range(0, len(order), args.batch)]
        return [(at, source[at, : lengths[at].max()], most[at]) for at in rows]

    alike = batches(np.argsort(lengths, kind="stable"))
    plain = alike if args.sorted else batches(np.arange(len(source)))
    with tempfile.TemporaryDirectory() as folder:
        peer = torch(args, Path(folder, "given.npz"), model, plain) if args.python else None
        for width in (1, WIDTH):
            sides = {
                "one graph": (timed(graph(model, width), alike, args.cpu), alike),
                "Keras": (timed(layers(model, width), plain, args.cpu), plain),
                "own step": (timed(loop(model, width), plain, args.cpu), plain),
            }
            if peer:
                sides["PyTorch"] = (peer(width), plain)
            kind = f"beam of {width}" if width > 1 else "greedy"
            report(kind, sides, len(source), args.rounds)


def given(data: Path | None, count: int) -> tuple[Any, Any]:
    """Sources with eos (sentence, token), and how many tokens each translation may have."""
    if data:
        prepared = load(data)
        rows = prepared.encode([text for text, _ in prepared.texts("test", count)])
        return prepared.pad(rows), np.array([int(1.5 * len(row)) + 10 for row in rows])
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 21, count)
    source = rng.integers(4, VOCABULARY, (count, 21)).astype(np.int32)
    source[np.arange(21) > lengths[:, None]] = PAD
    source[np.arange(count), lengths] = EOS
    return source, lengths + 10


def report(kind: str, sides: dict[str, tuple[Side, Batches]], count: int, rounds: int) -> None:
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        found = {}
        for name, (side, batches) in sides.items():
            seconds, parts = side()
            found[name] = np.full((count, 1 + max(most.max() for *_, most in batches)), PAD)
            for (at, _, _), part in zip(batches, parts, strict=True):
                found[name][at, : part.shape[1]] = part
            if number:
                rates[name].append(count / seconds)
        first, *others = found.values()
        for other in others:
            assert (first == other).mean() > 0.99, "other tokens"
    ours, *_ = rates
    for name, values in rates.items():
        ratio = np.median(np.array(rates[ours]) / values)
        print(f"{kind:10} {name:10} {np.median(values):8.1f} sentences/s  ours {ratio:.2f} times")


def timed(decode: Callable[[Any, Any], Any], batches: Batches, cpu: bool) -> Side:
    clock = time.process_time if cpu else time.perf_counter

    def side() -> tuple[float, list[Any]]:
        began = clock()
        found = [np.asarray(decode(source, most)) for _, source, most in batches]
        return clock() - began, found

    return side


def graph(model: Any, width: int) -> Callable[[Any, Any], Any]:
    @tf.function(reduce_retracing=True)
    def find(source: Any, maximum: Any) -> Any:
        step, state, shared = attention.start(model, source)
        rules = Rules(BOS, EOS, PAD, tf.zeros_like(maximum), maximum)
        if width == 1:
            return search.greedy(step, state, shared, rules).tokens[:, 0]
        options: dict[str, Any] = {"best": 1, "length": LENGTH, "coverage": 0.0}
        found = search.beam(step, state, shared, rules, width=width, **options)
        return found.tokens[:, 0]

    return lambda source, maximum: find(tf.constant(source), tf.constant(maximum, tf.int32))


def loop(model: Any, width: int) -> Callable[[Any, Any], Any]:
    def decode(source: Any, maximum: Any) -> Any:
        step, state, shared = attention.start(model, tf.constant(source))
        state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], width, axis=1), state)
        own = partial(step, shared=shared)
        return looped(own, state, maximum, width, model.output.shape[-1])

    return decode


def layers(model: Any, width: int) -> Callable[[Any, Any], Any]:
    """As one writes it with Keras' layers."""
    w = arrays(model)
    vocabulary, units = w["words"].shape
    given = {x.name: x for x in model.inputs}
    encoder = keras.Model(given["source"], model.get_layer("memory").output)
    embedding = keras.layers.Embedding(vocabulary, units)
    cell = keras.layers.LSTMCell(units)
    bridge = keras.layers.Dense(2 * units, activation="tanh", use_bias=False)
    score = keras.layers.Dense(units, use_bias=False)
    combine = keras.layers.Dense(units, activation="tanh", use_bias=False)
    tell = keras.layers.Dense(vocabulary, use_bias=False)
    embedding.build()
    cell.build((None, 2 * units))
    tell.build((None, units))
    for layer, wide in ((bridge, 2 * units), (score, 2 * units), (combine, 3 * units)):
        layer.build((None, wide))
    embedding.set_weights([w["words"]])
    kernel = np.concatenate([w["said"], w["gates_0"][:units]])
    cell.set_weights([kernel, w["gates_0"][units:], w["bias_0"]])
    tell.set_weights([w["words"].T])
    for layer, name in ((bridge, "bridge"), (score, "score"), (combine, "combine")):
        layer.set_weights([w[name]])

    def decode(source: Any, maximum: Any) -> Any:
        memory, real = encoder(source, training=False), source != PAD
        mask = ops.cast(real, "float32")[..., None]
        h, c = ops.split(bridge(ops.sum(memory * mask, 1) / ops.sum(mask, 1)), 2, axis=-1)
        keys, hide = score(memory), ops.where(real, 0.0, -1e9)[:, None]
        state = {"h": h, "c": c, "fed": ops.zeros_like(h)}
        state = {name: ops.repeat(leaf[:, None], width, axis=1) for name, leaf in state.items()}

        def step(last: Any, state: Any) -> Any:
            x = ops.concatenate([embedding(last), state["fed"]], axis=-1)
            rows = [ops.reshape(leaf, (-1, leaf.shape[-1])) for leaf in (x, state["h"], state["c"])]
            h, (_, c) = cell(rows[0], rows[1:])
            h, c = (ops.reshape(leaf, (len(source), width, units)) for leaf in (h, c))
            attention = ops.softmax(ops.matmul(h, ops.swapaxes(keys, 1, 2)) + hide)
            fed = combine(ops.concatenate([h, ops.matmul(attention, memory)], axis=-1))
            return tell(fed), attention, {"h": h, "c": c, "fed": fed}

        return looped(step, state, maximum, width, vocabulary)

    return decode


def looped(step: Any, state: Any, maximum: Any, width: int, vocabulary: int) -> Any:
    """Search by a step function that is called in Python."""
    barred = ops.where(ops.arange(vocabulary) == PAD, -np.inf, 0.0)
    ends = ops.where(ops.arange(vocabulary) == EOS, 0.0, -np.inf)

    def extend(last: Any, live: Any, over: Any) -> tuple[Any, Any]:
        nonlocal state
        logits, _, state = step(tf.constant(last), state)
        scores = ops.log_softmax(logits) + barred
        if over.any():
            scores = ops.where(over[:, None, None], scores + ends, scores)
        total = ops.reshape(scores + live[..., None], (len(last), -1))
        values, places = ops.top_k(total, 2 * width)
        return values.numpy(), places.numpy()

    def reorder(parents: Any) -> None:
        nonlocal state
        state = tf.nest.map_structure(lambda leaf: tf.gather(leaf, parents, batch_dims=1), state)

    def likeliest(last: Any, over: Any) -> Any:
        nonlocal state
        logits, _, state = step(tf.constant(last[:, None]), state)
        logits = logits[:, 0] + barred
        if over.any():
            logits = ops.where(over[:, None], logits + ends, logits)
        return ops.argmax(logits, axis=-1).numpy()

    if width == 1:
        return walk(likeliest, maximum)
    return decoding_peer.search(extend, reorder, maximum, width, vocabulary)


def arrays(model: Any) -> dict[str, Any]:
    """The model's weights by name."""
    found = {}
    for weight in model.weights:
        first, *_, name = parts = weight.path.split("/")
        direction = next((part.partition("_")[0] for part in parts[:-1] if "_lstm" in part), "")
        if direction:
            name = f"{direction}_{name.removesuffix('_kernel')}"
        elif first != "decoder":
            name = {"words": "words", "embedding": "sources"}[first]
        found[name] = weight.numpy()
    return {"sources": found["words"], **found}  # of a joint vocabulary they are one


def torch(
    args: argparse.Namespace, given: Path, model: Any, batches: Batches
) -> Callable[[int], Side]:
    """PyTorch's side, in a process of its own."""
    held = arrays(model)
    for i, (_, source, maximum) in enumerate(batches):
        held |= {f"_source{i}": source, f"_maximum{i}": maximum}
    np.savez(given, **held)
    keep = str(1 << 32)
    memory = {"MALLOC_TRIM_THRESHOLD_": keep, "MALLOC_MMAP_THRESHOLD_": keep}
    script = Path(__file__).with_name("decoding_peer.py")
    process = subprocess.Popen(
        [args.python, str(script), str(given), str(args.threads), str(args.cpu)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | memory,
    )
    asked, said = process.stdin, process.stdout
    assert asked
    assert said

    def of(width: int) -> Side:
        def side() -> tuple[float, list[Any]]:
            print(width, file=asked, flush=True)
            seconds = float(said.readline())
            with np.load(given.with_name("told.npz")) as told:
                return seconds, [told[name] for name in told.files]

        return side

    return of


if __name__ == "__main__":
    main()
