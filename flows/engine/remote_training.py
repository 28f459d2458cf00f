"""Training on another machine: git transports the code, DVC's remote the data, Prefect the run.

The caller (`run_remotely`) pushes a snapshot of its checkout to the git remote and the data that a
stage needs to DVC's remote, and runs a deployment of the flow `train`. The worker runs the stage in
a checkout of the snapshot beside its own clone, which stays as it is, and pushes the outputs. The
entry of DVC's run cache comes back as an artifact: the caller's next `dvc repro` restores the stage
as if it had run there. Credentials stay in each machine's environment and .dvc/config.local.
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
from flows.engine.dvc_graph import dvc_file, short_name
from flows.engine.errors import fails_with_message
from flows.reproduce import retry_policies
from ostinato import params
from ostinato.errors import FlowError
from ostinato.tracking.client import masked

HEARTBEAT_INTERVAL_S = 5.0
HEARTBEAT_TIMEOUT_S = 90.0  # a worker without a heartbeat for so long is lost
POLL_INTERVAL_S = 2.0  # between two reads of the state of a flow run
HEARTBEAT = "ostinato.heartbeat"  # label of a flow run
CODE = ("*.py", "*.yaml", "dvc.lock", "recipes/*/dvc.lock")  # files of git that a stage reads


@flow(name="train")
@fails_with_message
def train(stage: str, snapshot: str) -> None:
    """Run one stage in another machine's checkout, bound to a free GPU where there is one.

    Started by `reproduce` with its parameter `train_on`, not by hand.

    Args:
        stage: DVC's address of the stage, such as `train@sketches-gru`.
        snapshot: Ref of the git remote that holds the code and the parameters.
    """
    # One run of a stage at a time, as its checkpoints are in the clone; the second run finds the
    # result of the first in the run cache.
    lock = FileLock(f".dvc/tmp/{re.sub('[/:]', '-', stage)}.lock")
    with commands.supervised(), _heartbeats(), lock:
        cache = _cache_folder()
        with _check_out(snapshot, cache, Path(dvc_file(stage)).parent) as tree:
            _train(stage, tree, cache)


def _train(stage: str, tree: Path, cache: Path) -> None:
    folder = (tree / dvc_file(stage)).parent
    values = params.load(folder / "params.yaml")
    policy = retry_policies({stage: set()}, values)[stage]
    command = ("--cd", str(tree), "repro", "--pull", "--single-item", stage)
    with devices.reserve_for(policy) as env:
        _dvc(*command, env=env, timeout=policy.timeout)
    entry = params.read_yaml(folder / "dvc.lock")["stages"][short_name(stage)]
    _transfer("push", entry["outs"], cache)
    # There is no entry where the outputs were in the remote and DVC only fetched them.
    files = sorted(cache.glob("runs/*/*/[!.]*"), key=lambda file: -file.stat().st_mtime)
    found = next((file for file in files if params.read_yaml(file) == entry), None)
    create_table_artifact(
        table=[{"file": str(found.relative_to(cache)) if found else "", "entry": entry}],
        description=f"The entry of {stage} in DVC's run cache",
    )


def run_remotely(stage: str, deployment: str) -> None:
    """Run a stage by a deployment of `train`; `dvc repro` then restores it from the run cache.

    Args:
        stage: its address; all stages that it needs are up to date.
        deployment: its name in Prefect, such as `train/gpu`.

    Raises:
        FlowError: the stage failed, no worker accepted it, or its worker is lost.
    """
    logger = get_run_logger()
    if needed := sorted(dvc_graph.read_all_graphs()[stage]):
        _dvc("push", *needed)
    with _publish() as snapshot, get_client(sync_client=True) as client:
        parameters = {"stage": stage, "snapshot": snapshot}
        run = cast(
            FlowRun,
            run_deployment(deployment, parameters=parameters, flow_run_name=stage, timeout=0),
        )
        logger.info(f"{stage} was sent to {deployment}, flow run {run.id}")
        state = _wait_for_end(client, run).state
        if state is None or not state.is_completed():
            raise FlowError(
                f"{deployment} did not finish {stage}: {state and state.name}: "
                f"{state and state.message}. See the log of flow run {run.id}"
            )
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    (result,) = json.loads(str(artifact.data))
    cache = _cache_folder()
    _transfer("fetch", result["entry"]["outs"], cache)
    if result["file"]:
        _write_run_cache(cache, result["file"], result["entry"])


def _write_run_cache(cache: Path, name: str, entry: Any) -> None:
    """Write an entry of DVC's run cache, which may be outside of the checkout.

    Raises:
        FlowError: the name, which another machine has sent, is not that of an entry.
    """
    if not re.fullmatch(r"runs(/[0-9a-f]+){3}", name):
        raise FlowError(f"{name!r} is not the name of an entry of DVC's run cache")
    file = cache / name
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{uuid4().hex}")
    partial.write_text(json.dumps(entry), encoding="utf-8")  # JSON is YAML
    partial.replace(file)


def _wait_for_end(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait until a flow run has ended.

    The run is cancelled when this flow is, and marked as crashed when its worker is lost.
    """
    last_seen: Any = None
    since = time.monotonic()
    try:
        while True:
            run = client.read_flow_run(run.id)
            assert run.state
            if run.state.is_final():
                return run
            heartbeat = (run.state.id, run.labels.get(HEARTBEAT))
            queued = run.state.is_scheduled() and _has_workers(client, run)
            if heartbeat != last_seen or queued:
                last_seen, since = heartbeat, time.monotonic()
            if time.monotonic() - since > HEARTBEAT_TIMEOUT_S:
                break
            commands.wait_or_stop(POLL_INTERVAL_S)
    except BaseException:
        with suppress(httpx.HTTPError):
            client.set_flow_run_state(run.id, Cancelling())
        raise
    if run.state.is_scheduled():
        client.set_flow_run_state(run.id, Cancelling())
        raise FlowError(
            f"No worker runs for the pool {run.work_pool_name!r}; start one on its machine, in a "
            f"clone: prefect worker start --pool {run.work_pool_name}"
        )
    lost = f"The worker has sent no heartbeat for {HEARTBEAT_TIMEOUT_S:g} s"
    client.set_flow_run_state(run.id, Crashed(message=lost), force=True)
    raise FlowError(f"{lost}: flow run {run.id}. The next run resumes the stage")


def _has_workers(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a worker of the run's pool is online."""
    workers = client.read_workers_for_work_pool(str(run.work_pool_name))
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)


@contextmanager
def _heartbeats() -> Iterator[None]:
    """Send heartbeats, by which the caller distinguishes a long run from a lost worker."""
    run, ended = UUID(str(runtime.flow_run.id)), threading.Event()

    def send() -> None:
        with get_client(sync_client=True) as client:
            for number in count():
                with suppress(httpx.HTTPError):  # the server may be back for the next one
                    client.update_flow_run_labels(run, {HEARTBEAT: number})
                if ended.wait(HEARTBEAT_INTERVAL_S):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _publish() -> Iterator[str]:
    """Push this checkout with all its changes to a ref of the git remote; delete it in the end.

    Raises:
        FlowError: git does not track a file of code, so no other machine would get it.
    """
    if untracked := _git("ls-files", "--others", "--exclude-standard", "--", *CODE):
        raise FlowError(
            "Git does not track these files, so no other machine would get them; `git add` them, "
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
        except FlowError as error:
            get_run_logger().warning(f"{ref} stays in the git remote: {error}")


@contextmanager
def _check_out(snapshot: str, cache: Path, study: Path) -> Iterator[Path]:
    """A checkout of a snapshot for one run, with the cache of this clone.

    The folder ``study`` of the checkout has the checkpoints of this clone.

    The clone itself stays as it is, so a machine with several GPUs can train several runs at once.
    """
    folder = Path(".dvc", "tmp", "remote-training").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for lock in folder.glob("*.lock"):
        with suppress(Timeout), FileLock(lock, timeout=0):  # of a killed run
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
    tree = folder / uuid4().hex
    with FileLock(tree.with_suffix(".lock")) as held:
        try:
            _git("fetch", "--quiet", "origin", f"{snapshot}:{snapshot}")
            commit = _git("rev-parse", snapshot)
            _git("clone", "--quiet", "--shared", "--no-checkout", ".", str(tree))
            _git("-C", str(tree), "checkout", "--quiet", "--detach", commit)
            _git("update-ref", "-d", snapshot)
            scratch = (study / "scratch").absolute()
            scratch.mkdir(parents=True, exist_ok=True)
            (tree / study / "scratch").symlink_to(scratch)
            _configure(tree, cache)
            yield tree
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            Path(held.lock_file).unlink(missing_ok=True)


def _transfer(verb: str, outs: Sequence[Mapping[str, Any]], cache: Path) -> None:
    """Push or fetch outputs by their content alone, independent of stage and commit.

    `dvc push STAGE` skips outputs that git keeps (`cache: false`), which the run cache needs too,
    and blocks all processes that run stages in the checkout; hence a DVC repository of its own.
    """
    keys = ("md5", "size", "nfiles", "hash")
    for out in outs:  # sent by another machine
        if not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5 := str(out.get("md5"))):
            raise FlowError(f"{md5!r} is not an md5 as DVC writes it")
    entries = [{"path": out["md5"], **{k: out[k] for k in keys if k in out}} for out in outs]
    with tempfile.TemporaryDirectory() as folder:
        _configure(Path(folder), cache)
        Path(folder, "outs.dvc").write_text(json.dumps({"outs": entries}))  # JSON is YAML
        _dvc("--cd", folder, verb, "outs.dvc")


def _configure(folder: Path, cache: Path) -> None:
    """Give a DVC repository the cache, the remotes and the credentials of this checkout."""
    settings = RawConfigParser()
    settings.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    # Links: a checkout for one run needs no copy of the data.
    links = {"dir": str(cache), "type": "reflink,hardlink,symlink,copy"}
    settings.read_dict({"core": {"no_scm": "true"}, "cache": links})
    local = folder / ".dvc" / "config.local"
    local.parent.mkdir(exist_ok=True)
    local.touch(mode=0o600)
    with local.open("w", encoding="utf-8") as file:
        settings.write(file)


def _cache_folder() -> Path:
    return Path(dvc_graph.dvc("cache", "dir").lines[-1]).absolute()


def _dvc(*arguments: str, **options: Any) -> list[str]:
    logger = get_run_logger()
    output = dvc_graph.dvc(*arguments, on_line=lambda line: logger.info(masked(line)), **options)
    if output.code:
        text = masked("\n".join(output.lines[-20:]))
        raise FlowError(f"`dvc {' '.join(arguments)}` failed with code {output.code}:\n{text}")
    return output.lines


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        text = masked(done.stderr.strip())
        raise FlowError(f"`git {' '.join(arguments)}` failed: {text}")
    return done.stdout.strip()
