"""Decoding as a plain Python loop, and the PyTorch implementation of bench/decoding.py.

    python bench/decoding_peer.py INPUTS.npz THREADS CPU

Run by an interpreter that has torch (without project imports): for each line of standard input, a
beam size, it decodes all batches, writes the tokens to tokens.npz beside INPUTS.npz and prints the
seconds (of processor time, if CPU is True).
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PAD, BOS, EOS = 0, 2, 3
LENGTH_PENALTY = 0.6

Extend = Callable[[Any, Any, Any], tuple[Any, Any]]
"""``extend(last, live, ended)``: the 2 * beam_size best extensions of a sentence's hypotheses.

last: tokens (batch, beam_size); live: log probabilities (batch, beam_size); ended: sentences that
may only end (batch,). Returns log probabilities and indices into hypothesis times vocabulary, both
(batch, 2 * beam_size), best first.
"""


def beam_search(
    extend: Extend, reorder: Callable[[Any], None], max_length: Any, beam_size: int, vocabulary: int
) -> Any:
    """A plain implementation of `ostinato.decoding.beam_search`; returns the best sequences."""
    batch, steps = len(max_length), int(max_length.max()) + 1
    tokens = np.full((batch, beam_size, steps), PAD, np.int32)
    live = np.full((batch, beam_size), -np.inf, np.float32)
    live[:, 0] = 0
    last = np.full((batch, beam_size), BOS, np.int32)
    finished: list[list[tuple[float, Any]]] = [[] for _ in range(batch)]
    for t in range(steps):
        values, indices = extend(last, live, t >= max_length)
        parents, new = indices // vocabulary, indices % vocabulary
        kept = np.zeros((batch, beam_size), np.int64)
        before, live = tokens.copy(), np.full((batch, beam_size), -np.inf, np.float32)
        for b in range(batch):
            if len(finished[b]) >= beam_size:
                continue
            slot = 0
            for i in range(2 * beam_size):
                if values[b, i] == -np.inf:
                    break
                if new[b, i] == EOS:
                    if i < beam_size:
                        sequence = before[b, parents[b, i]].copy()
                        sequence[t] = EOS
                        finished[b].append(
                            (values[b, i] / ((6 + t) / 6) ** LENGTH_PENALTY, sequence)
                        )
                elif slot < beam_size:
                    tokens[b, slot] = before[b, parents[b, i]]
                    tokens[b, slot, t] = last[b, slot] = new[b, i]
                    live[b, slot], kept[b, slot] = values[b, i], parents[b, i]
                    slot += 1
            if len(finished[b]) >= beam_size:
                live[b] = -np.inf
        if (live == -np.inf).all():
            break
        reorder(kept)
    return np.stack([max(candidates, key=lambda pair: pair[0])[1] for candidates in finished])


def greedy(step: Callable[[Any, Any], Any], max_length: Any) -> Any:
    """Greedy decoding; ``step(last, ended)`` returns the most probable tokens (batch,)."""
    batch, steps = len(max_length), int(max_length.max()) + 1
    tokens, last = np.full((batch, steps), PAD, np.int32), np.full(batch, BOS, np.int32)
    alive = np.ones(batch, bool)
    for t in range(steps):
        last = np.where(alive, step(last, t >= max_length), PAD)
        tokens[:, t] = last
        alive &= last != EOS
        if not alive.any():
            break
    return tokens


def main() -> None:
    import torch

    inputs = Path(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    with np.load(inputs) as arrays:
        w = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name[0] != "_"}
        batches = [
            (torch.from_numpy(arrays[f"_source{i}"]).long(), arrays[f"_max_length{i}"])
            for i in range(sum(name.startswith("_source") for name in arrays.files))
        ]
    units, vocabulary = w["combine"].shape[1], len(w["target_embedding"])
    lstm = torch.nn.LSTM(units, units, bidirectional=True, batch_first=True)
    for suffix, direction in (("", "forward"), ("_reverse", "backward")):
        getattr(lstm, f"weight_ih_l0{suffix}").data = w[f"{direction}_kernel"].T.contiguous()
        getattr(lstm, f"weight_hh_l0{suffix}").data = w[f"{direction}_recurrent"].T.contiguous()
        getattr(lstm, f"bias_ih_l0{suffix}").data = w[f"{direction}_bias"]
        getattr(lstm, f"bias_hh_l0{suffix}").data = torch.zeros(4 * units)
    cell = torch.nn.LSTMCell(2 * units, units)
    cell.weight_ih.data = torch.cat([w["input_kernel"], w["kernel_0"][:units]]).T.contiguous()
    cell.weight_hh.data, cell.bias_ih.data = w["kernel_0"][units:].T.contiguous(), w["bias_0"]
    cell.bias_hh.data = torch.zeros(4 * units)

    def decode(source: torch.Tensor, max_length: Any, beam_size: int) -> Any:
        sizes = (source != PAD).sum(1)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            w["source_embedding"][source], sizes, batch_first=True, enforce_sorted=False
        )
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
        real = source != PAD
        mean = memory.sum(1) / sizes[:, None]
        h, c = torch.tanh(mean @ w["bridge"]).repeat_interleave(beam_size, 0).chunk(2, 1)
        keys = memory @ w["memory_kernel"]
        state = {"h": h, "c": c, "fed": torch.zeros_like(h)}
        batch = len(source)

        def logits(last: Any) -> torch.Tensor:
            x = w["target_embedding"][torch.from_numpy(last).long().flatten()]
            h, c = cell(torch.cat([x, state["fed"]], 1), (state["h"], state["c"]))
            scores = h.view(batch, beam_size, -1) @ keys.transpose(1, 2)
            weights = scores.masked_fill(~real[:, None], -1e9).softmax(-1)
            context = (weights @ memory).flatten(0, 1)
            fed = torch.tanh(torch.cat([h, context], 1) @ w["combine"])
            state.update(h=h, c=c, fed=fed)
            scores = fed @ w["target_embedding"].T
            scores[:, PAD] = -torch.inf
            return scores

        def only_eos(logits: torch.Tensor, ended: Any) -> torch.Tensor:
            if ended.any():
                rows = torch.from_numpy(ended.repeat(beam_size))
                logits[rows, :EOS] = logits[rows, EOS + 1 :] = -torch.inf
            return logits

        def extend(last: Any, live: Any, ended: Any) -> tuple[Any, Any]:
            scores = only_eos(torch.log_softmax(logits(last), -1), ended).view(batch, beam_size, -1)
            total = (scores + torch.from_numpy(live)[..., None]).flatten(1)
            values, places = total.topk(2 * beam_size)
            return values.numpy(), places.numpy()

        def reorder(parents: Any) -> None:
            flat = torch.from_numpy(parents + np.arange(batch)[:, None] * beam_size).flatten()
            state.update({name: leaf[flat] for name, leaf in state.items()})

        if beam_size > 1:
            return beam_search(extend, reorder, max_length, beam_size, vocabulary)
        return greedy(
            lambda last, ended: only_eos(logits(last), ended).argmax(-1).numpy(), max_length
        )

    clock = time.process_time if sys.argv[3] == "True" else time.perf_counter
    for line in sys.stdin:
        began = clock()
        with torch.inference_mode():
            tokens = [decode(*batch, int(line)) for batch in batches]
        seconds = clock() - began
        np.savez(inputs.with_name("tokens.npz"), *tokens)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
