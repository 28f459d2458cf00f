"""All results to report.md: ``python -m stages.report``.

Everything in it is computed from params.yaml, results/ and the data sets' manifests; the same
files give the same bytes. The figures that compare runs go to report/.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sequences import figures, metrics, params, store
from stages import command

# Models without recurrence: what the recurrent ones have to beat.
BASELINES = ("bitmap_cnn", "nearest")
FIGURES = {  # of the best run, in this order, where they are there
    "learning_curves": "Learning curves",
    "confusion": "What is taken for what",
    "mistakes": "The surest mistakes",
    "progress": "Recognised while being drawn",
    "calibration": "Confidence against accuracy",
    "per_class": "Each class",
}
HEAD = """\
# Results

Written by `python -m stages.report`, the last stage of `dvc repro`; an edit here is lost.
"""
LEGEND = """\
Top-1, top-5: share of the test examples whose class is the first, among the first five. In
brackets: 95% interval (bootstrap over test examples). MAP@3: mean of 1/rank, 0 beyond 3. Log loss
in nats. Calibration error: mean gap between confidence and accuracy. Training: wall time of all
epochs. Inference: milliseconds an example, one by one / in batches. Times are this machine's.
"""


class Result(NamedTuple):
    """What is known of a run that was scored."""

    name: str
    run: Mapping[str, Any]  # its entry in params.yaml
    scores: Mapping[str, float]
    speed: Mapping[str, float]
    epochs: list[dict[str, str]]
    folder: Path

    @property
    def right(self) -> "pd.Series[float]":
        """1 where the prediction was right, 0 where not, by the example's key."""
        arrays = store.read_arrays(self.folder / "predictions.npz")
        right = pd.Series(arrays["rank"] == 1, arrays["keys"], dtype=float)
        return right[~right.index.duplicated()]


def main() -> None:
    """Write report.md and report/ from the results of the runs in params.yaml."""
    values = params.load()
    domains: dict[str, list[str]] = {}
    for name, run in values["runs"].items():
        domains.setdefault(run["domain"], []).append(name)
    with store.atomic_folder(Path("report")) as folder:
        parts = [line for d, names in domains.items() for line in _domain(values, d, names, folder)]
    store.write_text(Path("report.md"), "\n".join([HEAD, *parts]))


def _domain(
    values: Mapping[str, Any], domain: str, names: list[str], folder: Path
) -> Iterator[str]:
    """The paragraphs on the runs of a domain; its figures are written into ``folder``."""
    results = [_result(name, values["runs"][name]) for name in names]
    known = sorted((r for r in results if r), key=lambda r: (-r.scores["top1"], r.name))
    lost = [name for name, result in zip(names, results, strict=True) if result is None]
    yield f"## {domain.capitalize()}\n"
    if known:
        yield from _table(known)
        yield LEGEND
        best = known[0]
        yield (
            f"**{best.name}** is the best of {len(known)}: top-1 {_score(best)} on "
            f"{best.scores['samples']:,} test examples.\n"
        )
        yield from _verdicts(known, values["scores"][domain]["resamples"], values["seed"])
    if lost:
        yield f"No result yet: {', '.join(lost)} (`dvc repro` makes it).\n"
    if known:
        yield from _pictures(known, domain, folder)
        yield from _makings(values, known)


def _result(name: str, run: Mapping[str, Any]) -> Result | None:
    folder = Path("results", name)
    needed = ("metrics.json", "speed.json", "history.csv", "predictions.npz")
    if not all((folder / file).exists() for file in needed):
        return None
    scores, speed = (store.read_json(folder / file) for file in needed[:2])
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return Result(name, run, scores, speed, list(csv.DictReader(file)), folder)


def _table(results: list[Result]) -> Iterator[str]:
    head = ["Run", "Top-1", "Top-5", "MAP@3", "Log loss", "Calibration error", "Parameters",
            "Training", "Inference, ms", "Test examples"]  # fmt: skip
    yield _row(head)
    yield _row(["---", *["---:"] * (len(head) - 1)])
    for place, result in enumerate(results):
        s, speed = result.scores, result.speed
        minutes, seconds = divmod(round(sum(float(e["seconds"]) for e in result.epochs)), 60)
        epochs = "1 epoch" if len(result.epochs) == 1 else f"{len(result.epochs)} epochs"
        yield _row(
            [
                result.name if place else f"**{result.name}**",
                _score(result) if place else f"**{_score(result)}**",
                *(f"{s[key]:.3f}" for key in ("top5", "map3", "log_loss", "calibration_error")),
                f"{s['parameters']:,}",
                f"{minutes} min {seconds:02} s ({epochs})",
                f"{speed['inference_ms_single']:.2f} / {speed['inference_ms_batched']:.3f}",
                f"{s['samples']:,}",
            ]
        )
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(result: Result) -> str:
    s = result.scores
    return f"{s['top1']:.3f} [{s['top1_low']:.3f}, {s['top1_high']:.3f}]"


def _verdicts(results: list[Result], resamples: int, seed: int) -> Iterator[str]:
    """Do the recurrent models beat the others? Paired on the examples that both were tested on."""
    floors = [result for result in results if result.run["model"] in BASELINES]
    nets = [result for result in results if result.run["model"] not in BASELINES]
    right = {result.name: result.right for result in results}
    for floor in floors if nets else []:
        lines, won = [], 0
        for net in nets:
            both = right[net.name].index.intersection(right[floor.name].index).sort_values()
            if both.empty:
                lines.append(f"- {net.name}: not comparable, no test example in common")
                continue
            ours, theirs = (right[result.name][both].to_numpy() for result in (net, floor))
            gain = float(np.mean(ours - theirs))
            low, high = metrics.interval(metrics.paired_bootstrap(ours, theirs, resamples, seed))
            won += low > 0
            verdict = "beats it" if low > 0 else "is worse" if high < 0 else "cannot be told apart"
            lines.append(
                f"- {net.name} {verdict}: {gain:+.3f} [{low:+.3f}, {high:+.3f}] top-1 "
                f"on {len(both):,} shared examples"
            )
        answer = f"{won} of {len(nets)} recurrent runs beat {floor.name}."
        if won == len(nets):
            answer = f"Every recurrent run beats {floor.name}."
        elif won == 0:
            answer = f"**No recurrent run beats {floor.name}.**"
        yield f"{answer} The difference, paired, with its 95% interval:\n"
        yield "\n".join([*lines, ""])


def _pictures(results: list[Result], domain: str, folder: Path) -> Iterator[str]:
    runs = pd.DataFrame(
        {
            "run": [r.name for r in results],
            "score": [r.scores["top1"] for r in results],
            "low": [r.scores["top1_low"] for r in results],
            "high": [r.scores["top1_high"] for r in results],
            "inference_ms": [r.speed["inference_ms_single"] for r in results],
            "parameters": [r.scores["parameters"] for r in results],
        }
    )
    drawn = {"runs": figures.comparison, "cost": figures.tradeoff}
    for title, draw in drawn.items():
        store.write_figure(folder / f"{domain}-{title}.png", draw(runs, "top-1 accuracy"))
        yield f"![{title}](report/{domain}-{title}.png)\n"
    best = results[0]
    yield f"### {best.name}\n"
    for stem, title in FIGURES.items():
        if (path := best.folder / "figures" / f"{stem}.png").exists():
            yield f"![{title}]({path.as_posix()})\n"
    others = [f"[{r.name}]({r.folder.as_posix()}/figures)" for r in results[1:]]
    if others:
        yield f"The same figures of the other runs: {', '.join(others)}.\n"


def _makings(values: Mapping[str, Any], results: list[Result]) -> Iterator[str]:
    yield "### How each number was made\n"
    machine = _plain(values["machine"])
    yield f"Seed {values['seed']}; {machine}. `dvc repro` runs these, where they are out of date:\n"
    for data in dict.fromkeys(r.run["data"] for r in results):
        block = values["data"][data]
        source = block["fetch"]["source"]
        yield f"- data `{data}`: `python -m stages.fetch {data}`, `python -m stages.prepare {data}`"
        yield f"  - source {source}: {_plain(block['fetch'][source])}"
        yield f"  - prepared: {_plain(block['prepare'])}"
        if (path := Path("data", data, "manifest.json")).exists():
            splits = store.read_json(path)["splits"].items()
            counts = (f"{split} {numbers['drawings']:,}" for split, numbers in splits)
            yield f"  - examples: {', '.join(counts)}"
    for name, run in ((result.name, result.run) for result in results):
        yield f"- `{name}`: `python -m stages.train {name}`, `python -m stages.evaluate {name}`"
        yield f"  - sequences/{run['domain']}/{run['model']}.py on `{run['data']}`"
        yield f"  - build: {_plain(run['build'])}"
        yield f"  - fit: {_plain(run['fit'])}"
    yield ""


def _plain(block: Mapping[str, Any]) -> str:
    """``key value, key value``; long lists are cut."""
    return ", ".join(
        f"{key} {value[:3]} and {len(value) - 3} more"
        if isinstance(value, list) and len(value) > 30
        else f"{key} {value}"
        for key, value in (block or {}).items()
    )


if __name__ == "__main__":
    command(main)
