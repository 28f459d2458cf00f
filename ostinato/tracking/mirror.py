"""MLflow's view of the results: ``python -m ostinato.tracking.mirror`` mirrors every result on disk.

A result is identified by content: a run carries the md5s that dvc.lock holds for its stage, so it
is found again from dvc.lock, and logging it twice adds nothing. ``live`` streams a training while
it runs; ``mirror`` makes the run of a finished stage complete from its files. Both survive a
tracking server that is down: they say so in one line, and the command above catches up later.

The default store is mlflow.db, with mlartifacts/ beside it, in the checkout (the main one, also
for an experiment in a temporary folder); ``MLFLOW_TRACKING_URI`` overrides it.
"""

import ast
import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ostinato import errors, params, store
from stages import command, start_tensorflow

Entry = Mapping[str, Any]  # a stage: cmd, params by dotted name, deps and outs with their md5s
Epoch = Mapping[str, Any]  # a row of history.csv

SETTINGS = {  # of MLflow, unless the environment says otherwise: a dead server costs seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors are told by this module, in a line
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
# What a logged model needs, apart from MLflow.
PACKAGES = ("keras", "numpy", "pydantic", "ruamel.yaml", "tensorflow", "tqdm")
OUTS = "outs"  # the tag that makes a run complete: set last
_said: list[str] = []  # the failure that this process has told of


@contextmanager
def live(name: str) -> Iterator[Callable[[Epoch], None]]:
    """Track the training of run ``name``: yields a function that takes each epoch's record.

    Epochs that the run already holds (a resumed training hands them in again) are not logged
    again. When the block ends, the run is completed from the files that the block wrote; when it
    raises, the run is marked as failed and the error goes on.
    """
    run: Any = None  # None where there is nothing to log to
    epochs: list[Epoch] = []
    with _survive():
        entry = current("train", name)
        with connected() as client:
            known = _find_runs(client, "train", name, entry)
            started = known[0] if known else _new_run(client, "train", name, entry)
            if OUTS not in started.data.tags:  # else the very same training is complete there
                client.update_run(started.info.run_id, "RUNNING")
                seen = _seen(client, started)
                run = started

    logged = run

    def record(epoch: Epoch) -> None:
        nonlocal logged
        epochs.append(epoch)
        if logged:
            logged = None  # a failure ends the live part; the files complete it
            with _survive(), connected() as client:
                _log_epochs(client, run, epochs, seen)
                logged = run

    try:
        yield record
    except BaseException as error:
        if logged:
            with _survive(), connected() as client:
                client.set_tag(run.info.run_id, "error", _told(error))
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                client.set_terminated(run.info.run_id, status)
        raise
    _mirror("train", name, run)


def mirror(stage: str, name: str) -> None:
    """Make the MLflow run of a stage that has just written its outputs complete.

    Args:
        stage: prepare, ensemble or evaluate; the latter's scores go to the run of the training.
        name: of the data set, ensemble or run.
    """
    _mirror(stage, name, None)


def _mirror(stage: str, name: str, run: Any) -> None:
    with _survive():
        entries = {stage: current(stage, name)}
        if stage == "train" and (scores := recorded("evaluate", name)):
            entries["evaluate"] = scores  # not scored again where the model came out the same
        elif stage == "evaluate":  # by hand, without DVC, dvc.lock does not know the training
            entries["train"] = recorded("train", name) or current("train", name)
        with connected() as client:
            _complete(client, name, entries, run)


def main() -> None:
    """Mirror every result on disk that dvc.lock knows and that has no complete run."""
    results: dict[tuple[str, str], dict[str, Entry]] = {}
    if not Path("dvc.lock").exists():
        sys.exit("No dvc.lock here: there are no results yet; `dvc repro` makes them.")
    for address in locked():
        stage, _, name = address.partition("@")
        if stage in ("prepare", "train", "evaluate", "ensemble"):
            if entry := recorded(stage, name):
                kind = "train" if stage == "evaluate" else stage
                results.setdefault((kind, name), {})[stage] = entry
            else:
                print(f"{address}: not on disk as dvc.lock has it; `dvc checkout` or `dvc repro`")
    try:
        for (kind, name), entries in sorted(results.items()):
            if kind in entries:
                with connected() as client:
                    new = _complete(client, name, entries, None)
                print(f"{kind}@{name}: {'logged' if new else 'is complete'}")
    except errors.ParamsError:
        raise
    except Exception as error:
        sys.exit(f"Cannot log to {masked(uri())}: {_told(error)}")


# What DVC knows of a stage


def locked() -> dict[str, Entry]:
    """The stages of dvc.lock: how the results that DVC knows were made."""
    if not (lock := Path("dvc.lock")).exists():
        return {}
    return {
        address: {
            "cmd": stage["cmd"],
            "params": stage.get("params", {}).get("params.yaml", {}),
            "deps": {dep["path"]: dep["md5"] for dep in stage.get("deps", [])},
            "outs": {out["path"]: out["md5"] for out in stage.get("outs", [])},
        }
        for address, stage in params.read_yaml(lock)["stages"].items()
    }


def current(stage: str, name: str) -> Entry:
    """The entry that dvc.lock gets for a stage of dvc.yaml as all of it is on disk now."""
    values = params.load()
    template = params.read_yaml("dvc.yaml")["stages"][stage]
    known = {"key": name, "item": params.entry(values, template["foreach"].strip("${}"), name)}
    filled = json.loads(
        re.sub(
            r"\$\{([\w.]+)\}",
            lambda found: str(params.entry(known, *found[1].split("."))),
            json.dumps(template["do"]),
        )
    )
    outs = [out for kind in ("outs", "metrics", "plots") for out in filled.get(kind, [])]
    paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    return {
        "cmd": filled["cmd"],
        "params": {key: params.entry(values, *key.split(".")) for key in filled["params"]},
        "deps": {path: md5_of(Path(path)) for path in filled["deps"]},
        "outs": {path: md5_of(Path(path)) for path in paths},
    }


def recorded(stage: str, name: str) -> Entry | None:
    """The entry of dvc.lock for a stage, if its outputs on disk are those."""
    entry = locked().get(f"{stage}@{name}")
    whole = entry and all(md5_of(Path(path)) == md5 for path, md5 in entry["outs"].items())
    return entry if whole else None


def md5_of(path: Path) -> str | None:
    """DVC's md5 of a file, or of a folder: that of the sorted list of its files' md5s."""
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        listed = [{"md5": md5_of(p), "relpath": p.relative_to(path).as_posix()} for p in files]
        listed.sort(key=lambda file: str(file["relpath"]))
        return f"{_digest(listed)}.dir"
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _digest(content: Any) -> str:
    return hashlib.md5(json.dumps(content).encode(), usedforsecurity=False).hexdigest()


def _values(entry: Entry, name: str) -> dict[str, Any]:
    """The parameters of a stage, flat: build.units, fit.epochs, data.prepare.points, seed ..."""
    return {
        key.removeprefix(f"runs.{name}.")
        .removeprefix(f"ensembles.{name}.")
        .replace(f"data.{name}.", "data.", 1): value
        for key, value in _flat(entry["params"]).items()
    }


def _flat(value: Any, prefix: str = "", most: float = math.inf) -> dict[str, Any]:
    """Nested mappings as one with dotted keys; those with more than ``most`` keys stay whole."""
    if not isinstance(value, Mapping) or len(value) > most:
        return {prefix: value}
    parts = [_flat(inner, f"{prefix}.{key}".lstrip("."), most) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}


# The store


@contextmanager
def connected() -> Iterator[Any]:
    """A client of the store; one process of this checkout at a time, as creating it races."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    with FileLock(root() / "mlflow.db.lock", timeout=60):
        from mlflow import MlflowClient

        yield MlflowClient(uri())


def root() -> Path:
    """The main checkout, also within an experiment's temporary folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def uri() -> str:
    """The tracking server or database: MLFLOW_TRACKING_URI, or mlflow.db in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


@contextmanager
def _survive() -> Iterator[None]:
    """Say once what went wrong with tracking, and go on: it must not stop a stage."""
    try:
        yield
    except Exception as error:
        if not _said:
            _said.append(_told(error))
            print(
                f"Not tracked in {masked(uri())}: {_said[0]}. The work goes on and nothing is "
                "lost: run `python -m ostinato.tracking.mirror` later.",
                file=sys.stderr,
            )


def _told(error: BaseException) -> str:
    return masked(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def masked(text: str) -> str:
    """``text`` without the user and password of any address in it."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


# A run


def experiment(client: Any, domain: str) -> str:
    """The id of the experiment of a domain, made where there is none yet."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if found := client.get_experiment_by_name(domain):
        return str(found.experiment_id)
    local = uri().partition(":")[0].partition("+")[0] in DATABASE_ENGINES
    location = (root() / "mlartifacts" / domain).as_uri() if local else None
    return str(client.create_experiment(domain, artifact_location=location))


def _domain(entry: Entry, name: str) -> str:
    values = _values(entry, name)
    domain = values.get("domain") or values.get("data.domain")
    if not domain:
        raise errors.ParamsError(
            f"dvc.lock: the stage of {name} has no domain among its params; `python -m "
            "ostinato.tracking.mirror` mirrors the stages of Ostinato's dvc.yaml, which have"
        )
    return str(domain)


def _find_runs(client: Any, stage: str, name: str, entry: Entry) -> list[Any]:
    """The runs whose inputs are those of ``entry``, the latest first."""
    wanted = f"tags.inputs = '{_inputs(stage, name, entry)}'"
    return list(client.search_runs([experiment(client, _domain(entry, name))], wanted))


def result(name: str) -> tuple[Path, tuple[str, str]]:
    """Where a run's or an ensemble's result is, and which stages make its model and its scores."""
    if name in params.load().get("ensembles", {}):
        return Path("ensembles", name), ("ensemble", "ensemble")
    return Path("results", name), ("train", "evaluate")


def training(client: Any, name: str) -> Any | None:
    """The run that holds the training and the scores of ``name`` as dvc.lock has them, or None."""
    _, stages = result(name)
    train, scores = (locked()[f"{stage}@{name}"] for stage in stages)
    wanted = {OUTS: _json(train["outs"]), f"evaluate.{OUTS}": _json(scores["outs"])}
    for run in _find_runs(client, stages[0], name, train):
        if wanted.items() <= run.data.tags.items():
            return run
    return None


def _inputs(stage: str, name: str, entry: Entry) -> str:
    """A name for all that determines a result: sorted, as dvc.lock does not keep the order."""
    return _digest([stage, name, _json([entry["params"], entry["deps"]])])


def _new_run(client: Any, stage: str, name: str, entry: Entry, seconds: float = 0) -> Any:
    """A run with all that is known before the stage has run; it began ``seconds`` ago."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    values = _values(entry, name)
    data = name if stage == "prepare" else values["data"]
    for address in (f"fetch@{data}", f"prepare@{data}"):
        values = _values(locked().get(address, {"params": {}}), data) | values
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit, _, dirty = git.stdout.strip().partition("-")
    command = entry["cmd"].replace('"$DVC_STAGE"', name)
    about = f"`{command}`"
    if stage == "train":
        source = Path("ostinato", values["domain"], f"{values['model']}.py")
        about = f"{ast.get_docstring(ast.parse(source.read_text(encoding='utf-8')))}\n\n{about}"
    tags = {
        "stage": stage,
        "inputs": _inputs(stage, name, entry),
        "deps": _json(entry["deps"]),
        "commit": commit or "none",
        "dirty": str(bool(dirty)).lower(),
        "experiment": os.environ.get("DVC_EXP_NAME", "workspace"),
        "mlflow.note.content": masked(about),
        "mlflow.source.name": masked(command),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
    }
    run = client.create_run(
        experiment(client, _domain(entry, name)),
        start_time=round(1000 * (time.time() - seconds)),
        run_name=f"prepare {name}" if stage == "prepare" else name,
        tags=tags,
    )
    parameters = [Param(key, masked(str(value))) for key, value in values.items()]
    _log(client, run.info.run_id, params=parameters)
    if digest := entry["deps"].get(f"data/{data}"):
        kept = {"source_type": "dvc", "source": json.dumps({"path": f"data/{data}"})}
        context = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(run.info.run_id, [DatasetInput(Dataset(data, digest, **kept), context)])
    return run


def _complete(client: Any, name: str, entries: Mapping[str, Entry], run: Any) -> bool:
    """Complete the run of a data set, or of a training and its scores, from the files on disk.

    Args:
        client: of the store.
        name: of the data set, ensemble or run.
        entries: of the stages that have their outputs: prepare, ensemble, or train and perhaps
            evaluate.
        run: the one that was begun for them, if that is known.

    Returns:
        Whether anything was missing.
    """
    (stage,) = entries.keys() - {"evaluate"}
    top = {"prepare": "data", "train": "results", "ensemble": "ensembles"}[stage]
    entry, folder = entries[stage], Path(top, name)
    model = f"{top}/{name}/model.keras"
    epochs = [] if stage == "prepare" else _epochs(folder / "history.csv")
    if run is None:
        known = _find_runs(client, stage, name, entry)
        open_or_same = [r for r in known if r.data.tags.get(OUTS) in (None, _json(entry["outs"]))]
        seconds = sum(epoch.get("seconds", 0) for epoch in epochs)
        run = next(iter(open_or_same), None) or _new_run(client, stage, name, entry, seconds)
    key, tags = run.info.run_id, run.data.tags
    missing = OUTS not in tags
    if missing and stage == "prepare":
        _log_numbers(client, key, folder / "manifest.json", "")
        if (raw := Path("data", "raw", name, "manifest.json")).exists():
            _log_numbers(client, key, raw, "raw")
    elif missing:
        _log_epochs(client, run, epochs, _seen(client, run))
        client.log_artifact(key, str(folder / "history.csv"))
        if not client.get_run(key).outputs.model_outputs:
            _log_model(client, run, name, entry, Path(model))
        client.set_tag(key, "model", entry["outs"][model])
    if missing:
        client.set_tag(key, "inputs", _inputs(stage, name, entry))  # as dvc.lock gets them, should
        client.set_tag(key, "deps", _json(entry["deps"]))  # the code have changed on the way
        client.set_tag(key, OUTS, _json(entry["outs"]))
        client.set_terminated(key)
    scores = entry if stage == "ensemble" else entries.get("evaluate")
    if (
        scores
        and {**scores["deps"], **scores["outs"]}[model] == entry["outs"][model]  # no earlier one's
        and tags.get(f"evaluate.{OUTS}") != _json(scores["outs"])
    ):
        missing = True
        (output,) = client.get_run(key).outputs.model_outputs
        _log_numbers(client, key, folder / "metrics.json", "test", output.model_id)
        _log_numbers(client, key, folder / "speed.json", "speed", output.model_id)
        for part in ("figures", "tables"):
            client.log_artifacts(key, str(folder / part), part)
        client.set_tag(key, "evaluate.params", _json(_values(scores, name)))
        client.set_tag(key, "evaluate.deps", _json(scores["deps"]))
        client.set_tag(key, f"evaluate.{OUTS}", _json(scores["outs"]))
    return missing


def _epochs(history: Path) -> list[dict[str, float]]:
    with history.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _seen(client: Any, run: Any) -> set[tuple[str, int]]:
    """The metrics that a run holds: (name, step)."""
    histories = (client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return {(metric.key, metric.step) for history in histories for metric in history}


def _log_epochs(client: Any, run: Any, epochs: Iterable[Epoch], seen: set[tuple[str, int]]) -> None:
    """Log what is not in ``seen`` yet; the time is the run's start plus the seconds until then."""
    from mlflow.entities import Metric

    metrics, now = [], run.info.start_time
    for epoch in epochs:
        now += 1000 * epoch.get("seconds", 0)
        step = int(epoch["epoch"])
        for key, value in epoch.items():
            if key != "epoch" and (key, step) not in seen and not math.isnan(value):
                metrics.append(Metric(key, float(value), round(now), step))
    _log(client, run.info.run_id, metrics=metrics)
    seen |= {(metric.key, metric.step) for metric in metrics}


def _log_numbers(client: Any, run: str, file: Path, folder: str, model: str | None = None) -> None:
    """Log a JSON file, and its numbers as metrics ``<folder>/<key>`` of the run (and model)."""
    from mlflow.entities import Metric

    changed = round(1000 * file.stat().st_mtime)  # what is logged again replaces the older
    metrics = [
        Metric(re.sub(r"[^\w\-. :/]", "_", f"{folder}/{key}".lstrip("/")), value, changed, 0, model)
        for key, value in _flat(store.read_json(file), most=20).items()  # not of each class
        if isinstance(value, (int, float))
    ]
    _log(client, run, metrics=metrics)
    client.log_artifact(run, str(file), folder or None)


def _log(client: Any, run: str, **items: list[Any]) -> None:
    """Log ``metrics=`` or ``params=``, as many at once as MLflow takes."""
    for kind, all_of in items.items():
        for start in range(0, len(all_of), 100):
            client.log_batch(run, **{kind: all_of[start : start + 100]})


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
    with TemporaryDirectory() as temporary:
        yield Path(temporary), described
        client.log_model_artifacts(logged.model_id, temporary)
    client.finalize_logged_model(logged.model_id, "READY")


def _log_model(client: Any, run: Any, name: str, entry: Entry, path: Path) -> None:
    """Log the model as DVC holds it, with a signature, an example and the code of its layers.

    ``mlflow.pyfunc.load_model`` finds all of it. MLflow's own ``log_model`` fails on an input
    example of this flavour and knows no code for it, hence the single steps.
    """
    start_tensorflow()
    import mlflow.keras
    import numpy as np
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    values = _values(entry, name)
    # Registers the model's layers.
    module = params.model_module(values["domain"], values.get("model", "ensemble"))
    model = store.read_model(path)

    def spec(tensor: Any, name: str | None = None) -> TensorSpec:
        return TensorSpec(np.dtype(tensor.dtype), [size or -1 for size in tensor.shape], name)

    def ones(tensor: Any) -> Any:
        return np.ones([size or 4 for size in tensor.shape], tensor.dtype)

    given, output = model.input, Schema([spec(model.outputs[0])])
    if isinstance(given, dict):
        inputs = Schema([spec(tensor, key) for key, tensor in given.items()])
        example: Any = {key: ones(tensor) for key, tensor in given.items()}
    else:
        inputs, example = Schema([spec(given)]), ones(given)
    with logged_model(client, run, name) as (folder, described):
        mlflow.keras.save_model(
            model,
            str(folder),
            mlflow_model=described,
            signature=ModelSignature(inputs, output),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
        )
        shutil.copyfile(path, folder / "data" / "model.keras")  # the very bytes that DVC holds
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree("ostinato", folder / "code" / "ostinato", ignore=ignored)
        loader = "load_" + module.__name__.replace(".", "_")
        text = f"import {module.__name__}\nfrom mlflow.keras import _load_pyfunc\n"
        (folder / "code" / f"{loader}.py").write_text(text, encoding="utf-8")
        described.flavors["python_function"] |= {"code": "code", "loader_module": loader}
        described.save(str(folder / "MLmodel"))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(described.model_id, step=0)])


if __name__ == "__main__":
    command(main)
