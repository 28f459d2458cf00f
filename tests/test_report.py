"""report.md: computed from the results only, and plain about which run wins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from ostinato import store
from ostinato.errors import EvaluationError
from ostinato.evaluation import undefined
from ostinato.evaluation.classification import TOP1
from ostinato.evaluation.comparison import metric_interval
from ostinato.study import Study
from ostinato.task import PerExample
from stages import report

N = 400
HISTORY = "epoch,loss,seconds\n1,0.5,61.5\n2,0.25,61.5\n"
STUDY = Path("params.yaml")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_report(gates: dict[str, Any] | None = None, /, **models: str) -> str:
    """The report of a study with a run for each model, by the run's name."""
    runs = {
        name: {"data": "drawings", "domain": "sketches", "model": model}
        for name, model in models.items()
    }
    values = {
        "root": ".", "at": "", "seed": 5, "data": {"drawings": {"domain": "sketches"}},
        "evaluation": {"sketches": {"resamples": 300}}, "runs": runs, "ensembles": {},
        "gates": gates or {},
    }  # fmt: skip
    with STUDY.open("w") as file:
        YAML().dump(values, file)
    report.write(Study.load(STUDY))
    return Path("report.md").read_text()


def result(
    name: str, right: np.ndarray[Any, Any], keys: np.ndarray[Any, Any] | None = None
) -> tuple[float, float]:
    """Write the files of a run that classified ``right`` (example,); return its interval."""
    folder = Path("results", name)
    keys = np.arange(len(right)).astype(str) if keys is None else keys
    rows = np.stack([right, np.ones(len(right))], axis=1).astype(float)
    results = PerExample(keys, np.arange(len(right)), {"top1": rows})
    low, high = metric_interval(results, TOP1, resamples=300, seed=5)
    numbers = {
        "samples": len(right), "top1": float(right.mean()), "top1_low": low, "top1_high": high,
        "top5": 0.987, "map3": 0.912, "log_loss": 0.345, "calibration_error": 0.021,
        "parameters": 12345, "validation_top1": float(right.mean()),
    }  # fmt: skip
    store.write_json(folder / "metrics.json", numbers)
    speed = {"inference_ms_single": 1.5, "inference_ms_batched": 0.25}
    store.write_json(folder / "speed.json", speed)
    store.write_text(folder / "history.csv", HISTORY)
    arrays = {
        "keys": keys,
        "truth": np.zeros(len(right), np.int32),
        "rank": np.where(right, 1, 2).astype(np.int32),
        "likelihood": np.where(right, 0.9, 0.1),
        "probabilities": np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]]).astype(np.float16),
    }
    store.write_arrays(folder / "predictions.npz", arrays)
    store.write_bytes(folder / "figures" / "confusion.png", b"png")
    return low, high


def accurate(share: float, seed: int = 0) -> np.ndarray[Any, Any]:
    right = np.arange(N) < share * N
    return np.asarray(np.random.default_rng(seed).permutation(right))


def test_the_same_results_give_the_same_bytes() -> None:
    result("gru", accurate(0.9))
    result("cnn", accurate(0.8))
    files: dict[Path, bytes] = {}
    for _ in range(2):
        write_report(gru="rnn", cnn="bitmap_cnn")
        written = [Path("report.md"), *sorted(Path("report").iterdir())]
        assert len(written) == 3
        for path in written:
            content = path.read_bytes()
            assert files.setdefault(path, content) == content


def test_each_run_has_a_row_with_its_numbers_and_the_best_is_first() -> None:
    result("floor", accurate(0.5))
    low, high = result("gru", accurate(0.75))
    text = write_report(floor="nearest", gru="rnn")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| **gru**", "| floor"]
    assert rows[2] == (
        f"| **gru** | 0.750 | **0.750 [{low:.3f}, {high:.3f}]** | 0.987 | 0.912 "
        "| 0.345 | 0.021 | 12,345 | 123 s | 1.50 / 0.250 |"
    )


def test_the_best_on_the_validation_split_is_named_even_where_another_wins_on_test() -> None:
    for name, share, validation in (("gru", 0.7, 0.9), ("lstm", 0.8, 0.6)):
        result(name, accurate(share))
        numbers = store.read_json(Path("results", name, "metrics.json"))
        numbers["validation_top1"] = validation
        store.write_json(Path("results", name, "metrics.json"), numbers)
    text = write_report(gru="rnn", lstm="rnn")
    assert "**gru** is the best of 2 on the validation split." in text
    assert text.index("| **gru** | 0.900 |") < text.index("| lstm | 0.600 |")


def test_a_gate_decides_by_which_metric_and_interval_runs_are_compared() -> None:
    for name, share in (("gru", 0.9), ("cnn", 0.8)):
        result(name, accurate(share))
        numbers = store.read_json(Path("results", name, "metrics.json"))
        loss = float(-share * np.log(0.9) - (1 - share) * np.log(0.1))
        numbers |= {"log_loss": loss, "validation_log_loss": loss}
        store.write_json(Path("results", name, "metrics.json"), numbers)
    gate = {
        "metric": "log_loss", "at_most": 1.0, "margin": 0.0, "confidence": 0.9,
        "resamples": 100, "max_examples": 10, "approval": False,
    }  # fmt: skip
    text = write_report({"drawings": gate}, gru="rnn", cnn="bitmap_cnn")
    assert "Paired differences of Log loss with 90% intervals" in text
    assert "| Run | Log loss, validation | Log loss | Top-1 accuracy |" in text


def test_links_lead_to_files_that_exist() -> None:
    result("gru", accurate(0.9))
    store.write_text(Path("results", "gru", "figures", "mistakes.svg"), "<svg/>")
    result("cnn", accurate(0.8))
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    names = ("runs.png", "confusion.png", "mistakes.svg")
    assert links == ["params.yaml", *(f"report/drawings-{name}" for name in names)]
    assert all(Path(link).exists() for link in links)


@pytest.mark.parametrize(
    ("share", "answer", "verdict"),
    [
        (0.95, "Every recurrent network beats cnn.", "gru is better: +0.1"),
        (0.6, "**No recurrent network beats cnn.**", "gru is worse: -0.2"),
        (0.8, "**No recurrent network beats cnn.**", "gru is no better: +0.0"),
    ],
)
def test_the_report_says_whether_a_network_beats_the_baseline(
    share: float, answer: str, verdict: str
) -> None:
    result("gru", accurate(share))
    result("cnn", accurate(0.8, seed=1 if share == 0.8 else 0))
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    assert answer in text
    assert verdict in text


def test_a_metric_that_no_run_has_is_left_out_and_another_has_the_reason() -> None:
    for name, names in (("gru", ["top5", "map3"]), ("cnn", ["top5"])):
        result(name, accurate(0.9))
        folder = Path("results", name)
        reasons = dict.fromkeys(names, "the reason")
        numbers = store.read_json(folder / "metrics.json") | dict.fromkeys(names)
        store.write_json(folder / "metrics.json", numbers)
        store.write_table(folder / "tables" / "undefined.csv", undefined.to_table(reasons))
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    assert "Top-5 accuracy" not in text.split("Top-k")[0]
    assert "n/a: MAP@3 is not defined for gru: the reason." in text


def test_a_baseline_without_the_primary_metric_is_compared_by_another_mean_over_examples() -> None:
    for name in ("gru", "cnn"):
        result(name, accurate(0.9 if name == "cnn" else 0.6))
    file = Path("results/cnn/metrics.json")
    numbers = store.read_json(file) | {"top1": None, "log_loss_low": 0.3, "log_loss_high": 0.4}
    store.write_json(file, numbers)
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    assert "**No recurrent network beats cnn.** Paired differences of Log loss" in text
    assert "gru is worse: -0.6" in text


def test_runs_are_compared_on_the_examples_of_both_by_key() -> None:
    right = accurate(0.9)
    keys = np.arange(N).astype(str)
    result("gru", right)
    result("cnn", right[::-1][:300], keys[::-1][:300])  # the same answers to 300 of the examples
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    assert "gru is no better: +0.000 [+0.000, +0.000] on 300 drawings" in text


def test_a_missing_result_is_named() -> None:
    result("gru", accurate(0.9))
    assert "No result yet: cnn." in write_report(gru="rnn", cnn="bitmap_cnn")
    Path("results/cnn/model").mkdir(parents=True)
    assert "No result yet: cnn." in write_report(gru="rnn", cnn="bitmap_cnn")


@pytest.mark.parametrize(
    "lost", ["metrics.json", "speed.json", "history.csv", "predictions.npz", "all but metrics.json"]
)
def test_half_of_a_result_is_an_error(lost: str) -> None:
    write_report(cnn="bitmap_cnn")
    before = Path("report.md").read_bytes()
    result("cnn", accurate(0.8))
    result("gru", accurate(0.9))
    files = ["speed.json", "history.csv", "predictions.npz"] if lost.startswith("all") else [lost]
    for file in files:
        Path("results/gru", file).unlink()
    missing = ", ".join(files)
    with pytest.raises(
        EvaluationError, match=rf"results/gru: .*but no {missing}; .*dvc repro evaluate@gru"
    ):
        write_report(gru="rnn", cnn="bitmap_cnn")
    assert Path("report.md").read_bytes() == before


def test_a_test_split_of_one_cluster_has_no_intervals_and_no_comparison() -> None:
    for name in ("gru", "cnn"):
        result(name, accurate(0.9))
        folder = Path("results", name)
        numbers = store.read_json(folder / "metrics.json")
        del numbers["top1_low"], numbers["top1_high"]
        store.write_json(folder / "metrics.json", numbers)
        arrays = store.read_arrays(folder / "predictions.npz")
        store.write_arrays(folder / "predictions.npz", {k: v[:1] for k, v in arrays.items()})
    text = write_report(gru="rnn", cnn="bitmap_cnn")
    assert "| 0.900 | **0.900** |" in text
    assert "No comparison with cnn: bootstrap: all examples are in one cluster" in text
    assert Path("report/drawings-runs.png").exists()


def test_the_figures_of_the_best_result_are_named_by_their_folder() -> None:
    result("gru", accurate(0.9))
    assert "`results/gru/figures/`" in write_report(gru="rnn")


def test_the_last_lines_have_the_best_score_its_baseline_and_where_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    low, high = result("gru", accurate(0.9))
    result("floor", accurate(0.5))
    write_report(gru="rnn", floor="nearest")
    study = Study.load(STUDY)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, header, line, *rest = report.closing_lines(study, report.write(study))
    assert header.split("  ")[-1] == "baseline"
    assert line == (f"  drawings  gru: Top-1 accuracy 0.900 [{low:.3f}, {high:.3f}]  floor: 0.500")
    assert rest == [
        "",
        "Report: report.md",
        "MLflow: mlflow ui --backend-store-uri sqlite:///mlflow.db",
        "        then http://127.0.0.1:5000/#/experiments?workflowType=machine_learning",
    ]
    for address, shown in (
        ("http://me:hunter2@host:5000", "MLflow: http://***@host:5000"),
        ("sqlite:////tmp/a.db", "MLflow: mlflow ui --backend-store-uri sqlite:////tmp/a.db"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert shown in report.closing_lines(study, [])
