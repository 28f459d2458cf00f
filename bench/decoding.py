"""Decoding speed of `attention`, in sentences/s: one graph against loops in Python.

    python -m bench.decoding [--model MODEL.keras --data PREPARED] [--sentences 1000] [--rounds 5]
        [--batch 64] [--threads 2] [--python TORCH/python] [--sorted] [--cpu]

Decodes the first sentences of the test split with a trained model (one layer, general scores).
Without a model: random sentences of 8 to 20 tokens and an untrained model of Multi30k's size. It
predicts eos only by chance, so each translation has its maximum length, the source length plus ten
tokens, and all sentences of a batch finish at about the same time. The implementations:

- one graph: `ostinato.decoding` on batches of similar length, as `Translator` makes them
- Keras: Keras layers with the same weights, called step by step in a Python loop
- own step: the step function of the graph, called step by step in a Python loop
- PyTorch: bench/decoding_peer.py in an interpreter that has torch; glibc is configured to keep
  freed memory, which makes it faster

The loops decode the sentences in the stored order, or with --sorted in the batches of the graph.
All cache their states and must generate the same tokens. They take turns, round by round; the first
round is a warm-up. --cpu measures processor time, for a machine with other work. Prints medians
over the rounds, and the median ratio of ours to each other implementation in the same round.
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
from bench.decoding_peer import LENGTH_PENALTY, greedy
from ostinato import decoding, store
from ostinato.decoding import Constraints
from ostinato.training import runtime
from ostinato.training.machine import Machine
from ostinato.translation.dataset import BOS, EOS, PAD, load
from ostinato.translation.models import attention

BENCHMARK = {
    "measures": (
        "translating with `attention`, greedy and with a beam, in sentences/s: one graph "
        "against loops in Python (Keras, PyTorch)"
    ),
    "minutes": 30,
    "peers": {"--python": "torch"},
}

VOCAB_SIZE = 8_000
BUILD: dict[str, Any] = {
    "units": 256,
    "num_layers": 1,
    "attention_score": "general",
    "dropout": 0.0,
    "word_dropout": 0.0,
}
DATA = SimpleNamespace(vocab_sizes=(VOCAB_SIZE, VOCAB_SIZE), shared_vocabulary=False)
BEAM_SIZE = 5

Batches = list[tuple[Any, Any, Any]]  # indices of the sentences, tokens, maximum lengths
Side = Callable[[], tuple[float, list[Any]]]  # decodes all batches: seconds, tokens of each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="model.keras of an attention run")
    parser.add_argument("--data", type=Path, help="prepared data set that it was trained on")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", help="interpreter that has torch; default: no PyTorch")
    parser.add_argument("--sorted", action="store_true", help="sorted batches for the loops too")
    parser.add_argument("--cpu", action="store_true", help="measure processor time")
    args = parser.parse_args()
    if bool(args.model) != bool(args.data):
        parser.error("--model and --data go together")
    machine = Machine(intra_op=args.threads, inter_op=args.threads)
    with runtime.runtime(1, machine, precision="float32"):
        model = store.read_model(args.model) if args.model else attention.build(DATA, **BUILD)
    decoder = model.get_layer("decoder")
    if (decoder.num_layers, decoder.attention_score) != (1, "general"):
        parser.error(f"{args.model}: the other implementations have one layer and general scores")
    source, max_length = inputs(args.data, args.sentences)
    lengths = (source != PAD).sum(axis=1)

    def batches(order: Any) -> Batches:
        rows = [order[start : start + args.batch] for start in range(0, len(order), args.batch)]
        return [(at, source[at, : lengths[at].max()], max_length[at]) for at in rows]

    similar = batches(np.argsort(lengths, kind="stable"))
    plain = similar if args.sorted else batches(np.arange(len(source)))
    with tempfile.TemporaryDirectory() as folder:
        peer = torch(args, Path(folder, "inputs.npz"), model, plain) if args.python else None
        for beam_size in (1, BEAM_SIZE):
            sides = {
                "one graph": (timed(graph(model, beam_size), similar, args.cpu), similar),
                "Keras": (timed(layers(model, beam_size), plain, args.cpu), plain),
                "own step": (timed(loop(model, beam_size), plain, args.cpu), plain),
            }
            if peer:
                sides["PyTorch"] = (peer(beam_size), plain)
            kind = f"beam size {beam_size}" if beam_size > 1 else "greedy"
            report(kind, sides, len(source), args.rounds)


def inputs(data: Path | None, count: int) -> tuple[Any, Any]:
    """Sources with eos (sentence, token), and the maximum length of each translation."""
    if data:
        prepared = load(data)
        rows = prepared.encode([text for text, _ in prepared.texts("test", count)])
        return prepared.pad(rows), np.array([int(1.5 * len(row)) + 10 for row in rows])
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 21, count)
    source = rng.integers(4, VOCAB_SIZE, (count, 21)).astype(np.int32)
    source[np.arange(21) > lengths[:, None]] = PAD
    source[np.arange(count), lengths] = EOS
    return source, lengths + 10


def report(kind: str, sides: dict[str, tuple[Side, Batches]], count: int, rounds: int) -> None:
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        found = {}
        for name, (side, batches) in sides.items():
            seconds, parts = side()
            found[name] = np.full(
                (count, 1 + max(max_length.max() for *_, max_length in batches)), PAD
            )
            for (at, _, _), part in zip(batches, parts, strict=True):
                found[name][at, : part.shape[1]] = part
            if number:
                rates[name].append(count / seconds)
        first, *others = found.values()
        for other in others:
            assert (first == other).mean() > 0.99, "the tokens differ"
    ours, *_ = rates
    for name, values in rates.items():
        ratio = np.median(np.array(rates[ours]) / values)
        print(f"{kind:10} {name:10} {np.median(values):8.1f} sentences/s  ours {ratio:.2f} times")


def timed(decode: Callable[[Any, Any], Any], batches: Batches, cpu: bool) -> Side:
    clock = time.process_time if cpu else time.perf_counter

    def side() -> tuple[float, list[Any]]:
        began = clock()
        found = [np.asarray(decode(source, max_length)) for _, source, max_length in batches]
        return clock() - began, found

    return side


def graph(model: Any, beam_size: int) -> Callable[[Any, Any], Any]:
    @tf.function(reduce_retracing=True)
    def search(source: Any, max_length: Any) -> Any:
        step, state, shared = attention.start_decoding(model, source)
        constraints = Constraints(BOS, EOS, PAD, tf.zeros_like(max_length), max_length)
        if beam_size == 1:
            return decoding.greedy(step, state, shared, constraints).tokens[:, 0]
        result = decoding.beam_search(
            step,
            state,
            shared,
            constraints,
            beam_size=beam_size,
            nbest_size=1,
            length_penalty=LENGTH_PENALTY,
            coverage_penalty=0.0,
        )
        return result.tokens[:, 0]

    return lambda source, max_length: search(tf.constant(source), tf.constant(max_length, tf.int32))


def loop(model: Any, beam_size: int) -> Callable[[Any, Any], Any]:
    def decode(source: Any, max_length: Any) -> Any:
        step, state, shared = attention.start_decoding(model, tf.constant(source))
        state = tf.nest.map_structure(
            lambda leaf: tf.repeat(leaf[:, None], beam_size, axis=1), state
        )
        own = partial(step, shared=shared)
        return looped(own, state, max_length, beam_size, model.output.shape[-1])

    return decode


def layers(model: Any, beam_size: int) -> Callable[[Any, Any], Any]:
    """The model with Keras layers."""
    w = arrays(model)
    vocabulary, units = w["target_embedding"].shape
    (source_input,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(source_input, model.get_layer("memory").output)
    embedding = keras.layers.Embedding(vocabulary, units)
    cell = keras.layers.LSTMCell(units)
    bridge = keras.layers.Dense(2 * units, activation="tanh", use_bias=False)
    score = keras.layers.Dense(units, use_bias=False)
    combine = keras.layers.Dense(units, activation="tanh", use_bias=False)
    project = keras.layers.Dense(vocabulary, use_bias=False)
    embedding.build()
    cell.build((None, 2 * units))
    project.build((None, units))
    for layer, wide in ((bridge, 2 * units), (score, 2 * units), (combine, 3 * units)):
        layer.build((None, wide))
    embedding.set_weights([w["target_embedding"]])
    kernel = np.concatenate([w["input_kernel"], w["kernel_0"][:units]])
    cell.set_weights([kernel, w["kernel_0"][units:], w["bias_0"]])
    project.set_weights([w["target_embedding"].T])
    for layer, name in ((bridge, "bridge"), (score, "memory_kernel"), (combine, "combine")):
        layer.set_weights([w[name]])

    def decode(source: Any, max_length: Any) -> Any:
        memory, real = encoder(source, training=False), source != PAD
        mask = ops.cast(real, "float32")[..., None]
        h, c = ops.split(bridge(ops.sum(memory * mask, 1) / ops.sum(mask, 1)), 2, axis=-1)
        keys, hide = score(memory), ops.where(real, 0.0, -1e9)[:, None]
        state = {"h": h, "c": c, "fed": ops.zeros_like(h)}
        state = {name: ops.repeat(leaf[:, None], beam_size, axis=1) for name, leaf in state.items()}

        def step(last: Any, state: Any) -> Any:
            x = ops.concatenate([embedding(last), state["fed"]], axis=-1)
            rows = [ops.reshape(leaf, (-1, leaf.shape[-1])) for leaf in (x, state["h"], state["c"])]
            h, (_, c) = cell(rows[0], rows[1:])
            h, c = (ops.reshape(leaf, (len(source), beam_size, units)) for leaf in (h, c))
            attention = ops.softmax(ops.matmul(h, ops.swapaxes(keys, 1, 2)) + hide)
            fed = combine(ops.concatenate([h, ops.matmul(attention, memory)], axis=-1))
            return project(fed), attention, {"h": h, "c": c, "fed": fed}

        return looped(step, state, max_length, beam_size, vocabulary)

    return decode


def looped(step: Any, state: Any, max_length: Any, beam_size: int, vocabulary: int) -> Any:
    """Search with a step function that is called in Python."""
    mask = ops.where(ops.arange(vocabulary) == PAD, -np.inf, 0.0)
    only_eos = ops.where(ops.arange(vocabulary) == EOS, 0.0, -np.inf)

    def extend(last: Any, live: Any, over: Any) -> tuple[Any, Any]:
        nonlocal state
        logits, _, state = step(tf.constant(last), state)
        scores = ops.log_softmax(logits) + mask
        if over.any():
            scores = ops.where(over[:, None, None], scores + only_eos, scores)
        total = ops.reshape(scores + live[..., None], (len(last), -1))
        values, places = ops.top_k(total, 2 * beam_size)
        return values.numpy(), places.numpy()

    def reorder(parents: Any) -> None:
        nonlocal state
        state = tf.nest.map_structure(lambda leaf: tf.gather(leaf, parents, batch_dims=1), state)

    def most_probable(last: Any, over: Any) -> Any:
        nonlocal state
        logits, _, state = step(tf.constant(last[:, None]), state)
        logits = logits[:, 0] + mask
        if over.any():
            logits = ops.where(over[:, None], logits + only_eos, logits)
        return ops.argmax(logits, axis=-1).numpy()

    if beam_size == 1:
        return greedy(most_probable, max_length)
    return decoding_peer.beam_search(extend, reorder, max_length, beam_size, vocabulary)


def arrays(model: Any) -> dict[str, Any]:
    """The model's weights by name."""
    found = {}
    for weight in model.weights:
        first, *_, name = parts = weight.path.split("/")
        direction = next((part.partition("_")[0] for part in parts[:-1] if "_lstm" in part), "")
        if direction:
            name = f"{direction}_{name.removesuffix('_kernel')}"
        elif first != "decoder":
            name = {"embedding": "source_embedding"}.get(first, first)
        found[name] = weight.numpy()
    return {"source_embedding": found["target_embedding"], **found}  # one if shared


def torch(
    args: argparse.Namespace, inputs: Path, model: Any, batches: Batches
) -> Callable[[int], Side]:
    """PyTorch in its own process."""
    weights = arrays(model)
    for i, (_, source, max_length) in enumerate(batches):
        weights |= {f"_source{i}": source, f"_max_length{i}": max_length}
    np.savez(inputs, **weights)
    keep = str(1 << 32)
    memory = {"MALLOC_TRIM_THRESHOLD_": keep, "MALLOC_MMAP_THRESHOLD_": keep}
    script = Path(__file__).with_name("decoding_peer.py")
    process = subprocess.Popen(
        [args.python, str(script), str(inputs), str(args.threads), str(args.cpu)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | memory,
    )
    requests, responses = process.stdin, process.stdout
    assert requests
    assert responses

    def with_beam_size(beam_size: int) -> Side:
        def side() -> tuple[float, list[Any]]:
            print(beam_size, file=requests, flush=True)
            seconds = float(responses.readline())
            with np.load(inputs.with_name("tokens.npz")) as tokens:
                return seconds, [tokens[name] for name in tokens.files]

        return side

    return with_beam_size


if __name__ == "__main__":
    main()
