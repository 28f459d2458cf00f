"""PyTorch's side of bench/generation.py, run by an interpreter that has torch (no project import).

    python bench/generation_peer.py INPUTS.npz THREADS

INPUTS has the initial weights, the batches, and the settings. For each line on standard input it
trains on the next batches and prints the seconds and the mean of each loss as JSON. Without
recurrent dropout the loops over the rows are those of nn.LSTM, with it they are in Python.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Cell(nn.Module):
    """An LSTM over (row, batch, feature) with recurrent dropout of the candidates."""

    def __init__(self, kernel: Any, recurrent: Any, bias: Any, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        if not dropout:
            self.lstm = nn.LSTM(kernel.shape[0], recurrent.shape[0])
            with torch.no_grad():
                self.lstm.weight_ih_l0.copy_(kernel.T)
                self.lstm.weight_hh_l0.copy_(recurrent.T)
                self.lstm.bias_ih_l0.copy_(bias)
                self.lstm.bias_hh_l0.zero_().requires_grad_(False)
            return
        self.kernel, self.bias = nn.Parameter(kernel.T.contiguous()), nn.Parameter(bias)
        self.recurrent = nn.Parameter(recurrent.T.contiguous())

    def forward(self, x: Any, h: Any, c: Any) -> Any:
        if not self.dropout:
            return self.lstm(x, (h[None], c[None]))[0]
        found = []
        keep = functional.dropout(torch.ones(*x.shape[:2], h.shape[1]), self.dropout)
        for row, kept in zip(functional.linear(x, self.kernel, self.bias), keep, strict=True):
            i, f, g, o = (row + functional.linear(h, self.recurrent)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * (torch.tanh(g) * kept)
            h = torch.sigmoid(o) * torch.tanh(c)
            found.append(h)
        return torch.stack(found)


class SketchRNN(nn.Module):
    """ostinato/generation/models/sketch_rnn.py with the cell lstm, conditioned in both ways."""

    def __init__(self, w: dict[str, Any], settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings

        def cell(name: str, kernel: Any) -> Cell:
            recurrent, bias = w[f"{name}.recurrent"], w[f"{name}.bias"].clone()
            units = recurrent.shape[0]
            bias[units : 2 * units] += 1
            return Cell(kernel, recurrent, bias, settings["recurrent_dropout"])

        self.directions = nn.ModuleList(
            cell(name, w[f"{name}.kernel"]) for name in ("forward", "backward")
        )
        constant = w["constant_input.kernel"]
        self.cell = cell("decoder", torch.cat([w["decoder.kernel"], constant]))
        for name, of in (
            ("mean", "mean"),
            ("spread", "spread"),
            ("initial", "initial_state"),
            ("outputs", "mixture"),
        ):
            layer = nn.Linear(*w[f"{of}.kernel"].shape)
            with torch.no_grad():
                layer.weight.copy_(w[f"{of}.kernel"].T)
                layer.bias.copy_(w[f"{of}.bias"])
            setattr(self, name, layer)

    def losses(self, rows: Any, labels: Any) -> tuple[Any, Any]:
        """L_R and L_KL of a batch (Ha and Eck 2017)."""
        count, total, _ = rows.shape
        lengths = (1 - rows[..., 4]).sum(1).long().clamp(min=1)
        classes = functional.one_hot(labels, self.settings["classes"]).float()
        position = torch.arange(total)
        back = (lengths[:, None] - 1 - position).clamp(min=0)
        back = torch.where(position < lengths[:, None], back, position)
        last = []
        for number, cell in enumerate(self.directions):
            read = rows.gather(1, back[..., None].expand(-1, -1, 5)) if number else rows
            x = torch.cat([read, classes[:, None].expand(-1, total, -1)], 2).transpose(0, 1)
            zeros = torch.zeros(count, self.settings["encoder_units"])
            last.append(cell(x, zeros, zeros)[lengths - 1, torch.arange(count)])
        features = torch.cat(last, 1)
        mean, spread = self.mean(features), self.spread(features)
        latent = mean + torch.exp(spread / 2) * torch.randn_like(mean)
        kl = -(1 + spread - mean**2 - spread.exp()).mean() / 2
        condition = torch.cat([latent, classes], 1)
        h, c = torch.tanh(self.initial(condition)).chunk(2, 1)
        start = torch.tensor([0.0, 0, 1, 0, 0]).expand(count, 1, 5)
        before = torch.cat([start, rows[:, :-1]], 1)
        x = torch.cat([before, condition[:, None].expand(-1, total, -1)], 2).transpose(0, 1)
        outputs = self.outputs(self.cell(x, h.contiguous(), c.contiguous())).transpose(0, 1)
        return self.nats(rows, outputs).mean() / self.settings["longest"], kl

    def nats(self, rows: Any, outputs: Any) -> Any:
        """The negative log likelihood of each drawing."""
        m = self.settings["mixtures"]
        pen, logits, mx, my, sx, sy, odds = outputs.split([3, *[m] * 6], -1)
        sx, sy = sx.clamp(min=-6), sy.clamp(min=-6)
        x, y = (rows[..., :1] - mx) / sx.exp(), (rows[..., 1:2] - my) / sy.exp()
        rest = 2 * (np.log(2) - odds.abs() - functional.softplus(-2 * odds.abs()))
        square = x * x + y * y - 2 * odds.tanh() * x * y
        density = -square * torch.exp(-rest) / 2 - np.log(2 * np.pi) - sx - sy - rest / 2
        offsets = torch.logsumexp(logits.log_softmax(-1) + density, -1)
        drawn = 1 - rows[..., 4]
        before = torch.cat([torch.ones_like(drawn[:, :1]), drawn[:, :-1]], 1)
        inside = (torch.arange(rows.shape[1]) < self.settings["longest"]).float()
        states = (pen.log_softmax(-1) * rows[..., 2:]).sum(-1)
        return -(drawn * offsets + before * torch.maximum(drawn, inside) * states).sum(1)


def main() -> None:
    """Train a round for each line on standard input."""
    with np.load(sys.argv[1]) as arrays:
        settings = json.loads(str(arrays["settings"]))
        w = {k[2:]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("w ")}
        batches = [
            (torch.from_numpy(arrays[f"rows {i}"]), torch.from_numpy(arrays[f"labels {i}"]).long())
            for i in range(settings["steps"])
        ]
    torch.set_num_threads(int(sys.argv[2]))
    torch.manual_seed(1)
    model = SketchRNN(w, settings).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, settings["learning_rate"], eps=1e-7)
    for _ in sys.stdin:
        start, losses = time.perf_counter(), []
        for rows, labels in batches:
            optimizer.zero_grad()
            reconstruction, kl = model.losses(rows, labels)
            loss = reconstruction + settings["kl_weight"] * kl.clamp(min=settings["kl_tolerance"])
            loss.backward()
            nn.utils.clip_grad_norm_(weights, settings["clip_norm"])
            optimizer.step()
            losses.append([reconstruction.item(), kl.item()])
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, *np.mean(losses, 0).tolist()]), flush=True)


if __name__ == "__main__":
    main()
