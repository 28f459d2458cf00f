"""Mirror all results of a study in MLflow: ``python -m ostinato.tracking [STUDY]``."""

from collections.abc import Iterator

from ostinato.study import Study
from ostinato.tracking import dvc_lock, runs
from ostinato.tracking.client import connected


def mirror(study: Study) -> Iterator[tuple[str, bool]]:
    """Complete the MLflow run of every result that dvc.lock has and that is on disk.

    Args:
        study: whose results are mirrored.

    Yields:
        The name of the data set, run or ensemble, and whether anything was missing in MLflow.
    """
    records = dvc_lock.read(study)
    with connected() as client:
        for data in study.params["data"]:
            if f"prepare@{data}" in records and study.data_folder(data).exists():
                yield data, runs.mirror_data(client, study, data, records)
        for name in [*study.params["runs"], *study.params["ensembles"]]:
            stage, _ = runs.stages_of(study, name)
            if stage in records and (study.result_folder(name) / "model").exists():
                yield name, runs.mirror_result(client, study, name, records)
