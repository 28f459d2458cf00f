"""MLflow's registry of models: a registered model for each domain, by the domain's name.

Aliases: ``champion`` is the version in use, ``previous`` the one before it, ``challenger`` a
winner that waits for a reviewer. A version's tags:

- run: its name in params.yaml; trained: when, ISO 8601 in UTC
- commit, dirty: of git, when it was trained
- model: DVC's md5 of the .keras file; data: that of the prepared data set; serving: that of the
  code which the version carries
- code, params, scores: all md5s, parameters and numbers, as JSON
- check: how a fresh process answered; verdict: why it became champion; rolled back: to what

A version's folder holds artifacts/ with model.keras, manifest.json (of the prepared data),
about.json, examples.json (raw examples, and what evaluation answered), request.json (what the
model card asks), card.md, the FILES of the domain's served.py and, where the data set has one,
profile.json.
"""

import ast
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ostinato import params, store
from ostinato.tracking import mirror

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ROLLED_BACK = "rolled back"  # tag of a version that a rollback left
MOVE = "move"  # tag of a registered model: the aliases that are being moved
PACKAGES = (*mirror.PACKAGES, "matplotlib", "numba", "orjson", "pandas")
CODE = ("ostinato/", "stages/")
LONGEST = 5000  # characters of a description in MLflow's database
ENSEMBLE = "ensemble"  # the module of what several runs make together
SHOWN = 40  # classes in it
SHORT = 2000  # characters of a request that is shown in it


class RegistryError(RuntimeError):
    """The registry does not answer, or does not hold what is asked for; the message says which."""


@contextmanager
def connected() -> Iterator[Any]:
    """A client of the registry; what goes wrong between it and MLflow is one clear error."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with mirror.connected() as client:
            yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = mirror.masked(" ".join(str(error).split()))[:500]
        raise RegistryError(f"MLflow at {mirror.masked(mirror.uri())}: {told}") from None


def champion(domain: str) -> Any | None:
    """The version of a domain's model that is in use, with its ``tags``; None: there is none."""
    with connected() as client:
        return find(client, domain, CHAMPION)


def age(version: Any) -> timedelta:
    """The time since a version was trained."""
    return datetime.now(UTC) - datetime.fromisoformat(version.tags["trained"])


def profile(domain: str) -> dict[str, Any] | None:
    """What the champion's data looked like: its data set's profile.json, if it has one."""
    with connected() as client, TemporaryDirectory() as temporary:
        if version := find(client, domain, CHAMPION):
            file = download(client, version, Path(temporary)) / "artifacts" / "profile.json"
            if file.exists():
                return dict(store.read_json(file))
    return None


def find(client: Any, domain: str, alias: str) -> Any | None:
    """The version of a domain's model that has an alias, or None."""
    number = aliases(client, domain).get(alias)
    return number and client.get_model_version(domain, number)


def versions(client: Any, domain: str, tags: Mapping[str, str | None] | None = None) -> list[Any]:
    """The versions of a domain's model that have these tags, the latest first."""
    found = client.search_model_versions(f"name = '{domain}'", order_by=["version_number DESC"])
    return [version for version in found if (tags or {}).items() <= version.tags.items()]


def aliases(client: Any, domain: str) -> dict[str, str]:
    """The aliases of a domain's model, each with its version's number."""
    found = client.search_registered_models(f"name = '{domain}'")
    # Of a database they are numbers, of a server texts.
    return {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}


def download(client: Any, version: Any, folder: Path) -> Path:
    """Copy a version's model into ``folder``, and return where it is."""
    from mlflow.artifacts import download_artifacts

    location = client.get_model_version_download_uri(version.name, version.version)
    path = download_artifacts(location, dst_path=str(folder), tracking_uri=mirror.uri())
    return Path(path)


def register(domain: str, name: str, run: Any, examples: Mapping[str, Any]) -> Any:
    """The version that is the result of run ``name``, as it is on disk; made if there is none.

    Args:
        domain: of the run.
        name: of the run in params.yaml.
        run: MLflow's, of the training.
        examples: raw inputs, and what evaluation answered.
    """
    results, stages = mirror.result(name)
    trained, scores = (mirror.locked()[f"{stage}@{name}"] for stage in stages)
    data = run.data.params["data"]
    prepared = mirror.locked()[f"prepare@{data}"]
    folder = Path("data", data)
    deps, ended = {**trained["deps"], **scores["deps"]}, run.info.end_time or run.info.start_time
    tags = {
        "run": name,
        "model": trained["outs"][f"{results}/model.keras"],
        "data": trained["deps"][folder.as_posix()],
        "serving": mirror.md5_of(Path("ostinato")),
    }
    about = {
        "domain": domain,
        "run": name,
        "model": run.data.params.get("model", ENSEMBLE),
        "prepare": prepared["params"][f"data.{data}.prepare"],
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
        settle(client, domain)
        if known := versions(client, domain, tags):
            return known[0]
    with store.temporary_folder() as temporary:
        parts = temporary / "parts"
        parts.mkdir()
        served = params.module(domain, "serving")
        for file in ("results/model.keras", "data/manifest.json", *getattr(served, "FILES", ())):
            side, _, path = file.partition("/")
            shutil.copy({"results": results, "data": folder}[side] / path, parts)
        if (folder / "profile.json").exists():
            shutil.copy(folder / "profile.json", parts)
        store.write_json(parts / "about.json", about)
        store.write_json(parts / "examples.json", examples)
        asked = {"inputs": [getattr(served, "EXAMPLE", examples["inputs"][0])]}
        store.write_text(parts / "request.json", json.dumps(asked))
        text = card(domain, name, {**tags, **lineage}, asked)
        store.write_text(parts / "card.md", text)
        with connected() as client:
            name = f"{run.info.run_name}-served"
            with mirror.logged_model(client, run, name) as (made, described):
                save(domain, parts, made, described)
            _describe(client, domain)
            return client.create_model_version(
                domain,
                described.artifact_path,
                run.info.run_id,
                {**tags, **lineage},
                description=text[:LONGEST],
                model_id=described.model_id,
            )


def save(domain: str, parts: Path, folder: Path, described: Any) -> None:
    """Write the model that answers raw input, from the files in ``parts``, to ``folder``.

    Args:
        domain: whose served.py answers.
        parts: at least model.keras, manifest.json and about.json.
        folder: an empty one.
        described: MLflow's description, to be completed.
    """
    import mlflow.pyfunc
    from mlflow.types import ParamSchema, ParamSpec

    packages = (*PACKAGES, *getattr(params.module(domain, "serving"), "PACKAGES", ()))
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(Path(__file__).with_name("served.py")),
        artifacts={path.name: str(path) for path in parts.iterdir()},
        code_paths=["ostinato"],
        model_config={"domain": domain},
        pip_requirements=[f"{package}=={version(package)}" for package in packages],
        mlflow_model=described,
    )
    described.signature.params = ParamSchema([ParamSpec("best", "long", 0)])
    described.save(str(folder / "MLmodel"))


def _describe(client: Any, domain: str) -> None:
    """Make the domain's registered model, if there is none, and say what it is."""
    about = inspect.getdoc(params.module(domain, "serving"))
    text = (
        f"{about}\n\n`{CHAMPION}` is the version in use, `{PREVIOUS}` the one before it, "
        f"`{CHALLENGER}` one that waits for a reviewer. The flow `promote` moves them; "
        "`rollback` swaps the first two."
    )
    if not client.search_registered_models(f"name = '{domain}'"):
        client.create_registered_model(domain, {"domain": domain}, text)
    client.update_registered_model(domain, text)


def card(domain: str, name: str, tags: Mapping[str, str], asked: Mapping[str, Any]) -> str:
    """The model card of a result on disk: what it is, what it saw, how good, how to call it.

    Args:
        domain: of the run.
        name: of the run.
        tags: of the version.
        asked: an example of a request.
    """
    served = params.module(domain, "serving")
    values, scores = json.loads(tags["params"]), json.loads(tags["scores"])
    source = Path("ostinato", domain, f"{values.get('model', ENSEMBLE)}.py")
    raw = store.read_json(Path("data", "raw", values["data"], "manifest.json"))
    manifest = store.read_json(Path("data", values["data"], "manifest.json"))
    classes = manifest.get("classes", [])
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    rows = []
    for key, value in scores.items():
        if not key.endswith(("_low", "_high")):
            ends = [f"{scores[key + end]:.4g}" for end in ("_low", "_high") if key + end in scores]
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
            rows.append(f"| {key} | {shown} | {' to '.join(ends)} |")
    kind = next(iter(manifest["splits"]["train"]))  # what the domain calls its examples
    splits = (f"{split} {number[kind]:,}" for split, number in manifest["splits"].items())
    seen = [f"{kind.capitalize()}: {', '.join(splits)}."]
    if classes:
        seen += [f"Classes ({len(classes)}): {', '.join(classes[:SHOWN])}{more}."]
    origin = [raw["source"], *filter(None, [raw.get("form")])]
    fetched = {k.removeprefix("data.fetch."): v for k, v in values.items() if "data.fetch." in k}
    best = {"params": {"best": 3}} if classes else {}
    request = json.dumps({**asked, **best}).replace("'", "\\u0027")  # the shell ends a text at one
    if len(request) > SHORT:
        body = "@artifacts/request.json"
        how = (
            "\nrequest.json, among the version's artifacts, holds an example: "
            f"`mlflow artifacts download -u models:/{domain}@{CHAMPION} -d .`\n"
        )
    else:
        body, how = f"'{request}'", ""
    return f"""\
# {name}

{ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))}

{inspect.getdoc(served)}

## Scores on the test split

| score | value | 95% interval |
|---|---:|---|
{chr(10).join(rows)}

## Data

Source: {", ".join(origin)}; licence: {raw.get("licence") or "the source's own"}.
{", ".join(f"{key} {value}" for key, value in fetched.items())}.
{" ".join(seen)}

## Limits

{served.LIMITS}- The scores hold for data like the test split's, which came from the source above.

## Lineage

Commit {tags["commit"]}{" with uncommitted changes" if tags["dirty"] == "true" else ""};
trained {tags["trained"][:19]} UTC. DVC's md5s: model {tags["model"]}, data {tags["data"]}.
`git checkout {tags["commit"][:12]} && dvc checkout` brings all of it back, where the cache has it.

## How to call it
{how}
```sh
mlflow models serve -m models:/{domain}@{CHAMPION} --env-manager local -p 5001
curl -H "Content-Type: application/json" http://127.0.0.1:5001/invocations \\
  -d {body}
```

In Python: `mlflow.pyfunc.load_model("models:/{domain}@{CHAMPION}").predict([...])`, with a list of
the same inputs.
"""


def move(client: Any, domain: str, **to: str) -> None:
    """Point aliases to versions. One that a crash leaves half-way is finished by `settle`."""
    client.set_registered_model_tag(domain, MOVE, json.dumps(to))
    settle(client, domain)


def settle(client: Any, domain: str) -> None:
    """Finish a move of the aliases that a crash left half-way, and mark the runs accordingly.

    The training's run of a version with an alias has it as the tag ``alias``.
    """
    from mlflow.exceptions import MlflowException

    found = client.search_registered_models(f"name = '{domain}'")
    if not found or MOVE not in found[0].tags:
        return
    for alias, number in json.loads(found[0].tags[MOVE]).items():
        client.set_registered_model_alias(domain, alias, number)
    now = aliases(client, domain)
    if now.get(CHALLENGER) == now[CHAMPION]:
        client.delete_registered_model_alias(domain, CHALLENGER)
        del now[CHALLENGER]
    order = [alias for alias in (CHALLENGER, PREVIOUS, CHAMPION) if alias in now]
    marked = {client.get_model_version(domain, now[alias]).run_id: alias for alias in order}
    for run in client.search_runs([mirror.experiment(client, domain)], "tags.alias != ''"):
        client.delete_tag(run.info.run_id, "alias")
    for run_id, alias in marked.items():
        with suppress(MlflowException):  # somebody has deleted the run
            client.set_tag(run_id, "alias", alias)
    client.delete_registered_model_tag(domain, MOVE)
