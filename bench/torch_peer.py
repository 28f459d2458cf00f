"""PyTorch's side of bench/training.py, run by an interpreter that has torch (no project import).

    python bench/torch_peer.py BATCHES.npz CLASSES THREADS

Trains the drawing tutorial's model over the batches once for each line that it reads, and
answers with the seconds that this took.
"""

import sys
import time

import numpy as np
import torch
from torch import nn


class Drawings(nn.Module):
    """ostinato/sketches/models/conv_bilstm.py at the tutorial's size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 48, 64, 96)
        sizes = zip(widths, widths[1:], (5, 5, 3), strict=False)
        self.convolutions = nn.ModuleList(nn.Conv1d(*size, padding="same") for size in sizes)
        self.drop = nn.Dropout(0.3)
        self.lstm = nn.LSTM(96, 128, 3, dropout=0.3, bidirectional=True, batch_first=True)
        self.dense = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, point, 3) to logits (batch, class)."""
        mask = (x != 0).any(-1)
        x = x.transpose(1, 2)
        for depth, convolution in enumerate(self.convolutions):
            x = convolution((self.drop(x) if depth else x) * mask[:, None])
        x, _ = self.lstm(x.transpose(1, 2))  # over the padding too: packed, it is far slower
        return self.dense((self.drop(x) * mask[..., None]).sum(1))


def main() -> None:
    with np.load(sys.argv[1]) as arrays:
        batches = [
            (torch.from_numpy(arrays[f"x{i}"]), torch.from_numpy(arrays[f"y{i}"]).long())
            for i in range(len(arrays.files) // 2)
        ]
    torch.set_num_threads(int(sys.argv[3]))
    torch.manual_seed(1)
    model = Drawings(int(sys.argv[2])).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in sys.stdin:
        began = time.perf_counter()
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 9.0)
            optimizer.step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
