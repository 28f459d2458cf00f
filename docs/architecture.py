"""Draw docs/architecture.svg: the packages by layer, each with what it imports.

    python docs/architecture.py

The imports are read from the modules. A module that imports a higher layer is an error.
"""

import ast
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = (
    {
        "flows": "Prefect: when something runs, and why",
        "stages": "what DVC runs: files in, files out",
        "api, cli": "from Python, from a terminal",
    },
    {
        "sketches": "drawings",
        "forecasting": "series",
        "translation": "parallel text",
        "video": "clips",
        "generation": "new drawings",
        "music": "chords in time",
        "memory": "memory tasks",
    },
    {
        "tracking": "MLflow: runs, registry",
        "serving": "HTTP server, batches, page",
        "monitoring": "drift and quality in use",
        "study": "params.yaml, models, gates",
    },
    {
        "training": "loop, steps, devices",
        "data": "shards, profiles, drift",
        "decoding": "beam search, sampling",
        "evaluation": "intervals, comparison",
    },
    {"task": "the contract, params, units, store, errors"},
)
STUDY = {"study", "models", "promotion", "inputs"}  # single modules of ostinato/; the others: task
BASE = "task"  # imported by all
WIDTH, GAP = 960, 40  # of the picture, between two layers
STYLE = """
  .paper { fill: #ffffff; } .box { fill: #e6f2f0; stroke: #00796b; } .arrow { fill: #00796b; }
  text { fill: #1d2b29; font: 13px Helvetica, Arial, sans-serif; text-anchor: middle; }
  text.name { font-size: 17px; font-weight: bold; } text.imports { fill: #00695c; font-size: 12px; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #1b2423; } .box { fill: #24403c; stroke: #4db6ac; } .arrow { fill: #4db6ac; }
    text { fill: #e4eeec; } text.imports { fill: #80cbc4; }
  }"""


def box_of(module: str) -> str:
    """The box of a module, such as "training" of ostinato.training.trainer."""
    top, *rest = module.split(".")
    if top != "ostinato" or not rest:
        return BASE if top == "ostinato" else top
    if rest[0] in ("api", "cli", "doctor", "__main__"):
        return "api, cli"
    if (ROOT / "ostinato" / rest[0]).is_dir():
        return rest[0]
    return "study" if rest[0] in STUDY else BASE


def imports(source: str) -> Iterator[str]:
    """The modules of the project that a module imports, at its top or within functions."""
    for statement in ast.walk(ast.parse(source)):
        names = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
        yield from (name for name in names if name.split(".")[0] in ("flows", "stages", "ostinato"))


def edges() -> set[tuple[str, str]]:
    """The imports from one box to another."""
    found = set()
    for folder in ("flows", "stages", "ostinato"):
        for file in (ROOT / folder).rglob("*.py"):
            here = box_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
            source = file.read_text(encoding="utf-8")
            found |= {(here, box_of(module)) for module in imports(source)}
    return {(a, b) for a, b in found if a != b}


def problems(found: set[tuple[str, str]]) -> list[str]:
    """Packages without a layer, and imports of a higher layer."""
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    lines = [f"no layer for {name}" for name in sorted({n for e in found for n in e} - set(level))]
    upward = [(a, b) for a, b in sorted(found) if level.get(a, 0) > level.get(b, len(LAYERS))]
    return lines + [f"{a} imports {b}, which is in a higher layer" for a, b in upward]


def box_lines(
    name: str, note: str, found: set[tuple[str, str]], width: float
) -> list[tuple[str, str]]:
    """The lines of a box, each with its kind: the name, a note, the imports."""
    targets = ", ".join(sorted(b for a, b in found if a == name and b != BASE))
    wrapped = textwrap.wrap(f"imports {targets}", int(width / 6.2)) if targets else []
    return [("name", name), ("note", note), *(("imports", text) for text in wrapped)]


def draw() -> str:
    """The picture as SVG."""
    found, shapes, y = edges(), [], 20
    for number, layer in enumerate(LAYERS):
        width = (WIDTH - 24) / len(layer) - 16
        boxes = [box_lines(name, note, found, width) for name, note in layer.items()]
        height = 22 + 19 * max(map(len, boxes))
        for place, lines in enumerate(boxes):
            x = 20 + place * (width + 16)
            shapes.append(
                f'<rect class="box" x="{x:g}" y="{y}" width="{width:g}" height="{height}" rx="6"/>'
            )
            shapes += [
                f'<text class="{kind}" x="{x + width / 2:g}" y="{y + 25 + 19 * row}">{line}</text>'
                for row, (kind, line) in enumerate(lines)
            ]
        y += height
        if number + 1 < len(LAYERS):
            tip = f"{WIDTH / 2 + 12:g} {y + 26} {WIDTH / 2:g} {y + 35} {WIDTH / 2 - 12:g} {y + 26}"
            stem = f'x="{WIDTH / 2 - 4:g}" y="{y + 6}" width="8" height="21"'
            shapes.append(f'<rect class="arrow" {stem}/><polygon class="arrow" points="{tip}"/>')
            y += GAP
    legend = "A layer imports the layers below it, never one above. All import task."
    shapes.append(f'<text x="{WIDTH / 2:g}" y="{y + 26}">{legend}</text>')
    body = "\n".join(shapes)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 44}" role="img">
<title>Ostinato's packages by layer, each with the packages that it imports</title>
<style>{STYLE}
</style>
<rect class="paper" width="{WIDTH}" height="{y + 44}" rx="10"/>
{body}
</svg>
"""


if __name__ == "__main__":
    if wrong := problems(edges()):
        sys.exit("\n".join(["docs/architecture.py:", *wrong]))
    (ROOT / "docs" / "architecture.svg").write_text(draw(), encoding="utf-8")
