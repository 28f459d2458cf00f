"""Draw docs/cell-simple.svg, cell-gru.svg and cell-lstm.svg: each cell with the numbers of a step.

    python docs/cells.py

A cell of one unit with one feature reads the sequence `X`. Its equations are those of
`ostinato.memory.formats.cells`; the numbers in the picture are those of step `STEP`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ostinato.memory.formats import cells

DOCS = Path(__file__).parent
X = np.array([[1.0], [-0.5], [0.8], [0.3]])
STEP = 2  # of X, from 0
GATES = {"simple": 1, "gru": 3, "lstm": 4}
STYLE = """
  .paper { fill: #ffffff; } .op { fill: #e6f2f0; stroke: #00796b; }
  .state { fill: #fff4e0; stroke: #b36b00; } path { fill: none; stroke: #00796b; }
  text { fill: #1d2b29; font: 13px Helvetica, Arial, sans-serif; text-anchor: middle; }
  text.name { font-weight: bold; } text.sum { fill: #00695c; font-size: 11px; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #1b2423; } .op { fill: #24403c; stroke: #4db6ac; }
    .state { fill: #40341f; stroke: #ffb74d; } path { stroke: #4db6ac; }
    text { fill: #e4eeec; } text.sum { fill: #80cbc4; }
  }"""
WIDTH, HEIGHT = 132, 50  # of a box
# Boxes: a name of `values`, column, row, equation. An arrow leads from each name of the equation.
LAYOUT: Mapping[str, Sequence[tuple[str, float, float, str, tuple[str, ...]]]] = {
    "simple": (
        ("x", 0, 0, "input", ()),
        ("h", 0, 1, "state before", ()),
        ("state", 1, 0.5, "tanh(w x + u h + b)", ("x", "h")),
    ),
    "gru": (
        ("x", 0, 0, "input", ()),
        ("h", 0, 2, "state before", ()),
        ("reset gate", 1, 0, "r = σ(w x + u h + b)", ("x", "h")),
        ("update gate", 1, 2, "z = σ(w x + u h + b)", ("x", "h")),
        ("candidate", 2, 0, "tanh(w x + r (u h + b))", ("reset gate",)),
        ("state", 3, 1, "z h + (1 - z) candidate", ("update gate", "candidate")),
    ),
    "lstm": (
        ("x", 0, 1, "input", ()),
        ("h", 0, 2, "state before", ()),
        ("output gate", 1, 0, "o = σ(w x + u h + b)", ("x", "h")),
        ("input gate", 1, 1, "i = σ(w x + u h + b)", ("x", "h")),
        ("candidate", 1, 2, "g = tanh(w x + u h + b)", ("x", "h")),
        ("forget gate", 1, 3, "f = σ(w x + u h + b)", ("x", "h")),
        ("c", 1, 4, "cell before", ()),
        ("cell", 2, 2.5, "f c + i g", ("input gate", "candidate", "forget gate", "c")),
        ("state", 3, 1, "o tanh(cell)", ("output gate", "cell")),
    ),
}


def weights(cell: str) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias of a cell with one unit, as Keras has them."""
    gates = GATES[cell]
    kernel = np.linspace(0.9, -0.6, gates)[None] if gates > 1 else np.array([[0.9]])
    recurrent = np.linspace(-0.4, 0.8, gates)[None] if gates > 1 else np.array([[0.7]])
    bias = np.linspace(0.1, 0.4, gates)
    return [kernel, recurrent, np.stack([bias, -bias]) if cell == "gru" else bias]


def values(cell: str) -> dict[str, float]:
    """The numbers of step `STEP`: x, h and c before it, and the values of the equations."""
    states = [np.zeros(1)] * (2 if cell == "lstm" else 1)
    read = cells.read(cell, X, weights(cell), states)
    before = {"x": X[STEP, 0], "h": read["state"][STEP - 1, 0]}
    if cell == "lstm":
        before["c"] = read["cell"][STEP - 1, 0]
    return {**before, **{name: rows[STEP, 0] for name, rows in read.items()}}


def draw(cell: str) -> str:
    """The picture of a cell, as SVG."""
    found = values(cell)
    places = {name: (30 + 200 * x, 24 + 78 * y) for name, x, y, _, _ in LAYOUT[cell]}
    width = max(x for x, _ in places.values()) + WIDTH + 30
    height = max(y for _, y in places.values()) + HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>One step of the {cell} cell with its numbers</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>',
    ]
    for name, _, _, _, sources in LAYOUT[cell]:
        x, y = places[name]
        for source in sources:
            a, b = places[source][0] + WIDTH, places[source][1] + HEIGHT / 2
            c, d = x, y + HEIGHT / 2
            middle = (a + c) / 2
            parts.append(f'<path d="M{a:g} {b:g} C{middle:g} {b:g} {middle:g} {d:g} {c:g} {d:g}"/>')
    for name, _, _, equation, _ in LAYOUT[cell]:
        x, y = places[name]
        kind = "state" if name in ("x", "h", "c", "state", "cell") else "op"
        middle = x + WIDTH / 2
        parts += [
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="name" x="{middle:g}" y="{y + 18:g}">{name} {found[name]:.4f}</text>',
            f'<text class="sum" x="{middle:g}" y="{y + 36:g}">{equation}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the pictures."""
    for cell in LAYOUT:
        (DOCS / f"cell-{cell}.svg").write_text(draw(cell), encoding="utf-8")


if __name__ == "__main__":
    main()
