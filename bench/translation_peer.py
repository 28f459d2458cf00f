"""PyTorch's side of bench/translation.py, run by an interpreter that has torch.

    python bench/translation_peer.py BATCHES.npz THREADS SOURCE TARGET JOINT UNITS DROPOUT

Trains the model over the batches once for each line that it reads, and answers with the seconds
that this took.
"""

import sys
import time

import numpy as np
import torch
from torch import nn


class Translator(nn.Module):
    """ostinato/translation/models/attention.py with one layer and general scores."""

    def __init__(self, source: int, target: int, joint: bool, units: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(target, units)
        nn.init.normal_(self.words.weight, std=units**-0.5)
        self.foreign = self.words if joint else nn.Embedding(source, units)
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.LSTM(units, units, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(2 * units, 2 * units, bias=False)
        self.cell = nn.LSTMCell(units, units)
        self.said = nn.Linear(units, 4 * units)  # the embedding's part, for all steps at once
        self.score = nn.Linear(2 * units, units, bias=False)
        self.combine = nn.Linear(3 * units, units, bias=False)

    def forward(self, source: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Source and before, (batch, token), to logits (batch, token, piece)."""
        real = source != 0
        memory, _ = self.encoder(self.drop(self.foreign(source)))
        memory = self.drop(memory)
        count = real.sum(1, keepdim=True)
        mean = (memory * real[..., None]).sum(1) / count
        h, c = torch.tanh(self.bridge(mean)).chunk(2, dim=-1)
        keys = self.score(memory).transpose(1, 2)
        fed, told = torch.zeros_like(h), []
        dropped = self.drop(torch.ones_like(h))
        said = self.said(self.drop(self.words(before)))
        kernel = torch.cat([self.cell.weight_ih, self.cell.weight_hh], dim=1).t()
        for x in said.unbind(1):
            gates = torch.addmm(x, torch.cat([fed * dropped, h], -1), kernel)
            i, f, g, o = gates.chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            scores = torch.bmm(h[:, None], keys)[:, 0].masked_fill(~real, -1e9)
            context = torch.bmm(torch.softmax(scores, -1)[:, None], memory)[:, 0]
            fed = torch.tanh(self.combine(torch.cat([h, context], -1)))
            told.append(fed)
        return nn.functional.linear(self.drop(torch.stack(told, 1)), self.words.weight)


def main() -> None:
    file, threads, source, target, joint, units, dropout = sys.argv[1:]
    names = ("source", "before", "y", "weight")
    with np.load(file) as arrays:
        batches = [
            [torch.from_numpy(arrays[f"{name}{i}"]) for name in names]
            for i in range(len(arrays.files) // len(names))
        ]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    model = Translator(int(source), int(target), joint == "True", int(units), float(dropout))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in sys.stdin:
        began = time.perf_counter()
        for given, before, y, weight in batches:
            optimizer.zero_grad()
            logits = model(given, before).flatten(0, 1)
            loss = nn.functional.cross_entropy(
                logits, y.flatten().long(), reduction="none", label_smoothing=0.1
            )
            (loss * weight.flatten()).sum().div(weight.sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
