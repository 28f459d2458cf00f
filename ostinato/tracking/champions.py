"""The champion's scores over its versions: a run with a step for each promotion and rollback."""

import json
import time
from collections.abc import Mapping
from typing import Any

CHAMPION_RUNS = "champion"  # tag stage of the run; one for each registered model
VERSION = "champion/version"


def log_champion(client: Any, experiment: str, version: Any) -> None:
    """Append the scores of a new champion to the run of its model.

    Args:
        client: of the store.
        experiment: id of the data set's experiment.
        version: that has become champion; its tag ``scores`` has them.
    """
    from mlflow.entities import Metric

    where = f"tags.stage = '{CHAMPION_RUNS}' AND tags.registered = '{version.name}'"
    found = client.search_runs([experiment], where)
    key = found[0].info.run_id if found else _create(client, experiment, version.name)
    step = 1 + len(client.get_metric_history(key, VERSION))
    now = round(1000 * time.time())
    values = {
        VERSION: float(version.version),
        **_test_scores(json.loads(version.tags.get("scores", "{}"))),
    }
    client.log_batch(key, [Metric(name, x, now, step) for name, x in values.items()])


def _create(client: Any, experiment: str, model: str) -> str:
    note = (
        f"The scores on the test split of the champions of `{model}`. Each promotion and each "
        f"rollback is a step; `{VERSION}` is the version that became champion."
    )
    tags = {"stage": CHAMPION_RUNS, "registered": model, "mlflow.note.content": note}
    run = client.create_run(experiment, tags=tags, run_name=f"champions of {model}")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _test_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a version's tag ``scores`` that are of the test split."""
    return {
        f"champion/{key}": float(value)
        for key, value in scores.items()
        if isinstance(value, int | float) and not key.startswith("validation_")
    }
