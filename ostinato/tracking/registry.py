"""MLflow's model registry: a registered model for each data set of a study (`model_name`).

Aliases: ``champion`` is the version in use, ``previous`` the one before it, ``challenger`` a
version that waits for a reviewer. The tags of a version:

- run: its name in params.yaml; trained: the time, ISO 8601 in UTC
- study: the path of the params file
- commit, dirty: of git, at the time of the training
- model: DVC's md5 of the model's folder; data: of the prepared data set
- content: digest of the model's folder; serving: digest of the code that the version carries
- code, params, scores: all md5s, parameters and numbers, as JSON
- check: the result of the check in a fresh process; verdict: the reason for the promotion;
  rolled back: the version that replaced it

A version's folder holds artifacts/ with model/ (the files that ``Model.save`` wrote),
manifest.json (of the prepared data), about.json, examples.json (raw examples, and the arrays that
evaluation has for them), request.json (the example of the model card), card.md, the files of the
domain's ``SERVING`` and, for the monitor, answers.json (the profile of the answers on the test
split) and, where the data set has one, profile.json.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ostinato
from ostinato import params, store
from ostinato.errors import DataError, MissingFilesError, RegistryError
from ostinato.monitoring import reference
from ostinato.serving.packaging import pack, serving_of
from ostinato.study import Study
from ostinato.task import Json, Manifest, Profile
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import dvc_lock, model_code, runs
from ostinato.tracking.client import masked
from ostinato.tracking.deadline import DOWNLOAD_S, within

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ROLLED_BACK = "rolled back"  # tag of a version that a rollback has replaced
MOVE = "move"  # tag of a registered model: the new aliases, while they are moved
PACKAGES = (*runs.PACKAGES, "matplotlib", "numba", "orjson", "pandas")
CODE = ("ostinato/", "stages/")
MAX_DESCRIPTION_CHARS = 5000  # in MLflow's database
MAX_CLASSES = 40  # that a model card names
MAX_REQUEST_CHARS = 2000  # of the request that a model card shows


@dataclass(frozen=True)
class Examples:
    """Raw test examples and the arrays of evaluation: a version must reproduce them.

    Args:
        inputs: of requests.
        truth: their targets; names where they are classes.
        classes: names of all classes; empty where there are none.
        arrays: rows of evaluation's arrays, by name; null for NaN.
    """

    inputs: list[Json]
    truth: list[Json]
    classes: list[str]
    arrays: dict[str, list[Json]]


def model_name(study: str, data: str) -> str:
    """The registered model of a data set: its name in the default study, else STUDY.NAME."""
    return data if study == "default" else f"{study}.{data}"


@contextmanager
def connected() -> Iterator[Any]:
    """A client of the registry.

    Raises:
        RegistryError: MLflow or its store fails; the message is one line without passwords.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with mlflow_store.connected() as client:
            yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:
        message = masked(" ".join(str(error).split()))[:500]
        raise RegistryError(f"MLflow at {masked(mlflow_store.uri())}: {message}") from None


def champion(model: str) -> Any | None:
    """The champion among the versions of a model, with its ``tags``; None where there is none."""
    with connected() as client:
        return find(client, model, CHAMPION)


def age(version: Any) -> timedelta:
    """The time since a version was trained."""
    return datetime.now(UTC) - datetime.fromisoformat(version.tags["trained"])


def profile(version: Any) -> Profile | None:
    """The profile of the data that a version was trained on.

    None where it has none, or one of an earlier layout.
    """
    with connected() as client, TemporaryDirectory() as temporary:
        file = download(client, version, Path(temporary)) / "artifacts" / "profile.json"
        with suppress(DataError):
            return Profile.read(file)
    return None


def find(client: Any, model: str, alias: str) -> Any | None:
    """The version of a model that has an alias, or None."""
    number = aliases(client, model).get(alias)
    return number and client.get_model_version(model, number)


def versions(client: Any, model: str, tags: Mapping[str, str | None] | None = None) -> list[Any]:
    """The versions of a model that have these tags, the latest first."""
    found = client.search_model_versions(f"name = '{model}'", order_by=["version_number DESC"])
    return [version for version in found if (tags or {}).items() <= version.tags.items()]


def aliases(client: Any, model: str) -> dict[str, str]:
    """The number of the version that has each alias of a model."""
    found = client.search_registered_models(f"name = '{model}'")
    # A database returns numbers, a server texts.
    return {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}


def download(client: Any, version: Any, folder: Path) -> Path:
    """Copy the files of a version into ``folder``; return their folder.

    Raises:
        MissingFilesError: the store responds and does not have them.
    """
    from mlflow.artifacts import download_artifacts

    location = client.get_model_version_download_uri(version.name, version.version)
    uri = mlflow_store.uri()
    try:
        path = within(
            DOWNLOAD_S, download_artifacts, location, dst_path=str(folder), tracking_uri=uri
        )
    except mlflow_store.failures() as error:
        if isinstance(error, TimeoutError) or not mlflow_store.responds(client):
            raise
        names = f" ({' and '.join(version.aliases)})" if version.aliases else ""
        raise MissingFilesError(
            f"the files of version {version.version} of {version.name}"
            f"{names} are not at {masked(location)}; restore them from a backup, or take the alias "
            "away from the version on its page in MLflow, so that the next promotion needs the "
            f"gate's bound alone ({mlflow_store.brief(error)})"
        ) from None
    return Path(path)


def register(study: Study, name: str, run: Any, examples: Examples) -> Any:
    """Register a result as it is on disk; return the version that exists where there is one.

    Args:
        study: of the result.
        name: of the run or ensemble.
        run: of the training, in MLflow.
        examples: that the version must reproduce.
    """
    entry, results, records = study.result(name), study.result_folder(name), dvc_lock.read(study)
    domain, data = entry["domain"], entry["data"]
    trained, evaluated = (records[stage] for stage in runs.stages_of(study, name))
    prepared, model = study.data_folder(data), model_name(study.name, data)
    deps = {**trained.deps, **evaluated.deps}
    ended = run.info.end_time or run.info.start_time
    tags = {
        "run": name,
        "study": study.path.as_posix(),
        "model": trained.outs[(results / "model").as_posix()],
        "data": trained.deps[prepared.as_posix()],
        "content": store.digest(results / "model"),
        "serving": code_digest(),
    }
    lineage = {
        "trained": datetime.fromtimestamp(ended / 1000, UTC).isoformat(),
        "commit": run.data.tags["commit"],
        "dirty": run.data.tags["dirty"],
        "code": json.dumps({path: md5 for path, md5 in deps.items() if path.startswith(CODE)}),
        "params": json.dumps(run.data.params),
        "scores": json.dumps(store.read_json(results / "metrics.json")),
    }
    with connected() as client:
        finish_alias_move(client, model)
        if found := versions(client, model, tags):
            return found[0]
    with store.temporary_folder() as temporary:
        parts = temporary / "parts"
        parts.mkdir()
        example = serving_of(domain).example or examples.inputs[0]
        pack(study, name, example, parts)
        arrays = store.read_arrays(results / "predictions.npz")
        reference.write_answers(domain, arrays, Manifest.read(prepared / "manifest.json"), parts)
        store.write_json(parts / "examples.json", vars(examples))
        text = card(study, name, {**tags, **lineage}, {"inputs": [example]})
        store.write_text(parts / "card.md", text)
        with connected() as client:
            with runs.logged_model(client, run, f"{run.info.run_name}-served") as (
                folder,
                described,
            ):
                save(domain, parts, folder, described)
            describe(client, model, domain)
            return client.create_model_version(
                model,
                described.artifact_path,
                run.info.run_id,
                {**tags, **lineage},
                description=text[:MAX_DESCRIPTION_CHARS],
                model_id=described.model_id,
            )


def code_digest() -> str:
    """The digest of the library, whose code a version carries."""
    library = Path(str(ostinato.__file__)).parent
    files = sorted(library.rglob("*.py"))
    return store.digest([file.relative_to(library).as_posix() for file in files], *files)


def save(domain: str, parts: Path, folder: Path, described: Any) -> None:
    """Write the MLflow model that answers requests to ``folder``.

    Args:
        domain: whose serving module answers.
        parts: the artifacts; at least model/, manifest.json and about.json.
        folder: an empty one.
        described: MLflow's description, which is completed.
    """
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    library, serving = Path(str(ostinato.__file__)).parent, serving_of(domain)
    packages = (*PACKAGES, *serving.packages)
    with TemporaryDirectory() as temporary:
        model_code.write(Path(temporary))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(library / "serving" / "mlflow_model.py"),
            artifacts={path.name: str(path) for path in parts.iterdir()},
            code_paths=[str(file) for file in sorted(Path(temporary).iterdir())],
            model_config={"domain": domain},
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
            mlflow_model=described,
        )
    if serving.options:
        options = infer_signature(params=dict(serving.options)).params
        described.signature.params = options
        described.save(str(folder / "MLmodel"))


def describe(client: Any, model: str, domain: str) -> None:
    """Create a registered model where there is none, and describe it."""
    about = inspect.getdoc(params.module(domain, "serving"))
    text = (
        f"{about}\n\n`{CHAMPION}` is the version in use, `{PREVIOUS}` the one before it, "
        f"`{CHALLENGER}` a version that waits for a reviewer. The flow `promote` moves the "
        "aliases; `rollback` swaps the first two."
    )
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model, {"domain": domain}, text)
    client.update_registered_model(model, text)


def card(study: Study, name: str, tags: Mapping[str, str], request: Mapping[str, Json]) -> str:
    """The model card of a result on disk: model, scores, data, limits, lineage and use.

    Args:
        study: of the result.
        name: of the run or ensemble.
        tags: of the version.
        request: an example.
    """
    entry = study.result(name)
    domain, data = entry["domain"], entry["data"]
    model, serving = model_name(study.name, data), serving_of(domain)
    values, scores = json.loads(tags["params"]), json.loads(tags["scores"])
    library = Path(str(ostinato.__file__)).parent
    code = library / domain / "models" / f"{study.model_name(name)}.py"
    raw = store.read_json(study.raw_folder(data) / "manifest.json")
    manifest = Manifest.read(study.data_folder(data) / "manifest.json")
    splits = (f"{split} {manifest.size(split):,}" for split in manifest.splits)
    contents = [f"{manifest.examples.capitalize()}: {', '.join(splits)}."]
    if classes := manifest.classes:
        more = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
        contents += [f"Classes ({len(classes)}): {', '.join(classes[:MAX_CLASSES])}{more}."]
    origin = [manifest.source, *filter(None, [raw.get("form")])]
    fetched = {k.removeprefix("data.fetch."): v for k, v in values.items() if "data.fetch." in k}
    options = {"params": dict(serving.options)} if serving.options else {}
    restore = f"`git checkout {tags['commit'][:12]} && dvc checkout`"
    if tags["commit"] == "none":
        restore = "`dvc checkout`, with the dvc.lock of that time (it was trained outside of git),"
    # The shell ends a text at an apostrophe.
    text = json.dumps({**request, **options}).replace("'", "\\u0027")
    body, hint = f"'{text}'", ""
    if len(text) > MAX_REQUEST_CHARS:
        body = "@artifacts/request.json"
        hint = (
            "\nrequest.json, among the version's artifacts, holds an example: "
            f"`mlflow artifacts download -u models:/{model}@{CHAMPION} -d .`\n"
        )
    return f"""\
# {name}

{ast.get_docstring(ast.parse(code.read_text(encoding="utf-8")))}

{inspect.getdoc(params.module(domain, "serving"))}

## Scores

| score | test split | 95% interval | validation split |
|---|---:|---|---:|
{chr(10).join(_score_rows(scores))}

## Data

Source: {", ".join(origin)}; licence: {raw.get("licence") or "that of the source"}.
{", ".join(f"{key} {value}" for key, value in fetched.items())}.
{" ".join(contents)}

## Limits

{serving.limits.rstrip()}
- The scores hold for data like the test split, which came from the source above.

## Lineage

Commit {tags["commit"]}{" with uncommitted changes" if tags["dirty"] == "true" else ""};
trained {tags["trained"][:19]} UTC. DVC's md5s: model {tags["model"]}, data {tags["data"]}.
{restore} restores all of it from DVC's cache.

## How to call it
{hint}
```sh
mlflow models serve -m models:/{model}@{CHAMPION} --env-manager local -p 5001
curl -H "Content-Type: application/json" http://127.0.0.1:5001/invocations \\
  -d {body}
```

In Python: `mlflow.pyfunc.load_model("models:/{model}@{CHAMPION}").predict([...])`, with a list of
the same inputs.
"""


def _score_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    """The rows of the card's table: each score with its interval, where it has one."""

    def shown(key: str) -> str:
        value = scores.get(key, "")
        if isinstance(value, float):
            return f"{value:.4g}"
        return "n/a" if value is None else f"{value:,}" if isinstance(value, int) else value

    for key in scores:
        if not (key.endswith(("_low", "_high")) or key.startswith("validation_")):
            ends = [shown(key + end) for end in ("_low", "_high") if key + end in scores]
            yield f"| {key} | {shown(key)} | {' to '.join(ends)} | {shown(f'validation_{key}')} |"


def move_aliases(client: Any, model: str, experiment: str, **to: str) -> None:
    """Point aliases to versions; `finish_alias_move` completes a move that a crash interrupts.

    Args:
        client: of the registry.
        model: whose aliases are moved.
        experiment: name of the experiment with the runs of the versions.
        to: the number of a version for each alias.
    """
    client.set_registered_model_tag(model, MOVE, json.dumps({"to": to, "experiment": experiment}))
    finish_alias_move(client, model)


def finish_alias_move(client: Any, model: str) -> None:
    """Complete a move of the aliases that a crash has interrupted, and tag the runs accordingly.

    The run of a version with an alias has the alias as its tag ``alias``.
    """
    from mlflow.exceptions import MlflowException

    found = client.search_registered_models(f"name = '{model}'")
    if not found or MOVE not in found[0].tags:
        return
    move = json.loads(found[0].tags[MOVE])
    for alias, number in move["to"].items():
        client.set_registered_model_alias(model, alias, number)
    now = aliases(client, model)
    if now.get(CHALLENGER) == now[CHAMPION]:
        client.delete_registered_model_alias(model, CHALLENGER)
        del now[CHALLENGER]
    order = [alias for alias in (CHALLENGER, PREVIOUS, CHAMPION) if alias in now]
    tagged = {client.get_model_version(model, now[alias]).run_id: alias for alias in order}
    experiment = mlflow_store.experiment(client, move["experiment"])
    for run in client.search_runs([experiment], "tags.alias != ''"):
        client.delete_tag(run.info.run_id, "alias")
    for run_id, alias in tagged.items():
        with suppress(MlflowException):  # the run has been deleted
            client.set_tag(run_id, "alias", alias)
    client.delete_registered_model_tag(model, MOVE)
