"""MLflow's runs of the results: a run for each prepared data set, and for each model.

A result is identified by content: an MLflow run carries the md5s that dvc.lock has for its stages,
so it is found again from dvc.lock, and logging it twice adds nothing. An experiment is a study's
data set: ``default/sketches``.
"""

import ast
import csv
import json
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ostinato import params, store
from ostinato.evaluation import undefined
from ostinato.study import Study
from ostinato.task import Record
from ostinato.tracking import dvc_lock, model_code
from ostinato.tracking.client import experiment, failures, masked
from ostinato.tracking.dvc_lock import StageRecord
from ostinato.tracking.live import LIVE
from ostinato.training.machine import DeviceRecord

# The packages of a logged model, apart from MLflow.
PACKAGES = ("jaxtyping", "keras", "numpy", "pydantic", "rich", "ruamel.yaml", "tensorflow")
MAX_NAME_CHARS = 240  # of a metric or a parameter in MLflow: 250
OUTS = "outs"  # the tag that makes a run complete: set last
UNDEFINED = "undefined."  # before a metric's name: the tag that says why it has no value
EVALUATED_BY = {"train": "evaluate", "ensemble": "ensemble"}  # stage -> the one that evaluates


def experiment_name(study: Study, data: str) -> str:
    """The experiment of a study's data set."""
    return f"{study.name}/{data}"


def stages_of(study: Study, name: str) -> tuple[str, str]:
    """The names in dvc.lock of the stages that make a result's model and its evaluation."""
    stage = "ensemble" if study.is_ensemble(name) else "train"
    return f"{stage}@{name}", f"{EVALUATED_BY[stage]}@{name}"


def find(client: Any, study: Study, name: str) -> Any | None:
    """The complete run of a model as dvc.lock has it, or None."""
    records = dvc_lock.read(study)
    model, evaluation = (records.get(stage) for stage in stages_of(study, name))
    if model is None or evaluation is None:
        return None
    wanted = {OUTS: to_json(model.outs), f"evaluate.{OUTS}": to_json(evaluation.outs)}
    data = study.result(name)["data"]
    for run in _with_tag(client, study, data, "inputs", _inputs(name, model)):
        if wanted.items() <= run.data.tags.items():
            return run
    return None


def mirror_data(client: Any, study: Study, data: str, records: Mapping[str, StageRecord]) -> bool:
    """Complete the run of a prepared data set from its files; returns whether it was missing."""
    record = records[f"prepare@{data}"]
    run = _open_by_inputs(client, study, data, data, record)
    if run and OUTS in run.data.tags:
        return False
    run = run or _create(client, study, data, f"prepare {data}", record, records)
    _log_numbers(client, run.info.run_id, study.data_folder(data) / "manifest.json", "")
    raw = study.raw_folder(data) / "manifest.json"
    if raw.exists():
        _log_numbers(client, run.info.run_id, raw, "raw")
    _finish(client, run, data, record)
    return True


def mirror_result(client: Any, study: Study, name: str, records: Mapping[str, StageRecord]) -> bool:
    """Complete the run of a model and its evaluation from the files on disk.

    Args:
        client: of the store.
        study: of the result.
        name: of the run or ensemble.
        records: of the study's dvc.lock.

    Returns:
        Whether anything was missing.
    """
    stage, evaluated = stages_of(study, name)
    record, evaluation = records[stage], records.get(evaluated)
    data, folder = study.result(name)["data"], study.result_folder(name)
    model_path = (folder / "model").as_posix()
    epochs = _epochs(folder / "history.csv")
    run = _open(client, study, name, data, record) or _create(
        client, study, data, name, record, records, sum(e.get("seconds", 0) for e in epochs)
    )
    key, tags = run.info.run_id, run.data.tags
    missing = OUTS not in tags
    if missing:
        _log_dataset(client, run, study, data, record)
        log_epochs(client, run, epochs)
        client.log_artifact(key, str(folder / "history.csv"))
        if (device := folder / "training.json").exists():
            _tag(client, key, DeviceRecord.read(device).tags())
            client.log_artifact(key, str(device))
        if not client.get_run(key).outputs.model_outputs:
            _log_model(client, run, study, name)
        client.set_tag(key, "model", record.outs[model_path])
        _finish(client, run, name, record)
    if (
        evaluation
        and {**evaluation.deps, **evaluation.outs}[model_path] == record.outs[model_path]
        and tags.get(f"evaluate.{OUTS}") != to_json(evaluation.outs)
    ):
        missing = True
        (output,) = client.get_run(key).outputs.model_outputs
        linked = {
            "model_id": output.model_id,
            "dataset_name": data,
            "dataset_digest": record.deps[study.data_folder(data).as_posix()],
        }
        _log_numbers(client, key, folder / "metrics.json", "test", linked)
        _log_numbers(client, key, folder / "speed.json", "speed", linked)
        client.log_artifacts(key, str(folder / "tables"), "tables")
        _log_figures(client, key, folder / "figures", study.result(name)["domain"])
        reasons = {
            f"{UNDEFINED}{metric_name(m)}": reason for m, reason in undefined.read(folder).items()
        }
        for tag in tags.keys() - reasons.keys():
            if tag.startswith(UNDEFINED):  # of an earlier evaluation
                client.delete_tag(key, tag)
        for tag, reason in reasons.items():
            client.set_tag(key, tag, reason)
        client.set_tag(key, "evaluate.params", to_json(evaluation.values(name)))
        client.set_tag(key, "evaluate.deps", to_json(evaluation.deps))
        client.set_tag(key, f"evaluate.{OUTS}", to_json(evaluation.outs))
    return missing


def open_live(client: Any, study: Study, name: str, tags: Mapping[str, str]) -> Any:
    """The run that a training writes to: one that an earlier try has left open, or a new one."""
    run = study.entry("runs", name)
    digest = store.digest(study.params["seed"], study.params["runtime"], name, run)
    for known in _with_tag(client, study, run["data"], LIVE, digest):
        if OUTS not in known.data.tags:
            client.update_run(known.info.run_id, "RUNNING")
            _tag(client, known.info.run_id, tags)
            return client.get_run(known.info.run_id)
    values = {"seed": study.params["seed"], "runtime": study.params["runtime"], "runs": {name: run}}
    record = StageRecord(f"python -m stages.train {study.path.as_posix()} {name}", values)
    created = _create(client, study, run["data"], name, record, dvc_lock.read(study))
    _tag(client, created.info.run_id, {**tags, LIVE: digest})
    return created


def log_epochs(client: Any, run: Any, records: Iterable[Mapping[str, Any]]) -> None:
    """Log the epochs that a run does not have yet; their time is the run's start plus seconds."""
    from mlflow.entities import Metric

    known = client.get_run(run.info.run_id).data.metrics
    seen = {
        (metric.key, metric.step)
        for key in known
        for metric in client.get_metric_history(run.info.run_id, key)
    }
    metrics, now = [], float(run.info.start_time)
    for record in records:
        now += 1000 * record.get("seconds", 0)
        step = int(record["epoch"])
        for key, value in record.items():
            new = (metric_name(key), step) not in seen
            if key != "epoch" and new and not math.isnan(value):
                metrics.append(Metric(metric_name(key), float(value), round(now), step))
    _log(client, run.info.run_id, metrics=metrics)


@contextmanager
def logged_model(client: Any, run: Any, name: str) -> Iterator[tuple[Path, Any]]:
    """Log a model beside a run, which stays as it is.

    Yields an empty folder for its files, and MLflow's description, to be completed there.
    """
    from mlflow.models import Model

    logged = client.create_logged_model(run.info.experiment_id, name, run.info.run_id)
    described = Model(
        artifact_path=logged.artifact_location,
        run_id=run.info.run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    try:
        with TemporaryDirectory() as temporary:
            yield Path(temporary), described
            client.log_model_artifacts(logged.model_id, temporary)
    except BaseException:
        with suppress(*failures()):
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")


def metric_name(key: str) -> str:
    """A key as MLflow accepts it for a metric or a parameter; it sees a slash as a folder."""
    cleaned = re.sub(r"[^\w\-. :/]", "_", key)[:MAX_NAME_CHARS]
    return "/".join(part if part.strip(".") else f"_{part}" for part in cleaned.split("/"))


def to_json(value: Any) -> str:
    """JSON with sorted keys, as tags hold it."""
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, sort_keys=True)


def _inputs(name: str, record: StageRecord) -> str:
    """A digest of all that determines a result."""
    return store.digest(name, dict(record.params), dict(record.deps))


def _with_tag(client: Any, study: Study, data: str, tag: str, value: str) -> list[Any]:
    """The runs of a data set with this tag, the latest first."""
    where = [experiment(client, experiment_name(study, data))]
    return list(client.search_runs(where, f"tags.{tag} = '{value}'"))


def _open_by_inputs(
    client: Any, study: Study, name: str, data: str, record: StageRecord
) -> Any | None:
    """The run of this very result: the complete one, or one that could not be completed."""
    for run in _with_tag(client, study, data, "inputs", _inputs(name, record)):
        if run.data.tags.get(OUTS) in (None, to_json(record.outs)):
            return run
    return None


def _open(client: Any, study: Study, name: str, data: str, record: StageRecord) -> Any | None:
    """The run of this very result, or the one that its training has written to."""
    if run := _open_by_inputs(client, study, name, data, record):
        return run
    if not study.is_ensemble(name):
        entry = study.entry("runs", name)
        digest = store.digest(study.params["seed"], study.params["runtime"], name, entry)
        for run in _with_tag(client, study, data, LIVE, digest):
            if OUTS not in run.data.tags:
                return run
    return None


def _create(
    client: Any,
    study: Study,
    data: str,
    title: str,
    record: StageRecord,
    records: Mapping[str, StageRecord],
    seconds: float = 0,
) -> Any:
    """Create a run with its parameters and source; it began ``seconds`` ago."""
    from mlflow.entities import Param

    name = title.removeprefix("prepare ")
    values = record.values(name)
    for stage in (f"fetch@{data}", f"prepare@{data}"):
        values = records.get(stage, StageRecord()).values(data) | values
    commit, _, dirty = _git_commit().partition("-")
    command = record.command.replace('"$DVC_STAGE"', name)
    note = f"`{command}`"
    if "model" in values:
        module = params.model_module(values["domain"], values["model"])
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        note = f"{ast.get_docstring(ast.parse(source))}\n\n{note}"
    tags = {
        "study": study.name,
        "data": data,
        "commit": commit or "none",
        "dirty": str(bool(dirty)).lower(),
        "experiment": os.environ.get("DVC_EXP_NAME", "workspace"),
        "mlflow.note.content": masked(note),
        "mlflow.source.name": masked(command),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
    }
    run = client.create_run(
        experiment(client, experiment_name(study, data)),
        start_time=round(1000 * (time.time() - seconds)),
        run_name=title,
        tags=tags,
    )
    named = {metric_name(key): value for key, value in values.items()}
    parameters = [Param(key, masked(str(value))) for key, value in named.items()]
    _log(client, run.info.run_id, params=parameters)
    client.set_tag(run.info.run_id, "inputs", _inputs(name, record))
    return run


def _git_commit() -> str:
    """The commit of the checkout, with "-dirty" where files have changed; empty without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return ""
    return git.stdout.strip()


def _log_dataset(client: Any, run: Any, study: Study, data: str, record: StageRecord) -> None:
    """Log the prepared data as MLflow's dataset of a run; once, also of a run logged live."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    prepared = study.data_folder(data).as_posix()
    source = {"source_type": "dvc", "source": json.dumps({"path": prepared})}
    context = [InputTag("mlflow.data.context", "training")]
    dataset = Dataset(data, record.deps[prepared], **source)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, context)])


def _finish(client: Any, run: Any, name: str, record: StageRecord) -> None:
    """Mark a run as complete: the tag `OUTS` last, so that a run that has it needs nothing more."""
    key = run.info.run_id
    client.set_tag(key, "inputs", _inputs(name, record))
    client.set_tag(key, "deps", to_json(record.deps))
    client.set_terminated(key)
    client.set_tag(key, OUTS, to_json(record.outs))


def _tag(client: Any, run: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_tag(run, key, value)


def _epochs(history: Path) -> list[Record]:
    with history.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _log_figures(client: Any, run: str, folder: Path, domain: str) -> None:
    """Log figures in the order of the report: their names begin with a number."""
    first = list(params.module(domain, "reporting").REPORT.figures)
    files = sorted(path.name for path in folder.iterdir())
    files.sort(key=lambda name: [*first, Path(name).stem].index(Path(name).stem))
    with TemporaryDirectory() as temporary:
        for number, name in enumerate(files, 1):
            shutil.copyfile(folder / name, Path(temporary, f"{number:02d}-{name}"))
        client.log_artifacts(run, temporary, "figures")


def _log_numbers(
    client: Any, run: str, file: Path, folder: str, linked: Mapping[str, str] | None = None
) -> None:
    """Log a JSON file, and its numbers as metrics ``<folder>/<key>`` of the run.

    Args:
        client: of the store.
        run: its id.
        file: with the numbers.
        folder: before the name of each metric.
        linked: model and data set of the metrics: MLflow ranks models by data set.
    """
    from mlflow.entities import Metric

    changed = round(1000 * file.stat().st_mtime)  # what is logged again replaces the older
    numbers = dvc_lock.flat(store.read_json(file), max_keys=20)  # not of each class
    metrics = [
        Metric(metric_name(f"{folder}/{key}".lstrip("/")), value, changed, 0, **linked or {})
        for key, value in numbers.items()
        if isinstance(value, int | float)
    ]
    _log(client, run, metrics=metrics)
    client.log_artifact(run, str(file), folder or None)


def _log(client: Any, run: str, **items: list[Any]) -> None:
    """Log ``metrics=`` or ``params=``, as many at once as MLflow accepts."""
    for kind, values in items.items():
        for start in range(0, len(values), 100):
            client.log_batch(run, **{kind: values[start : start + 100]})


def _log_model(client: Any, run: Any, study: Study, name: str) -> None:
    """Log a model's folder; a Keras model as MLflow's Keras flavour, with signature and code.

    ``mlflow.pyfunc.load_model`` then finds all of it. MLflow's own ``log_model`` fails on an input
    example of this flavour and knows no code for it, hence the single steps.
    """
    from mlflow.entities import LoggedModelOutput

    folder = study.result_folder(name) / "model"
    with logged_model(client, run, name) as (target, described):
        shutil.copytree(folder, target / "data")
        if (folder / "model.keras").exists():
            _add_keras_flavour(study, name, target, described)
        described.save(str(target / "MLmodel"))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(described.model_id, step=0)])


def _add_keras_flavour(study: Study, name: str, target: Path, described: Any) -> None:
    import mlflow.keras
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Importing the module registers the model's layers.
    module = params.model_module(study.result(name)["domain"], study.model_name(name))
    path = study.result_folder(name) / "model" / "model.keras"
    model = store.read_model(path)

    def spec(tensor: Any, name: str | None = None) -> TensorSpec:
        return TensorSpec(np.dtype(tensor.dtype), [size or -1 for size in tensor.shape], name)

    def ones(tensor: Any) -> Any:
        return np.ones([size or 4 for size in tensor.shape], tensor.dtype)

    inputs, output = model.input, Schema([spec(model.outputs[0])])
    if isinstance(inputs, dict):
        schema = Schema([spec(tensor, key) for key, tensor in inputs.items()])
        example: Any = {key: ones(tensor) for key, tensor in inputs.items()}
    else:
        schema, example = Schema([spec(inputs)]), ones(inputs)
    shutil.rmtree(target / "data")
    mlflow.keras.save_model(
        model,
        str(target),
        mlflow_model=described,
        signature=ModelSignature(schema, output),
        input_example=example,
        pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
    )
    shutil.copyfile(path, target / "data" / "model.keras")  # the very bytes that DVC has
    model_code.write(target / "code")
    loader = "load_" + module.__name__.replace(".", "_")
    imported = (model_code.UNPACK, module.__name__)
    text = "".join(f"import {name}\n" for name in imported)
    text += "from mlflow.keras import _load_pyfunc\n"
    (target / "code" / f"{loader}.py").write_text(text, encoding="utf-8")
    described.flavors["python_function"] |= {"code": "code", "loader_module": loader}
