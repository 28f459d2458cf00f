"""report.md: computed from the results alone, and honest about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from ostinato import store
from ostinato.evaluation import bootstrap
from ostinato.params import load
from stages import report

N = 400
HISTORY = "epoch,loss,seconds\n1,0.5,61.5\n2,0.25,61.5\n"

Write = Callable[..., None]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "load_study", load)  # its blocks have what a report reads alone
    store.write_json(
        Path("data/toy/manifest.json"),
        {"splits": {"train": {"drawings": 3200}, "test": {"drawings": N}}},
    )
    return tmp_path


def params(**models: str) -> None:
    """A params.yaml with a run for each model, by the run's name."""
    runs = {
        name: {"data": "toy", "domain": "sketches", "model": model, "build": {"units": 8},
               "fit": {"epochs": 2}}
        for name, model in models.items()
    }  # fmt: skip
    fetch = {"source": "doodles", "doodles": {"categories": [f"c{i}" for i in range(99)]}}
    values = {
        "seed": 5,
        "machine": {"precision": "float32"},
        "data": {"toy": {"domain": "sketches", "fetch": fetch, "prepare": {"points": 64}}},
        "scores": {"sketches": {"resamples": 300}},
        "runs": runs,
        "ensembles": {},
    }
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)


def result(
    name: str, right: np.ndarray[Any, Any], keys: np.ndarray[Any, Any] | None = None
) -> None:
    """The files of a run that answered ``right`` (example,)."""
    folder = Path("results", name)
    low, high = bootstrap.interval(bootstrap.bootstrap(right, 300, 5))
    numbers = {
        "samples": len(right), "top1": float(right.mean()), "top1_low": low, "top1_high": high,
        "top5": 0.987, "map3": 0.912, "log_loss": 0.345, "calibration_error": 0.021,
        "parameters": 12345,
    }  # fmt: skip
    store.write_json(folder / "metrics.json", numbers)
    store.write_json(
        folder / "speed.json", {"inference_ms_single": 1.5, "inference_ms_batched": 0.25}
    )
    store.write_text(folder / "history.csv", HISTORY)
    arrays = {
        "keys": np.arange(len(right)).astype(str) if keys is None else keys,
        "rank": np.where(right, 1, 2).astype(np.int32),
    }
    store.write_arrays(folder / "predictions.npz", arrays)
    store.write_bytes(folder / "figures" / "confusion.png", b"png")


def accurate(share: float, seed: int = 0) -> np.ndarray[Any, Any]:
    right = np.arange(N) < share * N
    return np.asarray(np.random.default_rng(seed).permutation(right))


def test_the_same_results_give_the_same_bytes(workspace: Path) -> None:
    params(gru="stacked", cnn="bitmap_cnn")
    result("gru", accurate(0.9))
    result("cnn", accurate(0.8))
    report.main()
    made = [Path("report.md"), *sorted(Path("report").iterdir())]
    first = [path.read_bytes() for path in made]
    assert len(made) == 3
    report.main()
    assert [path.read_bytes() for path in made] == first


def test_every_number_of_a_run_stands_in_its_row_and_the_best_comes_first(workspace: Path) -> None:
    params(floor="nearest", gru="stacked")
    result("floor", accurate(0.5))
    result("gru", accurate(0.75))
    report.main()
    rows = [line for line in Path("report.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| **gru**", "| floor"]
    low, high = bootstrap.interval(bootstrap.bootstrap(accurate(0.75), 300, 5))
    assert rows[2] == (
        f"| **gru** | **0.750 [{low:.3f}, {high:.3f}]** | 0.987 | 0.912 | 0.345 | 0.021 | 12,345 "
        "| 2 min 03 s (2 epochs) | 1.50 / 0.250 | 400 |"
    )


def test_links_lead_to_files_that_exist(workspace: Path) -> None:
    params(gru="stacked", cnn="bitmap_cnn")
    result("gru", accurate(0.9))
    result("cnn", accurate(0.8))
    report.main()
    links = [part.split(")")[0] for part in Path("report.md").read_text().split("](")[1:]]
    assert links == [
        "report/sketches-runs.png",
        "report/sketches-cost.png",
        "results/gru/figures/confusion.png",
        "results/cnn/figures",
    ]
    assert all(Path(link).exists() for link in links)


@pytest.mark.parametrize(
    ("share", "answer", "verdict"),
    [
        (0.9, "Every recurrent run beats cnn.", "gru beats it: +0.100"),
        (0.8, "**No recurrent run beats cnn.**", "gru cannot be told apart: +0.000"),
        (0.6, "**No recurrent run beats cnn.**", "gru is worse: -0.200"),
    ],
)
def test_it_says_whether_the_recurrent_nets_beat_the_baseline(
    workspace: Path, share: float, answer: str, verdict: str
) -> None:
    params(gru="stacked", cnn="bitmap_cnn")
    result("gru", accurate(share, seed=1))
    result("cnn", accurate(0.8, seed=2))
    report.main()
    text = Path("report.md").read_text()
    assert answer in text
    assert verdict in text


def test_runs_are_compared_on_the_examples_that_both_have_by_key(workspace: Path) -> None:
    params(gru="stacked", cnn="bitmap_cnn", other="nearest")
    right, order = accurate(0.9), np.random.default_rng(3).permutation(N)
    result("gru", right)
    result("cnn", right[order][:300], order.astype(str)[:300])  # right and wrong on the same ones
    result("other", right, np.arange(N, 2 * N).astype(str))
    report.main()
    text = Path("report.md").read_text()
    assert "gru cannot be told apart: +0.000 [+0.000, +0.000] top-1 on 300 shared examples" in text
    assert "gru: not comparable, no test example in common" in text


def test_a_missing_result_is_said_and_a_run_that_is_no_longer_wanted_is_not(
    workspace: Path,
) -> None:
    params(gru="stacked", lstm="stacked")
    result("gru", accurate(0.9))
    result("old", accurate(1.0))
    report.main()
    text = Path("report.md").read_text()
    assert "No result yet: lstm" in text
    assert "**gru** is the only run" in text
    assert "old" not in text


def test_without_any_result_it_says_so(workspace: Path) -> None:
    params(gru="stacked")
    report.main()
    assert "No result yet: gru" in Path("report.md").read_text()


def test_it_says_how_each_number_was_made(workspace: Path) -> None:
    params(gru="stacked")
    result("gru", accurate(0.9))
    report.main()
    text = Path("report.md").read_text()
    for part in (
        "Seed 5; precision float32",
        "`python -m stages.train gru`, `python -m stages.evaluate gru`",
        "ostinato/sketches/models/rnn.py on `toy`",
        "build: units 8",
        "fit: epochs 2",
        "source doodles: categories ['c0', 'c1', 'c2'] and 96 more",
        "prepared: points 64",
        "examples: train 3,200, test 400",
    ):
        assert part in text


def test_a_failure_leaves_the_earlier_report(workspace: Path) -> None:
    params(gru="stacked")
    result("gru", accurate(0.9))
    report.main()
    before = Path("report.md").read_bytes()
    Path("results/gru/metrics.json").write_text("{")
    with pytest.raises(json.JSONDecodeError):
        report.main()
    assert Path("report.md").read_bytes() == before
    assert Path("report/sketches-runs.png").exists()
