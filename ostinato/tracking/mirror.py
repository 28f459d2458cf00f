"""Mirror all results of a study in MLflow: ``python -m ostinato.tracking [STUDY]``."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ostinato.study import Study
from ostinato.tracking import dvc_lock, runs
from ostinato.tracking.client import brief, connected, experiment, failures, lock, responds
from ostinato.tracking.experiments import present

LOCK = "mlflow.db.mirror.lock"  # one process at a time looks for what is missing, and logs it
LOCK_S = 600.0  # longest wait for another process that logs a result


class Outcome(NamedTuple):
    """What became of a result.

    Args:
        name: of the data set, run or ensemble.
        missing: whether anything of it was missing in MLflow.
        error: why it cannot be logged; empty where it is complete now.
    """

    name: str
    missing: bool
    error: str = ""


def mirror(study: Study) -> Iterator[Outcome]:
    """Complete the MLflow run of every result that dvc.lock has and that is on disk.

    A result that cannot be logged does not stop the others, as long as the store responds.

    Args:
        study: whose results are mirrored.

    Yields:
        What became of each result.

    Raises:
        MlflowException, SQLAlchemyError, OSError: the store does not respond.
    """
    presented = set()
    for name, log in _results(study):
        try:
            with lock(LOCK, LOCK_S), connected() as client:
                missing = log(client)
                data = name if name in study.params["data"] else study.result(name)["data"]
                if data not in presented:
                    presented.add(data)
                    where = experiment(client, runs.experiment_name(study, data))
                    present(client, where, study, data)
        except failures() as error:
            with connected() as client:  # fails where no result can be logged
                if not responds(client):
                    raise error from None
            yield Outcome(name, True, brief(error))
        else:
            yield Outcome(name, missing)


def left_out(study: Study) -> list[str]:
    """The results on disk that dvc.lock has and the params file does not name any more."""
    names = {*study.params["runs"], *study.params["ensembles"]}
    return [
        stage.partition("@")[2]
        for stage, record in dvc_lock.read(study).items()
        if stage.startswith(("train@", "ensemble@"))
        and stage.partition("@")[2] not in names
        and all(Path(path).exists() for path in record.outs)
    ]


def _results(study: Study) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """The name of each result on disk, and the function that completes its run."""
    records = dvc_lock.read(study)
    for data in study.params["data"]:
        if f"prepare@{data}" in records and study.data_folder(data).exists():
            yield data, partial(runs.mirror_data, study=study, data=data, records=records)
    for name in [*study.params["runs"], *study.params["ensembles"]]:
        stage, _ = runs.stages_of(study, name)
        if stage in records and (study.result_folder(name) / "model").exists():
            yield name, partial(runs.mirror_result, study=study, name=name, records=records)
