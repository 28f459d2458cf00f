"""PyTorch's side of bench/training.py, run by an interpreter that has torch (no project import).

    python bench/torch_peer.py BATCHES.npz CLASSES THREADS

For each line on standard input it trains the model of the drawing tutorial on all batches once and
prints the seconds.
"""

import sys
import time

import numpy as np
import torch
from torch import nn


class ConvBiLSTM(nn.Module):
    """ostinato/sketches/models/conv_bilstm.py at the tutorial's size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = (3, 48, 64, 96)
        sizes = zip(channels, channels[1:], (5, 5, 3), strict=False)
        self.convolutions = nn.ModuleList(nn.Conv1d(*size, padding="same") for size in sizes)
        self.dropout = nn.Dropout(0.3)
        self.lstm = nn.LSTM(96, 128, 3, dropout=0.3, bidirectional=True, batch_first=True)
        self.dense = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, point, 3) to logits (batch, class)."""
        mask = (x != 0).any(-1)
        x = x.transpose(1, 2)
        for depth, convolution in enumerate(self.convolutions):
            x = convolution((self.dropout(x) if depth else x) * mask[:, None])
        x, _ = self.lstm(x.transpose(1, 2))  # padding included: packed sequences are far slower
        return self.dense((self.dropout(x) * mask[..., None]).sum(1))


def main() -> None:
    """Train one round for each line on standard input."""
    with np.load(sys.argv[1]) as arrays:
        batches = [
            (torch.from_numpy(arrays[f"x{i}"]), torch.from_numpy(arrays[f"y{i}"]).long())
            for i in range(len(arrays.files) // 2)
        ]
    torch.set_num_threads(int(sys.argv[3]))
    torch.manual_seed(1)
    model = ConvBiLSTM(int(sys.argv[2])).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in sys.stdin:
        start = time.perf_counter()
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 9.0)
            optimizer.step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
