"""The results of a search: the best entry, the table of trials, and the figures."""

import re
import textwrap
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.trial import FrozenTrial
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from flows.engine.search import Search, decode_params, state_of
from flows.engine.search_tracking import log_and_continue, log_trial, mlflow_run
from ostinato import store
from ostinato.errors import FlowError
from ostinato.tracking import client as mlflow_store


def conclude(search: Search) -> dict[str, Any]:
    """Write the best entry, the table and the figures; log the search to MLflow.

    Raises:
        FlowError: no trial was trained to its end.
    """
    study, folder = search.optuna_study, search.folder / "report"
    finished = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and state_of(trial) != "superfluous"
    ]
    for trial in finished:
        if not log_trial(search, trial, state_of(trial), trial.user_attrs.get("history", [])):
            break
    ended = [trial for trial in finished if state_of(trial) != "killed"]
    rows = [row_of(trial) for trial in ended]
    artifact = re.sub("[^a-z0-9]+", "-", f"tune-{search.name.lower()}")  # as Prefect allows it
    create_table_artifact(
        [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows],
        key=artifact,
        description=f"Trials of `{search.name}`",
    )
    counts = Counter(row["state"] for row in rows)
    if not counts["complete"]:
        reasons = Counter(row["note"] for row in rows if row["state"] == "failed")
        text = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(1))
        raise FlowError(f"search {search.name}: none of {len(rows)} trials completed; {text}")
    best = study.best_trial
    text = best_entry(search, best, ", ".join(f"{n} {state}" for state, n in counts.most_common()))
    with FileLock(search.folder.parent / "lock"), store.atomic_folder(folder) as written:
        store.write_text(written / "best.yaml", text)
        store.write_table(written / "trials.csv", pd.DataFrame(rows))
        write_figures(search, ended, written)
    with log_and_continue(), mlflow_store.connected() as client:
        key = mlflow_run(client, search).info.run_id
        client.log_artifacts(key, str(folder))
        client.log_metric(key, search.objective, best.value)
    path = folder / "best.yaml"
    create_markdown_artifact(
        f"# Best of `{search.name}`\n\nTrial {best.number}: {search.objective} {best.value:.6g}. "
        f"Paste the entry under `runs:` in {search.study.path} (it is in {path} too).\n\n"
        f"```yaml\n{text}```\n",
        key=f"{artifact}-best",
        description=f"Best of `{search.name}`",
    )
    get_run_logger().info("best of %d trials: trial %d: %s", len(rows), best.number, path)
    return {
        "name": search.name,
        "trials": len(rows),
        "best": best.number,
        search.objective: best.value,
        "entry": str(path),
    }


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's row of the table."""
    history, attributes = trial.user_attrs.get("history", []), trial.user_attrs
    twin = f"equals trial {attributes['same_as']}" if "same_as" in attributes else ""
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "value": trial.value,
        "epochs": len(history),
        "best epoch": history[-1]["best"] if history else None,
        **decode_params(trial.params),
        "seconds": round(sum(record.get("seconds", 0) for record in history)),
        "note": attributes.get("error", twin),
    }


def best_entry(search: Search, best: FrozenTrial, counts: str) -> str:
    """The best trial's entry for params.yaml, indented as under `runs:`, with a comment.

    Args:
        search: of the trial.
        best: the trial.
        counts: of the trials by state, in words.
    """
    name = f"{search.run}-tuned"
    epoch = best.user_attrs["history"][-1]["best"]
    about = (
        f"Found by `tune`: trial {best.number} of search {search.name} ({counts}), "
        f"{search.sampler} over {', '.join(search.space)}. {search.objective} {best.value:.4f} in "
        f"epoch {epoch}; `dvc repro {search.study.stage('train', name)}` reproduces it."
    )

    def in_flow_style(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: in_flow_style(inner) for key, inner in value.items()}
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        return value

    stream = StringIO()
    YAML().dump({name: in_flow_style(search.entry(best.params))}, stream)
    comment = textwrap.fill(about, 96, initial_indent="# ", subsequent_indent="# ")
    return textwrap.indent(f"{comment}\n{stream.getvalue()}", "  ")


def write_figures(search: Search, ended: list[FrozenTrial], folder: Path) -> None:
    """Draw the trials that have ended."""
    from flows.engine import tuning_figures

    values = [np.nan if trial.value is None else trial.value for trial in ended]
    table = pd.DataFrame([row_of(trial) for trial in ended]).assign(value=values)
    curves = [
        {"trial": t.number, "state": state_of(t), "epoch": epoch, "value": value}
        for t in ended
        for epoch, value in sorted(t.intermediate_values.items())
    ]
    logs = {name: bool(getattr(drawn, "log", False)) for name, drawn in search.space.items()}
    objective = search.objective
    minimized = search.optuna_study.direction == optuna.study.StudyDirection.MINIMIZE
    best = search.optuna_study.best_trial.number
    figures = {
        "trials": tuning_figures.trials(table, objective, minimized),
        "curves": tuning_figures.learning_curves(pd.DataFrame(curves), best, objective),
        "parameters": tuning_figures.parameters(table, logs, objective),
    }
    for title, figure in figures.items():
        store.write_figure(folder / f"{title}.png", figure)
