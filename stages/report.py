"""All results to report.md: ``python -m stages.report``.

Everything in it is computed from params.yaml, results/ and the data sets' manifests; the same
files give the same bytes. The figures that compare runs go to report/.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

from ostinato import params, store
from ostinato.evaluation import figures
from stages import command, load_study

HEAD = """\
# Results

Written by `python -m stages.report`, the last stage of `dvc repro`; an edit here is lost.
"""


class Result(NamedTuple):
    """What is known of a run, or of an ensemble of runs, that was scored."""

    name: str
    run: Mapping[str, Any]  # its entry in params.yaml
    scores: Mapping[str, float]
    speed: Mapping[str, float]
    epochs: list[dict[str, str]]
    folder: Path

    about: ModuleType  # the summary of its domain

    @property
    def answers(self) -> pd.DataFrame:
        """What its predictions were worth, by the example's key."""
        arrays = store.read_arrays(self.folder / "predictions.npz")
        answers: pd.DataFrame = self.about.answers(arrays)
        return answers[~answers.index.duplicated()]


def main() -> None:
    """Write report.md and report/ from the results of the runs in params.yaml."""
    values = load_study()
    domains: dict[str, dict[str, dict[str, Path]]] = {}
    for table, top in (("runs", "results"), ("ensembles", "ensembles")):
        for name, entry in values[table].items():
            sets = domains.setdefault(entry["domain"], {})
            sets.setdefault(entry["data"], {})[name] = Path(top, name)
    parts = [HEAD]
    with store.atomic_folder(Path("report")) as folder:
        for domain, sets in domains.items():
            for data, places in sets.items():
                title = domain if len(sets) == 1 else f"{domain}: {data}"
                parts += _section(values, domain, title, places, folder)
        results = {
            name: result
            for name, run in values["runs"].items()
            if (result := _result(run, Path("results", name)))
        }
        for domain in domains:
            if beside := getattr(params.module(domain, "reporting"), "beside", None):
                parts += beside(results, values["evaluation"][domain], values["seed"])
    store.write_text(Path("report.md"), "\n".join(parts))


def _section(
    values: Mapping[str, Any], domain: str, title: str, places: Mapping[str, Path], folder: Path
) -> Iterator[str]:
    """The paragraphs on a domain's runs on a data set; its figures are written into ``folder``."""
    about = params.module(domain, "reporting")
    entries = {
        **values["runs"],
        **{name: {**entry, "model": "ensemble"} for name, entry in values["ensembles"].items()},
    }
    results = [_result(entries[name], place) for name, place in places.items()]
    sign = 1 if about.LOWER_IS_BETTER else -1
    known = sorted((r for r in results if r), key=lambda r: (sign * r.scores[about.SCORE], r.name))
    lost = [name for name, result in zip(places, results, strict=True) if result is None]
    yield f"## {title.capitalize()}\n"
    if known:
        yield from _table(known)
        yield about.LEGEND
        best, place = known[0], f"the best of {len(known)}" if known[1:] else "the only run"
        yield (
            f"**{best.name}** is {place}: {about.SPOKEN} {_score(best)} on "
            f"{best.scores['samples']:,} test {about.EXAMPLES}.\n"
        )
        yield from _verdicts(known, values["evaluation"][domain], values["seed"])
    if lost:
        yield f"No result yet: {', '.join(lost)} (`dvc repro` makes it).\n"
    if known:
        yield from _pictures(known, title.replace(": ", "-"), folder)
        yield from _makings(values, known)


def _result(run: Mapping[str, Any], folder: Path) -> Result | None:
    about = params.module(run["domain"], "reporting")
    needed = ("metrics.json", "speed.json", "history.csv", "predictions.npz")
    if not all((folder / file).exists() for file in needed):
        return None
    scores, speed = (store.read_json(folder / file) for file in needed[:2])
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return Result(folder.name, run, scores, speed, list(csv.DictReader(file)), folder, about)


def _table(results: list[Result]) -> Iterator[str]:
    about = results[0].about
    head = ["Run", about.NAME, *about.COLUMNS, "Parameters", "Training", "Inference, ms",
            f"Test {about.EXAMPLES}"]  # fmt: skip
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
                *(about.number(s[key]) if key in s else "" for key in about.COLUMNS.values()),
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
    key, number = result.about.SCORE, result.about.number
    value, low, high = (number(result.scores[f"{key}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _verdicts(results: list[Result], block: Mapping[str, Any], seed: int) -> Iterator[str]:
    """Do the others beat the baselines? Paired on the examples that both were tested on."""
    about = results[0].about
    floors = [result for result in results if result.run["model"] in about.BASELINES]
    nets = [result for result in results if result.run["model"] not in about.BASELINES]
    if about.AGAINST_THE_BEST and len(nets) > 1:
        floors.append(nets[0])
    answers = {result.name: result.answers for result in results}
    for floor in floors if nets else []:
        lines, won, rivals = [], 0, [net for net in nets if net is not floor]
        for net in rivals:
            both = answers[net.name].index.intersection(answers[floor.name].index).sort_values()
            if both.empty:
                lines.append(f"- {net.name}: not comparable, no test example in common")
                continue
            ours, theirs = (answers[result.name].loc[both] for result in (net, floor))
            gain, low, high = about.gain(ours, theirs, block, seed)
            won += low > 0
            verdict = "beats it" if low > 0 else "is worse" if high < 0 else "cannot be told apart"
            least, most = (_signed(about.number, value) for value in (low, high))
            lines.append(
                f"- {net.name} {verdict}: {_signed(about.number, gain)} [{least}, {most}] "
                f"{about.GAIN} on {len(both):,} shared {about.EXAMPLES}"
            )
        answer = f"{won} of {len(rivals)} {about.OTHERS}s beat {floor.name}."
        if won == len(rivals):
            answer = f"Every {about.OTHERS} beats {floor.name}."
        elif won == 0 and floor is nets[0]:
            answer = f"No other {about.OTHERS} beats {floor.name}, the best."
        elif won == 0:
            answer = f"**No {about.OTHERS} beats {floor.name}.**"
        yield f"{answer} The difference, paired, with its 95% interval:\n"
        yield "\n".join([*lines, ""])


def _signed(number: Callable[[float], str], value: float) -> str:
    text = number(value)
    return text if text.startswith("-") else f"+{text}"


def _pictures(results: list[Result], stem: str, folder: Path) -> Iterator[str]:
    about = results[0].about
    runs = pd.DataFrame(
        {
            "run": [r.name for r in results],
            "score": [r.scores[about.SCORE] for r in results],
            "low": [r.scores[f"{about.SCORE}_low"] for r in results],
            "high": [r.scores[f"{about.SCORE}_high"] for r in results],
            "inference_ms": [r.speed["inference_ms_single"] for r in results],
            "parameters": [r.scores["parameters"] for r in results],
        }
    )
    drawn = {"runs": figures.comparison, "cost": figures.tradeoff}
    for title, draw in drawn.items():
        store.write_figure(
            folder / f"{stem}-{title}.png", draw(runs, about.AXIS, about.LOWER_IS_BETTER)
        )
        yield f"![{title}](report/{stem}-{title}.png)\n"
    best = results[0]
    yield f"### {best.name}\n"
    for name, title in about.FIGURES.items():
        if (path := best.folder / "figures" / f"{name}.png").exists():
            yield f"![{title}]({path.as_posix()})\n"
    others = [f"[{r.name}]({r.folder.as_posix()}/figures)" for r in results[1:]]
    if others:
        yield f"The same figures of the other runs: {', '.join(others)}.\n"


def _makings(values: Mapping[str, Any], results: list[Result]) -> Iterator[str]:
    yield "### How each number was made\n"
    machine = _plain(values["runtime"])
    yield f"Seed {values['seed']}; {machine}. `dvc repro` runs these, where they are out of date:\n"
    for data in dict.fromkeys(r.run["data"] for r in results):
        block = values["data"][data]
        source = block["fetch"]["source"]
        yield f"- data `{data}`: `python -m stages.fetch {data}`, `python -m stages.prepare {data}`"
        yield f"  - source {source}: {_plain(block['fetch'][source])}"
        yield f"  - prepared: {_plain(block['prepare'])}"
        if (path := Path("data", data, "manifest.json")).exists():
            splits = store.read_json(path)["splits"].items()
            counts = (f"{split} {next(iter(numbers.values())):,}" for split, numbers in splits)
            yield f"  - examples: {', '.join(counts)}"
    for name, run in ((result.name, result.run) for result in results):
        if name in values["ensembles"]:
            members = ", ".join(f"`{member}`" for member in run["members"])
            yield f"- `{name}`: `python -m stages.ensemble {name}`"
            yield f"  - {run['combine']} of {members}"
            continue
        yield f"- `{name}`: `python -m stages.train {name}`, `python -m stages.evaluate {name}`"
        yield f"  - ostinato/{run['domain']}/{run['model']}.py on `{run['data']}`"
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
