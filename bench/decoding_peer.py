"""Searches as a plain loop in Python, and PyTorch's side of bench/decoding.py.

    python bench/decoding_peer.py GIVEN.npz THREADS CPU

Run by an interpreter that has torch (no project import): decodes all batches once for each line
that it reads, which says the width of the beam, and answers with the seconds that this took (of
the processor, where CPU is True), and with the tokens in told.npz beside GIVEN.npz.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PAD, BOS, EOS = 0, 2, 3
LENGTH = 0.6  # strength of the length penalty

Extend = Callable[[Any, Any, Any], tuple[Any, Any]]
"""``extend(last, live, over)``: the 2 * width best extensions of a sentence's hypotheses.

last: tokens (batch, width); live: log probabilities (batch, width); over: which sentences may but
end (batch,). Gives log probabilities and places among hypothesis times vocabulary, both (batch,
2 * width), the best first.
"""


def search(
    extend: Extend, reorder: Callable[[Any], None], maximum: Any, width: int, vocabulary: int
) -> Any:
    """The beam search of `ostinato.decoding.search.beam` as one writes it first; the best ostinato."""
    batch, steps = len(maximum), int(maximum.max()) + 1
    tokens = np.full((batch, width, steps), PAD, np.int32)
    live = np.full((batch, width), -np.inf, np.float32)
    live[:, 0] = 0
    last = np.full((batch, width), BOS, np.int32)
    finished: list[list[tuple[float, Any]]] = [[] for _ in range(batch)]
    for t in range(steps):
        values, places = extend(last, live, t >= maximum)
        parents, new = places // vocabulary, places % vocabulary
        kept = np.zeros((batch, width), np.int64)
        before, live = tokens.copy(), np.full((batch, width), -np.inf, np.float32)
        for b in range(batch):
            if len(finished[b]) >= width:
                continue
            place = 0
            for i in range(2 * width):
                if values[b, i] == -np.inf:
                    break
                if new[b, i] == EOS:
                    if i < width:
                        sequence = before[b, parents[b, i]].copy()
                        sequence[t] = EOS
                        finished[b].append((values[b, i] / ((6 + t) / 6) ** LENGTH, sequence))
                elif place < width:
                    tokens[b, place] = before[b, parents[b, i]]
                    tokens[b, place, t] = last[b, place] = new[b, i]
                    live[b, place], kept[b, place] = values[b, i], parents[b, i]
                    place += 1
            if len(finished[b]) >= width:
                live[b] = -np.inf
        if (live == -np.inf).all():
            break
        reorder(kept)
    return np.stack([max(found, key=lambda pair: pair[0])[1] for found in finished])


def walk(step: Callable[[Any, Any], Any], maximum: Any) -> Any:
    """Greedy: ``step(last, over)`` gives the likeliest token of each sentence (batch,)."""
    batch, steps = len(maximum), int(maximum.max()) + 1
    tokens, last = np.full((batch, steps), PAD, np.int32), np.full(batch, BOS, np.int32)
    alive = np.ones(batch, bool)
    for t in range(steps):
        last = np.where(alive, step(last, t >= maximum), PAD)
        tokens[:, t] = last
        alive &= last != EOS
        if not alive.any():
            break
    return tokens


def main() -> None:
    import torch

    given = Path(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    with np.load(given) as arrays:
        w = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name[0] != "_"}
        batches = [
            (torch.from_numpy(arrays[f"_source{i}"]).long(), arrays[f"_maximum{i}"])
            for i in range(sum(name.startswith("_source") for name in arrays.files))
        ]
    units, vocabulary = w["combine"].shape[1], len(w["words"])
    lstm = torch.nn.LSTM(units, units, bidirectional=True, batch_first=True)
    for suffix, direction in (("", "forward"), ("_reverse", "backward")):
        getattr(lstm, f"weight_ih_l0{suffix}").data = w[f"{direction}_kernel"].T.contiguous()
        getattr(lstm, f"weight_hh_l0{suffix}").data = w[f"{direction}_recurrent"].T.contiguous()
        getattr(lstm, f"bias_ih_l0{suffix}").data = w[f"{direction}_bias"]
        getattr(lstm, f"bias_hh_l0{suffix}").data = torch.zeros(4 * units)
    cell = torch.nn.LSTMCell(2 * units, units)
    cell.weight_ih.data = torch.cat([w["said"], w["gates_0"][:units]]).T.contiguous()
    cell.weight_hh.data, cell.bias_ih.data = w["gates_0"][units:].T.contiguous(), w["bias_0"]
    cell.bias_hh.data = torch.zeros(4 * units)

    def decode(source: torch.Tensor, maximum: Any, width: int) -> Any:
        sizes = (source != PAD).sum(1)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            w["sources"][source], sizes, batch_first=True, enforce_sorted=False
        )
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
        real = source != PAD
        mean = memory.sum(1) / sizes[:, None]
        h, c = torch.tanh(mean @ w["bridge"]).repeat_interleave(width, 0).chunk(2, 1)
        keys = memory @ w["score"]
        state = {"h": h, "c": c, "fed": torch.zeros_like(h)}
        batch = len(source)

        def logits(last: Any) -> torch.Tensor:
            x = w["words"][torch.from_numpy(last).long().flatten()]
            h, c = cell(torch.cat([x, state["fed"]], 1), (state["h"], state["c"]))
            scores = h.view(batch, width, -1) @ keys.transpose(1, 2)
            weights = scores.masked_fill(~real[:, None], -1e9).softmax(-1)
            context = (weights @ memory).flatten(0, 1)
            fed = torch.tanh(torch.cat([h, context], 1) @ w["combine"])
            state.update(h=h, c=c, fed=fed)
            told = fed @ w["words"].T
            told[:, PAD] = -torch.inf
            return told

        def only_eos(told: torch.Tensor, over: Any) -> torch.Tensor:
            if over.any():
                ended = torch.from_numpy(over.repeat(width))
                told[ended, :EOS] = told[ended, EOS + 1 :] = -torch.inf
            return told

        def extend(last: Any, live: Any, over: Any) -> tuple[Any, Any]:
            told = only_eos(torch.log_softmax(logits(last), -1), over).view(batch, width, -1)
            total = (told + torch.from_numpy(live)[..., None]).flatten(1)
            values, places = total.topk(2 * width)
            return values.numpy(), places.numpy()

        def reorder(parents: Any) -> None:
            flat = torch.from_numpy(parents + np.arange(batch)[:, None] * width).flatten()
            state.update({name: leaf[flat] for name, leaf in state.items()})

        if width > 1:
            return search(extend, reorder, maximum, width, vocabulary)
        return walk(lambda last, over: only_eos(logits(last), over).argmax(-1).numpy(), maximum)

    clock = time.process_time if sys.argv[3] == "True" else time.perf_counter
    for line in sys.stdin:
        began = clock()
        with torch.inference_mode():
            told = [decode(*batch, int(line)) for batch in batches]
        seconds = clock() - began
        np.savez(given.with_name("told.npz"), *told)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
