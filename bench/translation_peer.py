"""The PyTorch implementation of bench/translation.py, run by an interpreter that has torch.

    python bench/translation_peer.py BATCHES.npz THREADS SOURCE TARGET SHARED UNITS DROPOUT

For each line of standard input, it trains the model on all batches once and prints the seconds.
"""

import sys
import time

import numpy as np
import torch
from torch import nn


class Translator(nn.Module):
    """ostinato/translation/models/attention.py with one layer and general scores."""

    def __init__(self, source: int, target: int, shared: bool, units: int, dropout: float) -> None:
        super().__init__()
        self.target_embedding = nn.Embedding(target, units)
        nn.init.normal_(self.target_embedding.weight, std=units**-0.5)
        self.source_embedding = self.target_embedding if shared else nn.Embedding(source, units)
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.LSTM(units, units, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(2 * units, 2 * units, bias=False)
        self.cell = nn.LSTMCell(units, units)
        self.input_kernel = nn.Linear(units, 4 * units)  # of the embeddings, for all steps at once
        self.score = nn.Linear(2 * units, units, bias=False)
        self.combine = nn.Linear(3 * units, units, bias=False)

    def forward(self, source: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Source and before, (batch, token), to logits (batch, token, vocabulary)."""
        mask = source != 0
        memory, _ = self.encoder(self.drop(self.source_embedding(source)))
        memory = self.drop(memory)
        count = mask.sum(1, keepdim=True)
        mean = (memory * mask[..., None]).sum(1) / count
        h, c = torch.tanh(self.bridge(mean)).chunk(2, dim=-1)
        keys = self.score(memory).transpose(1, 2)
        attentional, outputs = torch.zeros_like(h), []
        dropout_mask = self.drop(torch.ones_like(h))
        inputs = self.input_kernel(self.drop(self.target_embedding(before)))
        kernel = torch.cat([self.cell.weight_ih, self.cell.weight_hh], dim=1).t()
        for x in inputs.unbind(1):
            gates = torch.addmm(x, torch.cat([attentional * dropout_mask, h], -1), kernel)
            i, f, g, o = gates.chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            scores = torch.bmm(h[:, None], keys)[:, 0].masked_fill(~mask, -1e9)
            context = torch.bmm(torch.softmax(scores, -1)[:, None], memory)[:, 0]
            attentional = torch.tanh(self.combine(torch.cat([h, context], -1)))
            outputs.append(attentional)
        return nn.functional.linear(
            self.drop(torch.stack(outputs, 1)), self.target_embedding.weight
        )


def main() -> None:
    file, threads, source, target, shared, units, dropout = sys.argv[1:]
    names = ("source", "before", "y", "weight")
    with np.load(file) as arrays:
        batches = [
            [torch.from_numpy(arrays[f"{name}{i}"]) for name in names]
            for i in range(len(arrays.files) // len(names))
        ]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    model = Translator(int(source), int(target), shared == "True", int(units), float(dropout))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in sys.stdin:
        start = time.perf_counter()
        for sources, before, y, weight in batches:
            optimizer.zero_grad()
            logits = model(sources, before).flatten(0, 1)
            loss = nn.functional.cross_entropy(
                logits, y.flatten().long(), reduction="none", label_smoothing=0.1
            )
            (loss * weight.flatten()).sum().div(weight.sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
