"""Who is champion: ``promote`` lets each domain's best run challenge it, ``rollback`` undoes.

A challenger has to keep the bound of its gate (`Gate`), and to be better than the champion on the
very same test examples, by a margin that the paired bootstrap supports; examples that are not
independent (forecasts of the same days) are drawn together. The champion answers them anew, with
the code that it was registered with. Before the alias moves, a fresh process loads the
new version and has to answer as evaluation did. Each verdict is kept with its numbers: as a run of
its own in MLflow (stage ``promote``), with the challenger's run, and as Prefect's artifact.
By hand: ``python -m flows.promote [DOMAIN ...] [--version N | --rollback]``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_run_logger
from pydantic import Field

from flows.engine import checkout, commands, dvc_graph
from ostinato import errors, params, store
from ostinato.evaluation import bootstrap
from ostinato.policies import Gate
from ostinato.tracking import mirror, registry
from ostinato.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, ROLLED_BACK

EXAMPLES = 16  # that a fresh process answers before an alias moves
TOLERANCE = 0.005  # of the largest answer: some are kept in half precision, and machines round
DIFFERING = 0.1  # share of answered texts: where two are as likely, machines choose otherwise

Array = NDArray[Any]
Verdict = dict[str, Any]


class PromoteError(RuntimeError):
    """Nothing can be promoted; the message says why, and the aliases are as they were."""


class Result(NamedTuple):
    """A run that was scored: its name, the md5 of its model, and what it predicted."""

    run: str
    model: str
    data: str  # name of the data set
    arrays: dict[str, Array]
    outcomes: Array  # more is better


@flow(name="promote", validate_parameters=True)
def promote(
    domains: list[str] = [],  # noqa: B006 - Prefect's form shows it; nothing changes it
    version: Annotated[int, Field(ge=1)] | None = None,
) -> dict[str, Verdict]:
    """Make the best run or ensemble of each domain champion, if it passes the domain's gate.

    Args:
        domains: whose challengers are judged, such as sketches; none: all that have a gate in
            params.yaml.
        version: approve this version of the one domain: make it champion after the same check in
            a fresh process, whatever the gate says.
    """
    values = dvc_graph.check_study()
    gates = params.entry(values, "gates")
    names = domains or list(gates)
    bound = {name: params.bind(Gate, params.entry(gates, name))() for name in names}
    for name, gate in bound.items():
        gate.check(name)
    if version is None:
        with checkout.checkout():
            states = {
                name: challenge(name, gate, values["seed"], return_state=True)
                for name, gate in bound.items()
            }
            return {name: state.result() for name, state in states.items()}
    if len(names) != 1:
        raise PromoteError(f"version {version} of which domain? Name one of {', '.join(names)}")
    with commands.supervised():
        return {names[0]: approve(names[0], str(version))}


@flow(name="rollback", validate_parameters=True)
def rollback(domain: str) -> Verdict:
    """Swap champion and previous champion of a domain; a second time swaps back.

    What was rolled back does not become champion by itself again: a reviewer has to approve it.

    Args:
        domain: whose model, such as sketches.
    """
    try:
        dvc_graph.check_study()
    except (errors.ParamsError, RuntimeError) as error:  # it reads none of it, and may be urgent
        get_run_logger().warning(f"{error}\nThe rollback goes on: it needs no value of params.yaml")
    with _alone(domain):
        with registry.connected() as client:
            registry.settle(client, domain)
            aliases = registry.aliases(client, domain)
        now, back = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if now is None or back in (None, now):
            has = f"version {now} alone" if now else "no champion"
            raise PromoteError(f"{domain}: no previous champion to go back to; there is {has}")
        verdict: Verdict = {
            "promoted": False,
            "reason": f"rolled back from version {now}",
            "version": int(back),
            "champion": int(now),
        }
        with registry.connected() as client:
            reason = f"to version {back}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            client.set_model_version_tag(domain, now, ROLLED_BACK, reason)
        _crown(domain, back, verdict)
        with registry.connected() as client:
            run = client.get_model_version(domain, back).run_id
        _record(domain, verdict, None, run)
        return _tell(domain, verdict)


@contextmanager
def _alone(domain: str) -> Iterator[None]:
    """One at a time decides on a domain, on all machines that share Prefect's server."""
    limit = f"promote-{domain}"
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(limit, 1)
    # A killed flow's slot is free after 60 s.
    with concurrency(limit, occupy=1, strict=True, lease_duration=60):
        yield


@task(task_run_name="challenge {domain}", cache_policy=NO_CACHE)
def challenge(domain: str, gate: Gate, seed: int) -> Verdict:
    """Judge the best run of a domain, and crown it if it wins."""
    say = get_run_logger().info
    with _alone(domain):
        best, skipped = results(domain, gate)
        for reason in skipped:
            say(f"Left out: {reason}")
        if best is None:
            reason = "no run of this domain has results to judge; run reproduce"
            return _tell(domain, {"promoted": False, "reason": reason, "left_out": skipped})
        with registry.connected() as client:
            registry.settle(client, domain)
            champion = registry.find(client, domain, CHAMPION)
            same = registry.versions(client, domain, {"model": best.model})
        verdict: Verdict = {
            "promoted": False,
            "run": best.run,
            "metric": gate.metric,
            "score": gate.score(best.outcomes),
            "at_least": gate.at_least,
            "at_most": gate.at_most,
            "examples": len(best.outcomes),
            "champion": champion and int(champion.version),
            "left_out": skipped,
        }
        if champion and champion.tags.get("model") == best.model:
            told = f"nothing to do: {best.run} is the champion, version {champion.version}"
            return _tell(domain, verdict | {"reason": told})
        if banned := [version for version in same if ROLLED_BACK in version.tags]:
            told = f"{best.run} is version {banned[0].version}, which was rolled back"
            return _tell(domain, verdict | {"reason": f"{told}; approve it to have it again"})
        trained = _training(best.run)
        passed, verdict["reason"] = gate.kept(verdict["score"])
        failure = None
        try:
            if passed:
                asked = _questions(best.run, gate.limit if champion else EXAMPLES)
            if passed and champion:
                passed = _duel(domain, best, champion, asked, gate, seed, verdict)
            if passed:
                version = registry.register(domain, best.run, trained, _examples(best, asked))
                verdict["version"] = int(version.version)
                _verify(domain, version)
                if gate.approval:
                    with registry.connected() as client:
                        client.set_registered_model_alias(domain, CHALLENGER, version.version)
                    verdict["reason"] += f"; version {version.version} waits for approval"
                else:
                    _crown(domain, str(version.version), verdict)
        except PromoteError as error:
            failure = error
            verdict["reason"] = str(error)
        _record(domain, verdict, gate, trained.info.run_id)
        _tell(domain, verdict)
        if failure:
            raise failure
        return verdict


@task(task_run_name="approve {domain} {number}", cache_policy=NO_CACHE)
def approve(domain: str, number: str) -> Verdict:
    """Make a version champion because a reviewer says so, if it answers as it should."""
    with _alone(domain):
        with registry.connected() as client:
            registry.settle(client, domain)
            versions = {str(v.version): v for v in registry.versions(client, domain)}
            champion = registry.aliases(client, domain).get(CHAMPION)
        if number not in versions:
            raise PromoteError(f"{domain}: no version {number}; {params.near(number, versions)}")
        verdict: Verdict = {
            "promoted": False,
            "reason": f"nothing to do: version {number} is the champion",
            "run": versions[number].tags.get("run"),
            "version": int(number),
            "champion": champion and int(champion),
        }
        if number != champion:
            _verify(domain, versions[number])
            verdict["reason"] = f"version {number} was approved"
            _crown(domain, number, verdict)
            _record(domain, verdict, None, versions[number].run_id)
        return _tell(domain, verdict)


def results(domain: str, gate: Gate) -> tuple[Result | None, list[str]]:
    """The best of the domain's runs by the gate's metric, and why others were left out.

    Raises:
        ParamsError: the runs are on several data sets, or on none of the name that the gate has.
    """
    scores = params.module(domain, "evaluation")
    found, skipped = [], []
    values = params.load()
    entries = {**values["runs"], **values.get("ensembles", {})}
    runs = {name: run for name, run in entries.items() if run["domain"] == domain}
    known = sorted({run["data"] for run in runs.values()})
    if gate.data not in known and (gate.data or len(known) > 1):
        told = params.near(gate.data or "", known)
        raise errors.ParamsError(f"gates.{domain}.data: the runs of which data set? {told}")
    for name, run in runs.items():
        if gate.data not in (None, run["data"]):
            continue
        if problem := _stale(name, run["data"]):
            skipped.append(f"{name}: {problem}")
            continue
        folder, (made, _) = mirror.result(name)
        arrays = store.read_arrays(folder / "predictions.npz")
        outcomes = scores.outcomes(gate.metric, arrays)
        if np.isnan(outcomes).all():
            skipped.append(f"{name}: its {gate.metric} is not a number")
            continue
        model = mirror.locked()[f"{made}@{name}"]["outs"][f"{folder}/model.keras"]
        found.append(Result(name, str(model), run["data"], arrays, outcomes))
    return max(found, key=lambda result: float(np.nanmean(result.outcomes)), default=None), skipped


def _stale(name: str, data: str) -> str | None:
    """Why the results of a run on disk cannot be judged, if so."""
    folder, raw = f"data/{data}", f"data/raw/{data}"
    results, stages = mirror.result(name)
    entries = []
    for stage, key in (("prepare", data), *((stage, name) for stage in stages)):
        if (entry := mirror.recorded(stage, key)) is None:
            return f"{stage}@{key} is not on disk as dvc.lock has it; run reproduce"
        entries.append(entry)
    prepare, made, scored = entries
    model = f"{results}/model.keras"
    if {**scored["deps"], **scored["outs"]}[model] != made["outs"][model]:
        return "its scores are an earlier model's; run reproduce"
    if scored["deps"][folder] != prepare["outs"][folder]:
        return f"it was tested on other data than {folder} holds now; run reproduce"
    if prepare["deps"][raw] != mirror.md5_of(Path(raw)):
        return f"{raw} is not what {folder} was prepared from; run reproduce, or dvc checkout"
    return None


def _training(name: str) -> Any:
    """MLflow's complete run of a result; mirrored from the files now, if it is not there."""
    for again in (True, False):
        with registry.connected() as client:
            if run := mirror.training(client, name):
                return run
        if again:
            _command(sys.executable, "-m", "ostinato.tracking.mirror")
    raise PromoteError(
        f"MLflow has no run of {name}; see what `python -m ostinato.tracking.mirror` says"
    )


def _questions(name: str, limit: int) -> dict[str, Any]:
    with store.temporary_folder() as temporary:
        file = temporary / "questions.json"
        _command(sys.executable, "-m", "stages.sample_requests", name, str(limit), str(file))
        asked: dict[str, Any] = store.read_json(file)
    if not asked["keys"]:
        raise PromoteError(f"none of the examples that {name} was tested on is in its raw data")
    return asked


def _examples(result: Result, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A few raw examples, and what evaluation answered: what a version has to repeat for ever."""
    keys = asked["keys"][:EXAMPLES]
    rows = _rows(result, keys)
    truth, classes = _truth(result, rows)
    return {
        "inputs": asked["inputs"][:EXAMPLES],
        "truth": truth,
        "classes": classes,
        "answers": {
            key: _plain(array[rows])
            for key, array in result.arrays.items()
            if key not in ("keys", "truth") and array.dtype.kind in "fU"
        },
    }


def _plain(array: Array) -> list[Any]:
    """An array as JSON holds it, NaN as null."""
    cells = array.astype(object)
    if array.dtype.kind == "f":
        cells[np.isnan(array)] = None
    plain: list[Any] = cells.tolist()
    return plain


def _truth(result: Result, rows: list[int]) -> tuple[list[Any], list[str]]:
    """What is true of some examples, by name where it is a class, and the names of all classes."""
    classes = store.read_json(Path("data", result.data, "manifest.json")).get("classes", [])
    truth = _plain(result.arrays["truth"][rows])
    return [classes[i] for i in truth] if classes else truth, classes


def _rows(result: Result, keys: Sequence[str]) -> list[int]:
    place = {key: row for row, key in enumerate(result.arrays["keys"].tolist())}
    return [place[key] for key in keys]


def _duel(
    domain: str,
    best: Result,
    champion: Any,
    asked: Mapping[str, Any],
    gate: Gate,
    seed: int,
    verdict: Verdict,
) -> bool:
    """Whether the challenger beats the champion on the same examples; the verdict gets why."""
    rows, scores = _rows(best, asked["keys"]), params.module(domain, "evaluation")
    with TemporaryDirectory() as temporary:
        with registry.connected() as client:
            folder = registry.download(client, champion, Path(temporary))
        told = _answers(folder, asked["inputs"], f"champion, version {champion.version},")
    ours = {key: array[rows] for key, array in best.arrays.items()}
    try:  # other classes are comparable; another horizon, say, is not
        theirs = params.module(domain, "serving").arrays(told, *_truth(best, rows))
        old, new = scores.outcomes(gate.metric, {**ours, **theirs}), best.outcomes[rows]
        both, together = ~np.isnan(new) & ~np.isnan(old), None
        if find := getattr(scores, "clusters", None):
            together = find(best.arrays)[rows][both]
            verdict["clusters"] = len(np.unique(together))
        means = bootstrap.paired_bootstrap(new[both], old[both], gate.resamples, seed, together)
    except ValueError as error:
        raise PromoteError(
            f"{best.run} cannot be compared with the champion, version {champion.version}: {error}"
        ) from None
    low, high = bootstrap.interval(means, gate.confidence)
    difference = float(np.mean(new[both] - old[both]))
    passed = low >= gate.margin and low > 0
    verdict |= {
        "compared": int(both.sum()),
        "champion_score": gate.score(old[both]),
        "difference": difference,
        "low": low,
        "high": high,
    }
    verdict["reason"] = (
        f"{'' if passed else 'not shown to be '}better than version {champion.version}: "
        f"{'' if gate.at_most is None else 'less '}{gate.metric} {difference:+.4f}, "
        f"{gate.confidence:.0%} interval {low:+.4f} to {high:+.4f} on {both.sum():,} examples; "
        f"its lower end {'reaches' if passed else 'misses'} the margin {gate.margin:g}"
    )
    return passed


def _answers(folder: Path, inputs: Sequence[Any], whose: str) -> list[dict[str, Any]]:
    """What the model in ``folder`` answers in a process that knows no other code than its own."""
    with store.temporary_folder() as temporary:
        requests, responses = temporary / "requests.json", temporary / "responses.json"
        store.write_text(requests, json.dumps({"inputs": inputs}))
        _command(
            *(sys.executable, "-I", "-m", "mlflow", "models", "predict", "-m", str(folder)),
            *("-i", str(requests), "-o", str(responses), "-t", "json", "--env-manager", "local"),
            failing=f"the {whose} does not answer",
            env={
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "CUDA_VISIBLE_DEVICES": "-1",  # a training may have the memory of the GPU
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        )
        return list(store.read_json(responses)["predictions"])


def _command(*argv: str, failing: str | None = None, env: Mapping[str, str] | None = None) -> None:
    output = commands.run(*argv, on_line=get_run_logger().debug, env=env)
    if output.code:
        last = "\n".join(output.lines[-5:])
        raise PromoteError(f"{failing or ' '.join(argv[1:4])} (exit code {output.code}): {last}")


def _verify(domain: str, version: Any) -> None:
    """Load a version in a fresh process: it has to answer its examples as evaluation did.

    Raises:
        PromoteError: it does not, which becomes a tag of the version.
    """
    name, failure = f"version {version.version}", None
    try:
        with TemporaryDirectory() as temporary:
            with registry.connected() as client:
                folder = registry.download(client, version, Path(temporary))
            md5 = mirror.md5_of(folder / "artifacts" / "model.keras")
            if md5 is None or md5 != version.tags.get("model"):
                raise PromoteError(f"{name}: model.keras is not the file that was registered")
            examples = store.read_json(folder / "artifacts" / "examples.json")
            told = _answers(folder, examples["inputs"], name)
        served = params.module(domain, "serving")
        answers = served.arrays(told, examples["truth"], examples["classes"])
        check = f"passed: {len(told)} examples as in evaluation{_gap(name, answers, examples)}"
    except PromoteError as error:
        failure, check = error, f"failed: {error}"
    with registry.connected() as client:
        client.set_model_version_tag(domain, version.version, "check", check)
    if failure:
        raise failure


def _gap(name: str, answers: Mapping[str, Array], examples: Mapping[str, Any]) -> str:
    """How answers differ from those of evaluation, in words: numbers and texts of the same name.

    Raises:
        PromoteError: too much, or nothing can be compared.
    """
    expected = {k: v for k, v in examples["answers"].items() if k in answers}
    numbers, texts = [], []
    for key, told in expected.items():
        if answers[key].dtype.kind == "f":
            then = np.array(told, np.float64)
            size = np.nanmax(np.abs(then), initial=0.0) or 1.0
            numbers.append(float(np.max(np.abs(answers[key] - then)) / size))
        else:
            texts.append(float(np.mean(answers[key] != np.array(told))))
    if not expected:
        raise PromoteError(f"{name}: nothing that it answers is among what evaluation keeps")
    if numbers and not max(numbers) <= TOLERANCE:
        raise PromoteError(
            f"{name} answers otherwise than in evaluation, by up to {max(numbers):.3g} of the "
            "largest answer"
        )
    if texts and max(texts) > DIFFERING:
        raise PromoteError(f"{name} answers otherwise than in evaluation: {max(texts):.0%} of them")
    return f", to {max(numbers):.2g}" if numbers else ""


def _crown(domain: str, number: str, verdict: Verdict) -> None:
    """Move the alias to a version, keep the former one as previous, and tell the world."""
    with registry.connected() as client:
        former = registry.aliases(client, domain).get(CHAMPION)
        if ROLLED_BACK in client.get_model_version(domain, number).tags:
            client.delete_model_version_tag(domain, number, ROLLED_BACK)
        client.set_model_version_tag(domain, number, "verdict", verdict["reason"])
        registry.move(client, domain, **({PREVIOUS: former} if former else {}), champion=number)
    verdict["promoted"] = True
    emit_event(
        event="ostinato.champion.changed",
        resource={
            "prefect.resource.id": f"ostinato.model.{domain}",
            "prefect.resource.name": domain,
        },
        payload={"from": former, "to": number, "reason": verdict["reason"]},
    )


def _record(domain: str, verdict: Verdict, gate: Gate | None, challenger: str) -> None:
    """Keep a verdict in MLflow: a run of its own, and tags and metrics of the challenger's run."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    numbers = {
        key: float(value)
        for key, value in verdict.items()
        if isinstance(value, int | float) and key not in ("promoted", "version", "champion")
    }
    said = {
        "stage": "promote",
        "promoted": str(verdict["promoted"]).lower(),
        "reason": verdict["reason"],
        **{key: str(verdict[key]) for key in ("run", "version", "champion") if verdict.get(key)},
        "mlflow.note.content": _markdown(domain, verdict),
    }
    with registry.connected() as client:
        run = client.create_run(
            mirror.experiment(client, domain), run_name=f"promote {domain}", tags=said
        )
        now = run.info.start_time
        settings = [Param(key, str(value)) for key, value in (asdict(gate) if gate else {}).items()]
        kept = [Metric(f"gate/{key}", value, now, 0) for key, value in numbers.items()]
        client.log_batch(run.info.run_id, kept, settings)
        client.set_terminated(run.info.run_id)
        outcome = "passed" if verdict["promoted"] else "not promoted"
        tags = [RunTag("gate", f"{outcome}: {verdict['reason']}")]
        with suppress(MlflowException):  # somebody has deleted the run of an old version
            client.log_batch(challenger, kept, tags=tags)


def _tell(domain: str, verdict: Verdict) -> Verdict:
    """Show a verdict in the log and as an artifact."""
    get_run_logger().info(f"{domain}: {verdict['reason']}")
    create_markdown_artifact(
        key=f"promote-{domain.replace('_', '-')}",
        markdown=_markdown(domain, verdict),
        description=f"{domain}: who is champion, and why",
    )
    return verdict


def _markdown(domain: str, verdict: Verdict) -> str:
    head = "a new champion" if verdict["promoted"] else "the champion stays"
    lines = [f"## {domain}: {head}", "", verdict["reason"], "", "| | |", "|---|---|"]
    for key, value in verdict.items():
        if key not in ("promoted", "reason", "left_out") and value is not None:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    lines += ["", *(f"- left out: {reason}" for reason in verdict.get("left_out", []))]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description=__doc__)
    parser.add_argument("domains", nargs="*", help="none: all that have a gate")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--version", type=int, help="approve this version of the one domain")
    action.add_argument("--rollback", action="store_true", help="swap champion and previous")
    given = parser.parse_args()
    if not given.rollback:
        promote(given.domains, given.version)
    elif not given.domains:
        parser.error("--rollback of which domain?")
    else:
        for domain in given.domains:
            rollback(domain)


if __name__ == "__main__":
    main()
