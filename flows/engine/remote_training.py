"""Training on another machine: code goes by git, data by DVC's remote, orders by Prefect.

The caller (`away`) pushes a snapshot of its checkout to the git remote and the data that a stage
needs to DVC's remote, and runs a deployment of the flow `train`. The worker runs the stage in a
checkout of the snapshot beside its own clone, which it leaves alone, and pushes the outputs. What
DVC's run cache says of them comes back as an artifact: the caller's next `dvc repro` restores the
stage as if it had run there. Credentials stay in each machine's environment and .dvc/config.local.
"""

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from configparser import RawConfigParser
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
from filelock import FileLock, Timeout
from prefect import flow, get_client, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.states import Cancelling, Crashed

from flows.engine import commands, devices, dvc_graph
from flows.reproduce import retry_policies
from ostinato import params
from ostinato.tracking import mirror

SIGN = 5.0  # seconds between two signs of life of a worker
SILENCE = 90.0  # seconds after which a worker without a sign is lost
POLL = 2.0  # seconds between two looks at a run
LABEL = "ostinato.sign"
CODE = ("*.py", "*.yaml", "dvc.lock")  # what a stage runs and reads from git


@flow(name="train")
def train(stage: str, snapshot: str) -> None:
    """Run one stage as another machine's checkout has it, bound to a free GPU if there are any.

    Started by `reproduce` with its parameter `train_on`, not by hand.

    Args:
        stage: a stage of dvc.yaml, such as `train@sketches-gru`.
        snapshot: the ref of the git remote that holds the code and the parameters.
    """
    # One at a time, as its checkpoints are the clone's; a second finds the first in the run cache.
    lock = FileLock(f".dvc/tmp/{stage.replace('/', '-')}.lock")
    with commands.supervised(), _signs(), lock:
        cache = _cache()
        with _checked_out(snapshot, cache) as tree:
            _train(stage, tree, cache)


def _train(stage: str, tree: Path, cache: Path) -> None:
    values = params.load(tree / "params.yaml")
    policy = retry_policies({stage: set()}, values)[stage]
    gpus = values.get("runtime", {}).get("devices", 1) if policy.gpu else 0
    command = ("--cd", str(tree), "repro", "--pull", "--single-item", stage)
    with devices.reserve_devices(gpus) as env:
        _dvc(*command, env=env, timeout=policy.timeout)
    entry = params.read_yaml(tree / "dvc.lock")["stages"][stage]
    _transfer("push", entry["outs"], cache)
    # There is none where the outputs were in the remote, and DVC had but to fetch them.
    runs = sorted(cache.glob("runs/*/*/[!.]*"), key=lambda file: -file.stat().st_mtime)
    kept = next((file for file in runs if params.read_yaml(file) == entry), None)
    create_table_artifact(
        table=[{"file": str(kept.relative_to(cache)) if kept else "", "entry": entry}],
        description=f"What DVC's run cache says of {stage}",
    )


def away(stage: str, deployment: str) -> None:
    """Have a stage run by a deployment of `train`; `dvc repro` then restores it from the run cache.

    Args:
        stage: one whose needs are up to date.
        deployment: its name in Prefect, such as `train/gpu`.

    Raises:
        RuntimeError: the stage failed there, no worker took it, or its worker is lost.
    """
    logger = get_run_logger()
    if needed := sorted(dvc_graph.read_graph()[stage]):
        _dvc("push", *needed)
    with _published() as snapshot, get_client(sync_client=True) as client:
        given = {"stage": stage, "snapshot": snapshot}
        run = cast(
            FlowRun,
            run_deployment(deployment, parameters=given, flow_run_name=stage, timeout=0),
        )
        logger.info(f"{stage} goes to {deployment}, flow run {run.id}")
        state = _end(client, run).state
        if state is None or not state.is_completed():
            raise RuntimeError(
                f"{deployment} did not finish {stage}: {state and state.name}: "
                f"{state and state.message}. Its log is that of flow run {run.id}"
            )
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    (result,) = json.loads(str(artifact.data))
    cache = _cache()
    _transfer("fetch", result["entry"]["outs"], cache)
    if result["file"]:
        _write_run_cache(cache, result["file"], result["entry"])


def _write_run_cache(cache: Path, name: str, entry: Any) -> None:
    """Write an entry of DVC's run cache, which may lie outside of the checkout.

    Raises:
        RuntimeError: the name, which another machine has sent, is not one of an entry.
    """
    if not re.fullmatch(r"runs(/[0-9a-f]+){3}", name):
        raise RuntimeError(f"{name!r} is not the name of an entry of DVC's run cache")
    file = cache / name
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{uuid4().hex}")
    partial.write_text(json.dumps(entry), encoding="utf-8")  # JSON is YAML
    partial.replace(file)


def _end(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait until a run has ended; it is cancelled when this is, and crashed when it is lost."""
    seen: Any = None
    since = time.monotonic()
    try:
        while True:
            run = client.read_flow_run(run.id)
            assert run.state
            if run.state.is_final():
                return run
            sign = (run.state.id, run.labels.get(LABEL))
            queued = run.state.is_scheduled() and _workers(client, run)
            if sign != seen or queued:
                seen, since = sign, time.monotonic()
            if time.monotonic() - since > SILENCE:
                break
            commands.wait_or_stop(POLL)
    except BaseException:
        with suppress(httpx.HTTPError):
            client.set_flow_run_state(run.id, Cancelling())
        raise
    if run.state.is_scheduled():
        client.set_flow_run_state(run.id, Cancelling())
        raise RuntimeError(
            f"No worker takes runs of the pool {run.work_pool_name!r}; on its machine, in a clone: "
            f"prefect worker start --pool {run.work_pool_name}"
        )
    lost = f"No sign of life of the worker for {SILENCE:g} s"
    client.set_flow_run_state(run.id, Crashed(message=lost), force=True)
    raise RuntimeError(f"{lost}: flow run {run.id}. The next run takes the stage up again")


def _workers(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether any worker of the run's pool is there."""
    workers = client.read_workers_for_work_pool(str(run.work_pool_name))
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)


@contextmanager
def _signs() -> Iterator[None]:
    """Give signs of life, so that the caller can tell a long run from a lost worker."""
    run, ended = UUID(str(runtime.flow_run.id)), threading.Event()

    def give() -> None:
        with get_client(sync_client=True) as client:
            for number in count():
                with suppress(httpx.HTTPError):  # the server is back at the next one
                    client.update_flow_run_labels(run, {LABEL: number})
                if ended.wait(SIGN):
                    return

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _published() -> Iterator[str]:
    """A ref of the git remote that holds this checkout with all its changes; deleted in the end."""
    if untracked := _git("ls-files", "--others", "--exclude-standard", "--", *CODE):
        raise RuntimeError(
            "Git does not know these files, so no other machine would get them; `git add` them, "
            f"or ignore them:\n{untracked}"
        )
    author = ("-c", "user.name=ostinato", "-c", "user.email=ostinato@localhost")
    with FileLock(".dvc/tmp/snapshot.lock"):  # git has one index
        changed = _git("status", "--porcelain", "--untracked-files=no")
        commit = _git(*author, "stash", "create") if changed else _git("rev-parse", "HEAD")
    ref = f"refs/ostinato/{uuid4().hex}"
    _git("push", "--quiet", "origin", f"{commit}:{ref}")
    try:
        yield ref
    finally:
        try:
            _git("push", "--quiet", "origin", f":{ref}")
        except RuntimeError as error:
            get_run_logger().warning(f"{ref} stays in the git remote: {error}")


@contextmanager
def _checked_out(snapshot: str, cache: Path) -> Iterator[Path]:
    """A checkout of a snapshot for one run, with the cache and the checkpoints of this clone.

    The clone itself stays as it is, and a machine with several GPUs can train several at once.
    """
    places = Path(".dvc", "tmp", "away").absolute()
    places.mkdir(parents=True, exist_ok=True)
    for lock in places.glob("*.lock"):
        with suppress(Timeout), FileLock(lock, timeout=0):  # of a run that was killed
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
    tree = places / uuid4().hex
    with FileLock(tree.with_suffix(".lock")) as held:
        try:
            _git("fetch", "--quiet", "origin", f"{snapshot}:{snapshot}")
            commit = _git("rev-parse", snapshot)
            _git("clone", "--quiet", "--shared", "--no-checkout", ".", str(tree))
            _git("-C", str(tree), "checkout", "--quiet", "--detach", commit)
            _git("update-ref", "-d", snapshot)
            scratch = Path("scratch").absolute()
            scratch.mkdir(exist_ok=True)
            (tree / "scratch").symlink_to(scratch)
            _configure(tree, cache)
            yield tree
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            Path(held.lock_file).unlink(missing_ok=True)


def _transfer(verb: str, outs: Sequence[Mapping[str, Any]], cache: Path) -> None:
    """Push or fetch outputs by their content alone, of whatever stage and commit.

    `dvc push STAGE` passes over outputs that git keeps (`cache: false`), which the run cache needs
    too, and holds up all who run stages here; hence a DVC repository for this alone.
    """
    keys = ("md5", "size", "nfiles", "hash")
    for out in outs:  # of another machine
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5 := str(out.get("md5"))):
            raise RuntimeError(f"{md5!r} is not an md5 as DVC writes it")
    named = [{"path": out["md5"], **{k: out[k] for k in keys if k in out}} for out in outs]
    with tempfile.TemporaryDirectory() as place:
        _configure(Path(place), cache)
        Path(place, "outs.dvc").write_text(json.dumps({"outs": named}))  # JSON is YAML
        _dvc("--cd", place, verb, "outs.dvc")


def _configure(folder: Path, cache: Path) -> None:
    """Give a DVC repository the cache, the remotes and the credentials of this checkout."""
    settings = RawConfigParser()
    settings.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    # Links, as a checkout for one run needs no copy of the data.
    links = {"dir": str(cache), "type": "reflink,hardlink,symlink,copy"}
    settings.read_dict({"core": {"no_scm": "true"}, "cache": links})
    local = folder / ".dvc" / "config.local"
    local.parent.mkdir(exist_ok=True)
    local.touch(mode=0o600)
    with local.open("w", encoding="utf-8") as file:
        settings.write(file)


def _cache() -> Path:
    return Path(dvc_graph.dvc("cache", "dir").lines[-1]).absolute()


def _dvc(*arguments: str, **how: Any) -> list[str]:
    logger = get_run_logger()
    output = dvc_graph.dvc(*arguments, on_line=lambda line: logger.info(mirror.masked(line)), **how)
    if output.code:
        said = mirror.masked("\n".join(output.lines[-20:]))
        raise RuntimeError(f"`dvc {' '.join(arguments)}` failed with code {output.code}:\n{said}")
    return output.lines


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        said = mirror.masked(done.stderr.strip())
        raise RuntimeError(f"`git {' '.join(arguments)}` failed: {said}")
    return done.stdout.strip()
