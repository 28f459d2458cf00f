"""The scheduled flow: fetch new data, and train anew where they or the champion's age ask for it.

Each data set is fetched, prepared, and compared with what its domain's champion was trained on
(ostinato/data/drift.py). Where nothing asks for a training, and where a step before it fails, the
former data come back: data, results and dvc.lock fit together again, if need be after the next run
(of one that was killed). What was done, and why, is told with figures by an artifact in Prefect,
and by a run (stage ``retrain``) in MLflow.

By hand: ``python -m flows.retrain [DATA ...] [--oldest DAYS] [--force]``.
"""

import argparse
import json
import math
import re
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import Field

from flows.engine import checkout, dvc_graph
from flows.promote import promote
from flows.reproduce import bring, reproduce, retry_policies
from ostinato import params, store
from ostinato.data import drift
from ostinato.tracking import mirror, registry

LOCK = Path("dvc.lock")


class RetrainError(RuntimeError):
    """A data set could not be brought up to date; the message says which, where and why."""


@dataclass
class Story:
    """What is known of a data set, and what was done about it: what the report tells."""

    data: str
    domain: str
    limits: dict[str, Any]  # of drift.compare
    champion: Any = None  # its version in the registry
    age: float | None = None  # of the champion, in days
    then: drift.Profile | None = None  # the profile of the champion's data
    now: drift.Profile | None = None
    drift: list[dict[Any, Any]] = field(default_factory=list)  # the rows of drift.compare
    because: list[str] = field(default_factory=list)  # why it is trained anew
    stages: list[dict[str, Any]] = field(default_factory=list)  # what reproduce did
    verdict: dict[str, Any] | None = None  # of promote
    error: str = ""

    @property
    def outcome(self) -> str:
        """What was done and why."""
        if self.error:
            return f"failed: {self.error}"
        if self.verdict:
            return f"retrained: {'; '.join(self.because)}. {self.verdict['reason']}"
        peaks = []
        for measure in ("psi", "ks"):
            known = [row for row in self.drift if not math.isnan(row[measure])]
            if known:
                top = max(known, key=lambda row: row[measure])
                peaks.append(f"{measure.upper()} {top[measure]:.3f} of {top['feature']}")
        bounds = f"PSI {self.limits['psi']:g}, KS {self.limits['ks']:g}"
        return (
            f"not retrained: none of {len(self.drift)} features drifted (at most "
            f"{', '.join(peaks)}; large from {bounds}); the champion, version "
            f"{self.champion.version}, is {self.age:.1f} days old"
        )


@flow(name="retrain")
def retrain(
    data: list[str] = [],  # noqa: B006 - Prefect's form shows it; nothing changes it
    oldest: Annotated[float, Field(gt=0)] = 30.0,
    force: bool = False,
    at_once: Annotated[int, Field(ge=1, le=100)] = 2,
    train_on: str | None = None,
) -> Any:
    """Fetch new data, and train and promote anew where they drifted or the champion is too old.

    A data set that fails does not stop the others; the flow fails after them.

    Args:
        data: Data sets of params.yaml, such as sketches; all when empty.
        oldest: Days since its training, after which a champion is challenged in any case.
        force: Train anew in any case.
        at_once: Stages that run side by side.
        train_on: A deployment for the training, such as `train/gpu`; this machine when empty.

    Returns:
        For each data set whether it was retrained, whether the champion changed, and why.
    """
    with checkout.checkout():
        values = dvc_graph.check_study()
        limits = dict(params.entry(values, "drift"))
        params.bind(drift.compare, limits)
        names = data or list(params.entry(values, "data"))
        domains = {name: params.entry(values, "data", name, "domain") for name in names}
        stories = [Story(name, domain, limits) for name, domain in domains.items()]
        for story in stories:
            former = remember(story.data)
            try:
                story.because = examine(story, oldest, force)
                if story.because:
                    former.unlink(missing_ok=True)
                    get_run_logger().info(f"{story.data}: {'; '.join(story.because)}")
                    runs = [name for name, r in values["runs"].items() if r["data"] == story.data]
                    targets = [*(f"evaluate@{run}" for run in runs), "report"]
                    rows: Any = reproduce(targets, at_once, train_on)
                    story.stages = rows
                    story.verdict = promote([story.domain])[story.domain]
            except Exception as error:
                story.error = mirror.masked(str(error)) or type(error).__name__
            if not story.because:
                put_back(story, former)
            (get_run_logger().error if story.error else get_run_logger().info)(_line(story))
            report(story)
    told = "\n".join(map(_line, stories))
    if any(story.error for story in stories):
        raise RetrainError(told)
    result = {
        story.data: {
            "retrained": bool(story.because),
            "promoted": bool(story.verdict and story.verdict["promoted"]),
            "reason": story.outcome,
        }
        for story in stories
    }
    return Completed(message=told, data=result)


def _line(story: Story) -> str:
    return f"{story.data}: {story.outcome}"


def examine(story: Story, oldest: float, force: bool) -> list[str]:
    """Fetch and prepare a data set, compare it with the champion's; returns why to train anew."""
    name = story.data
    champion = story.champion = registry.champion(story.domain)  # no registry, no work
    refresh(f"fetch@{name}", force=True)
    refresh(f"prepare@{name}", force=False)
    story.now = store.read_json(Path("data", name, "profile.json"))
    because = ["it was forced"] if force else []
    if champion is None:
        return [f"{story.domain} has no champion yet", *because]
    which = f"the champion, version {champion.version},"
    trained_on = json.loads(champion.tags["params"])["data"]
    if trained_on != name:
        because.append(f"{which} was trained on {trained_on}, which tells nothing of drift")
    elif (then := registry.profile(story.domain)) is None:
        because.append(f"{which} has no profile of its data, to tell drift by")
    else:
        story.then = then
        story.drift = drift.compare(then, story.now, **story.limits).to_dict("records")
        for row in story.drift:
            get_run_logger().info(f"{row['feature']}: {row['why']}")
        moved = [f"{row['feature']}: {row['why']}" for row in story.drift if row["drifted"]]
        if moved:
            told = f"{len(moved)} of {len(story.drift)} features drifted"
            because.append(f"{told} ({'; '.join(moved)})")
    story.age = registry.age(champion).total_seconds() / 86_400
    if story.age > oldest:
        because.append(f"{which} is {story.age:.1f} days old, more than {oldest:g}")
    return because


def refresh(stage: str, *, force: bool) -> None:
    """Run a stage of DVC alone, ``force`` even if nothing that it depends on has changed.

    Raises:
        RetrainError: it failed; its former outputs are gone.
    """
    policy = retry_policies({stage: ()}, params.load())[stage]
    state = bring.with_options(retries=policy.retries)(
        stage,
        blocked="",
        changed=True,
        policy=policy,
        gpus=0,
        train_on=None,
        force=force,
        return_state=True,
    )
    if not state.is_completed():
        raise RetrainError(f"{stage}: {state.message}")


def remember(name: str) -> Path:
    """Keep a copy of dvc.lock until it is decided what becomes of new data; returns where.

    What a killed run has kept stays, unless others have worked in the checkout since.
    """

    def others(lock: Path) -> dict[str, Any]:
        stages: dict[str, Any] = params.read_yaml(lock)["stages"]
        return {
            key: v for key, v in stages.items() if key not in (f"fetch@{name}", f"prepare@{name}")
        }

    former = Path(".dvc", "tmp", f"retrain-{name}.lock")
    if not LOCK.exists():
        former.unlink(missing_ok=True)
    elif not (former.exists() and others(former) == others(LOCK)):
        store.write_bytes(former, LOCK.read_bytes())
    return former


def put_back(story: Story, former: Path) -> None:
    """Bring back a data set as the former dvc.lock has it, if it has it and anything changed."""
    if not former.exists():
        return
    same = LOCK.read_bytes() == former.read_bytes()
    store.write_bytes(LOCK, former.read_bytes())
    entries = [mirror.locked().get(f"{stage}@{story.data}") for stage in ("fetch", "prepare")]
    paths = [path for entry in entries if entry for path in entry["outs"]]
    if paths and not (same and all(Path(path).exists() for path in paths)):
        output = dvc_graph.dvc("checkout", "--force", *paths)
        if output.code:
            story.error += f"\nThe former data did not come back: {' '.join(output.lines[-2:])}"
            return
        get_run_logger().info(f"{story.data} is as it was before this run")
    former.unlink()


# The report


def report(story: Story) -> None:
    """Tell a story in MLflow, where that answers, and in Prefect."""
    text = markdown(story)
    with store.temporary_folder() as folder:
        paths = draw(story, folder / "figures")
        links = [f"figures/{path.name}" for path in paths]
        store.write_text(folder / "report.md", text + _shown(links))
        if story.drift:
            store.write_table(folder / "drift.csv", pd.DataFrame(story.drift))
        try:
            text += f"\nMLflow: experiment {story.domain}, run {record(story, text, folder)}.\n"
        except registry.RegistryError as error:
            get_run_logger().warning(f"The report is not in MLflow: {error}")
        inline = [
            f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}" for path in paths
        ]
    create_markdown_artifact(
        key=f"retrain-{re.sub('[^a-z0-9]+', '-', story.data.lower())}",
        markdown=text + _shown(inline),
        description=f"{story.data}: {story.outcome.partition(':')[0]}, and why",
    )


def _shown(addresses: list[str]) -> str:
    return "".join(f"\n![figure]({address})\n" for address in addresses)


def markdown(story: Story) -> str:
    """The report's text, without figures."""
    head, _, why = story.outcome.partition(": ")
    lines = [f"# {story.data}: {head}", ""]
    if story.error or not story.because:
        lines += [why, ""]
    if story.champion:
        tags, age = story.champion.tags, "" if story.age is None else f", {story.age:.1f} days ago"
        lines += [
            f"- The champion was version {story.champion.version} ({tags['run']}), trained at "
            f"{tags['trained'][:16]} UTC{age}"
        ]
    if story.now:
        then = f"; the champion's were {story.then['examples']:,}" if story.then else ""
        lines += [f"- Training examples: {story.now['examples']:,}{then}"]
    lines += [f"- Trained anew, because {reason}" for reason in story.because]
    if story.verdict:
        head = "A new champion" if story.verdict["promoted"] else "The champion stays"
        lines += [f"- {head}: {story.verdict['reason']}"]
    if story.drift:
        columns = ("feature", "psi", "ks", "p", "drifted", "why")
        lines += ["", *_table(columns, story.drift), ""]
        lines += [
            f"A feature has drifted when its change is significant (p under "
            f"{story.limits['level']:g}, corrected for {len(story.drift)} features) and large "
            f"(PSI from {story.limits['psi']:g}, or KS from {story.limits['ks']:g})."
        ]
    if story.stages:
        lines += ["", *_table(("stage", "outcome", "seconds"), story.stages)]
    return "\n".join([*lines, ""])


def _table(columns: tuple[str, ...], rows: list[dict[Any, Any]]) -> list[str]:
    def cell(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.3g}"
        return str(value or "").replace("|", "\\|")

    cells = [columns, ["---"] * len(columns), *([cell(row[c]) for c in columns] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def draw(story: Story, folder: Path) -> list[Path]:
    """Draw what there is to show of drift, what has changed most first."""
    from ostinato.data import figures

    if not (story.then and story.now and story.drift):
        return []
    table = pd.DataFrame(story.drift).sort_values("psi", ascending=False)
    names = {str(kind): list(part["feature"]) for kind, part in table.groupby("kind")}
    drawn = {"drift": figures.drift(table, story.limits["psi"], story.limits["ks"])}
    then, now = ({kind: profile[kind] for kind in names} for profile in (story.then, story.now))
    if "numbers" in names:
        known = [name for name in names["numbers"] if name in then["numbers"]]
        sample = {name: then["numbers"][name] for name in known}
        drawn["distributions"] = figures.distributions(sample, now["numbers"])
    for name in names.get("counts", [])[:3]:
        changes = drift.changes(*(side["counts"].get(name, {}) for side in (then, now)))
        drawn[f"shares_{name}"] = figures.category_shift(changes, name)
    paths = [folder / f"{re.sub('[^a-z0-9]+', '_', title.lower())}.png" for title in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        store.write_figure(path, figure)
    return paths


def record(story: Story, text: str, folder: Path) -> str:
    """Keep a story as a run of the domain's experiment in MLflow; returns the run's id."""
    from mlflow.entities import Metric

    numbers = {"champion_age_days": math.nan if story.age is None else story.age}
    for row in story.drift:
        name = re.sub(r"[^\w\-. :/]", "_", row["feature"])
        numbers |= {f"{measure}/{name}": row[measure] for measure in ("psi", "ks")}
    promoted = bool(story.verdict and story.verdict["promoted"])
    tags = {
        "stage": "retrain",
        "retrained": str(bool(story.because)).lower(),
        "promoted": str(promoted).lower(),
        "outcome": story.outcome[:5000],
        "flow_run": str(runtime.flow_run.name),
        "mlflow.note.content": text[:5000],
    }
    with registry.connected() as client:
        experiment = mirror.experiment(client, story.domain)
        run = client.create_run(experiment, run_name=f"retrain {story.data}", tags=tags)
        key, now = run.info.run_id, run.info.start_time
        kept = [Metric(name, x, now, 0) for name, x in numbers.items() if not math.isnan(x)]
        client.log_batch(key, kept)
        client.log_artifacts(key, str(folder))
        client.set_terminated(key, "FAILED" if story.error else "FINISHED")
    return str(key)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    parser.add_argument("data", nargs="*", help="none: all of params.yaml")
    parser.add_argument("--oldest", type=float, default=30.0, metavar="DAYS")
    parser.add_argument("--force", action="store_true", help="train anew in any case")
    given = parser.parse_args()
    retrain(given.data, given.oldest, given.force)


if __name__ == "__main__":
    main()
