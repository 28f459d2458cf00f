"""The PyTorch implementation for bench/video.py; it imports nothing of the project.

    python bench/video_peer.py MODEL MODE THREADS BATCH FRAMES HEIGHT WIDTH CLASSES

MODEL is c3d or cnn_rnn, MODE training or inference. For each line of standard input it runs one
step and prints the seconds of the step.
"""

import sys
import time

import torch
from torch import nn

FILTERS = (16, 32, 64)


class Spatial(nn.Module):
    """The network of ostinato/video/models/c3d.py."""

    def __init__(self, height: int, width: int, classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for stage, (before, after) in enumerate(zip((1, *FILTERS), FILTERS, strict=False)):
            parts += [nn.Conv3d(before, after, 3, padding=1, bias=False), nn.BatchNorm3d(after)]
            parts += [nn.ReLU(), nn.MaxPool3d((2 if stage else 1, 2, 2))]
        self.body = nn.Sequential(*parts)
        size = FILTERS[-1] * (height // 8) * (width // 8)
        self.head = nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channel, frame, height, width) to logits (batch, class)."""
        return self.head(self.body(x).mean(2).flatten(1))


class Recurrent(nn.Module):
    """The network of ostinato/video/models/cnn_rnn.py with a GRU, frames folded into the batch."""

    def __init__(self, frames: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip((1, *FILTERS), FILTERS, strict=False):
            parts += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
            parts += [nn.ReLU(), nn.MaxPool2d(2)]
        size = FILTERS[-1] * (height // 8) * (width // 8)
        self.frames = frames
        self.body = nn.Sequential(*parts, nn.Flatten(), nn.Linear(size, 64), nn.ReLU())
        self.gru = nn.GRU(64, 64, batch_first=True)
        self.head = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch * frame, channel, height, width) to logits (batch, class)."""
        features = self.body(x).view(-1, self.frames, 64)
        return self.head(self.gru(features)[1][0])


def main() -> None:
    name, mode = sys.argv[1:3]
    threads, batch, frames, height, width, classes = map(int, sys.argv[3:])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    if name == "c3d":
        model: nn.Module = Spatial(height, width, classes)
        x = torch.rand(batch, 1, frames, height, width)
        layout = torch.channels_last_3d
    else:
        model = Recurrent(frames, height, width, classes)
        x = torch.rand(batch * frames, 1, height, width)
        layout = torch.channels_last
    model, x = model.to(memory_format=layout), x.contiguous(memory_format=layout)
    y = torch.randint(classes, (batch,))
    model.train(mode == "training")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in sys.stdin:
        began = time.perf_counter()
        if mode == "training":
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        else:
            with torch.inference_mode():
                model(x).softmax(-1)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
