"""How an experiment looks in MLflow's page: its kind, its description and its saved views.

MLflow keeps a saved view as a tag of the experiment: JSON with a name, and as text the state of the
page: filter, order, columns and charts. The menu "Views" of the runs lists them. The address
``#/experiments/ID/runs?viewStateShareKey=scores&compareRunsMode=CHART`` opens one.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ostinato import params
from ostinato.promotion import Gate
from ostinato.study import Study
from ostinato.task import Metric
from ostinato.tracking.champions import CHAMPION_RUNS

KIND, NOTE, VIEW = "mlflow.experimentKind", "mlflow.note.content", "mlflow.sharedViewState."
MODEL_TRAINING = "custom_model_development"  # MLflow's value of "Model training"
WORKFLOW = "workflowType=machine_learning"  # opens the page for models instead of that for GenAI
SCORES, CHAMPIONS = "scores", "champions"  # the keys of the views
COLUMN_PX = 130
OTHERS = ("test", "speed", "Model metrics")  # sections that MLflow makes for all other metrics


def present(client: Any, experiment: str, study: Study, data: str) -> None:
    """Give an experiment its kind, description and views.

    A kind or a description that somebody has written stays. The views of these keys are always
    Ostinato's; a view that somebody saves has a key of its own.

    Args:
        client: of the store.
        experiment: its id.
        study: of the data set.
        data: name of the data set.
    """
    found = client.get_experiment(experiment)
    wanted = {**_views(study, data, int(found.creation_time or 0))}
    for key, value in {KIND: MODEL_TRAINING, NOTE: _description(study, data, experiment)}.items():
        wanted[key] = found.tags.get(key, value)
    for key, value in wanted.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(experiment, key, value)


def primary_metric(study: Study, data: str) -> Metric:
    """The metric by which runs are chosen: that of the gate, else the first of the domain."""
    domain = study.entry("data", data, "domain")
    if block := study.params.get("gates", {}).get(data):
        return params.bind(Gate, block)().check(domain)
    metric: Metric = params.module(domain, "reporting").REPORT.metrics[0]
    return metric


def _description(study: Study, data: str, experiment: str) -> str:
    metric = primary_metric(study, data)
    page = f"#/experiments/{experiment}/runs?{WORKFLOW}&compareRunsMode=CHART&viewStateShareKey="
    better = "higher" if metric.higher_is_better else "lower"
    return (  # the page shows the first line, until one unfolds it
        f"[Scores]({page}{SCORES}) · [Champions]({page}{CHAMPIONS}) · The data set **{data}** of "
        f"`{study.path}`, domain {study.entry('data', data, 'domain')}.\n\n"
        "A run for each prepared data set and each trained model, and for each decision of the "
        f"flows. Runs are chosen by {metric.title} on the validation split ({better} is better). "
        "*Scores* compares all models; *Champions* has the scores of the champion over its "
        "versions. Both are in the menu of saved views."
    )


def _views(study: Study, data: str, created: int) -> dict[str, str]:
    """The tags of the views."""
    domain = study.entry("data", data, "domain")
    metrics = [primary_metric(study, data), *params.module(domain, "reporting").REPORT.metrics]
    names = list(dict.fromkeys(metric.name for metric in metrics))
    first = metrics[0]
    test = [f"test/{name}" for name in names]
    chosen = f"test/validation_{first.name}"
    scores = _state(
        "tags.model != ''",
        order=f"metrics.`{chosen}`",
        ascending=not first.higher_is_better,
        columns=[
            *_columns("metrics", [chosen, *test, "test/parameters", "speed/inference_ms_single"]),
            *_columns("tags", ["alias", "gate"]),
        ],
        charts=[
            _bar("Scores", test[0], f"{first.title}, test split"),
            _bar("Scores", chosen, f"{first.title}, validation split"),
            _line("Learning curves", ["loss", "validation_loss"], "Loss"),
            _line("Learning curves", ["learning_rate"], "Learning rate"),
            _bar("Speed", "speed/inference_ms_single", "Milliseconds for one example"),
            _bar("Speed", "speed/inference_ms_batched", "Milliseconds for an example of a batch"),
        ],
        folded=OTHERS,
    )
    ends = [f"champion/{first.name}{end}" for end in ("", "_low", "_high")]
    champions = _state(
        f"tags.stage = '{CHAMPION_RUNS}'",
        order="attributes.`Created`",
        ascending=False,
        columns=_columns("metrics", ["champion/version", ends[0]]),
        charts=[
            _line("Champion", ends, f"{first.title} with its 95% interval, by promotion", True),
            _line("Champion", ["champion/version"], "Version, by promotion", True),
        ],
    )
    shown = {SCORES: ("Scores", scores), CHAMPIONS: ("Champions", champions)}
    return {
        f"{VIEW}{key}": json.dumps(
            {"name": name, "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
        )
        for key, (name, state) in shown.items()
    }


def _state(
    where: str,
    *,
    order: str,
    ascending: bool,
    columns: list[str],
    charts: list[dict[str, Any]],
    folded: Iterable[str] = (),
) -> dict[str, Any]:
    """The state of the page; what is left out keeps MLflow's default."""
    sections = dict.fromkeys(chart["metricSectionId"] for chart in charts)
    return {
        "searchFilter": where,
        "orderByKey": order,
        "orderByAsc": ascending,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_PX),
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            {
                "uuid": name,
                "name": name,
                "display": name in sections,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
            for name in (*sections, *folded)
        ],
        "isAccordionReordered": True,
    }


def _columns(kind: str, names: Iterable[str]) -> list[str]:
    return [f"{kind}.`{name}`" for name in names]


def _chart(kind: str, section: str, metric: str, title: str) -> dict[str, Any]:
    return {
        "uuid": f"{kind}-{metric}",
        "type": kind,
        "runsCountToCompare": 20,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
        "metricKey": metric,
    }


def _bar(section: str, metric: str, title: str) -> dict[str, Any]:
    return {**_chart("BAR", section, metric, title), "dataAccessKey": metric}


def _line(section: str, metrics: list[str], title: str, points: bool = False) -> dict[str, Any]:
    more: Mapping[str, Any] = {
        "selectedMetricKeys": metrics,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "displayPoints": points,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    return {**_chart("LINE", section, metrics[0], title), **more}
