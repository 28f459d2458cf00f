"""Training on another machine: git transports the code, DVC's remote the data, Prefect the run.

The caller (`run_remotely`) pushes a snapshot of its checkout to the git remote and the data that a
stage needs to DVC's remote, and runs a deployment of the flow `train`. The worker runs the stage in
a checkout of the snapshot beside its own clone, which stays as it is, and pushes the outputs. The
entry of DVC's run cache comes back as an artifact: the caller's next `dvc repro` restores the stage
as if it had run there. Credentials stay in each machine's environment and .dvc/config.local.

A training of several ranks has a flow run for each (`flows.engine.gang`). Only rank 0 runs the
stage by DVC and pushes its outputs; the others run its command on the same data.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from configparser import RawConfigParser
from contextlib import contextmanager, nullcontext, suppress
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
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelling, Crashed
from prefect.utilities.urls import url_for

from flows.engine import commands, devices, dvc_graph, gang
from flows.engine.dvc_graph import dvc_file, short_name
from flows.engine.errors import fails_with_message
from flows.reproduce import retry_policies
from ostinato import params
from ostinato.errors import FlowError
from ostinato.tracking.client import masked
from ostinato.training import cluster

HEARTBEAT_INTERVAL_S = 5.0
HEARTBEAT_TIMEOUT_S = 90.0  # a worker without a heartbeat for so long is lost
POLL_INTERVAL_S = 2.0  # between two reads of the state of a flow run
SETTLE_S = 15.0  # that the other ranks have to end by themselves once one has ended
PENDING_S = 20.0  # that the process of a flow run which is to be cancelled may take to start
CANCEL_INTERVAL_S = 0.5
HEARTBEAT = "ostinato.heartbeat"  # label of a flow run
CODE = ("*.py", "*.yaml", "dvc.lock", "recipes/*/dvc.lock")  # files of git that a stage reads


@flow(name="train")
@fails_with_message
def train(
    stage: str, snapshot: str, rank: int = 0, ranks: int = 1, needs: Sequence[str] = ()
) -> None:
    """Run one stage in another machine's checkout, bound to a free GPU where there is one.

    Started by `reproduce` with its parameter `train_on`, not by hand.

    Args:
        stage: DVC's address of the stage, such as `train@sketches-gru`.
        snapshot: Ref of the git remote that holds the code and the parameters.
        rank: Number of this flow run among those that share the training.
        ranks: How many they are.
        needs: With several ranks, the stages whose outputs each of them reads.
    """
    # One run of a stage at a time, as its checkpoints are in the clone; the second run finds the
    # result of the first in the run cache. Only rank 0 has checkpoints.
    name = f"{re.sub('[/:]', '-', stage)}{f'-rank-{rank}' if rank else ''}"
    with commands.supervised(), _heartbeats(), FileLock(f".dvc/tmp/{name}.lock"):
        cache = _cache_folder()
        with _check_out(snapshot, cache, Path(dvc_file(stage)).parent) as tree:
            policy = retry_policies({stage: set()}, params.load(_params(stage, tree)))[stage]
            with devices.reserve_for(policy) as env:
                if ranks > 1:
                    env = {**env, cluster.TF_CONFIG: _join(tree, needs)}
                if rank:
                    _train_along(stage, tree, env, policy.timeout)
                    return
                repro = ("--cd", str(tree), "repro", "--pull", "--single-item", stage)
                _dvc(*repro, env=env, timeout=policy.timeout)
            _send_back(stage, tree, cache)


def _params(stage: str, tree: Path = Path()) -> Path:
    return tree / Path(dvc_file(stage)).parent / "params.yaml"


def _join(tree: Path, needs: Sequence[str]) -> str:
    """Fetch the data of a rank, and wait for the other ranks; returns TF_CONFIG."""
    run = UUID(str(runtime.flow_run.id))
    gang.tell_taken(run)
    if needs:
        _dvc("--cd", str(tree), "pull", *needs)
    return gang.exchange_addresses(run)


def _train_along(stage: str, tree: Path, env: Mapping[str, str], timeout: float | None) -> None:
    """Run the command of a stage for a rank that writes nothing."""
    command = (sys.executable, "-m", "stages.train", str(_params(stage)), short_name(stage))
    logger = get_run_logger()
    output = commands.run(
        *command,
        on_line=lambda line: logger.info(masked(line)),
        env=env,
        timeout=timeout,
        cwd=tree,
    )
    if output.code:
        reason = next((line for line in reversed(output.lines) if line.strip()), "")
        raise FlowError(f"{masked(reason)} (exited with {output.code})")


def _send_back(stage: str, tree: Path, cache: Path) -> None:
    """Push the outputs of a stage, and publish its entry of DVC's run cache."""
    lock = _params(stage, tree).with_name("dvc.lock")
    entry = params.read_yaml(lock)["stages"][short_name(stage)]
    _transfer("push", entry["outs"], cache)
    # There is no entry where the outputs were in the remote and DVC only fetched them.
    files = sorted(cache.glob("runs/*/*/[!.]*"), key=lambda file: -file.stat().st_mtime)
    found = next((file for file in files if params.read_yaml(file) == entry), None)
    create_table_artifact(
        table=[{"file": str(found.relative_to(cache)) if found else "", "entry": entry}],
        description=f"The entry of {stage} in DVC's run cache",
    )


def run_remotely(stage: str, deployment: str, ranks: int = 1) -> None:
    """Run a stage by a deployment of `train`; `dvc repro` then restores it from the run cache.

    Trainings of several ranks run one after another: two that each have a part of the workers
    would wait for each other.

    Args:
        stage: its address; all stages that it needs are up to date.
        deployment: its name in Prefect, such as `train/gpu`.
        ranks: number of flow runs that share the training.

    Raises:
        FlowError: the stage failed, no worker accepted it, or its worker is lost.
    """
    needed = sorted(dvc_graph.read_all_graphs()[stage])
    if needed:
        _dvc("push", *needed)
    with (
        _one_at_a_time() if ranks > 1 else nullcontext(),
        _publish() as snapshot,
        get_client(sync_client=True) as client,
        cancelled_at_end(client) as runs,
    ):
        for run in _start(stage, deployment, snapshot, ranks, needed):
            runs.append(run)
        first = _wait_for_end(client, stage, deployment, runs)
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[first.id]))
        )
    (result,) = json.loads(str(artifact.data))
    cache = _cache_folder()
    _transfer("fetch", result["entry"]["outs"], cache)
    if result["file"]:
        _write_run_cache(cache, result["file"], result["entry"])


_several_ranks = threading.Lock()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for the training of several ranks that this flow has started before."""
    while not _several_ranks.acquire(blocking=False):
        commands.wait_or_stop(POLL_INTERVAL_S)
    try:
        yield
    finally:
        _several_ranks.release()


def _start(
    stage: str, deployment: str, snapshot: str, ranks: int, needed: Sequence[str]
) -> Iterator[FlowRun]:
    """Create the flow run of each rank."""
    logger = get_run_logger()
    for rank in range(ranks):
        parameters: dict[str, Any] = {"stage": stage, "snapshot": snapshot}
        name = stage
        if ranks > 1:
            parameters |= {"rank": rank, "ranks": ranks, "needs": list(needed)}
            name = f"{stage} rank {rank} of {ranks}"
        run = cast(
            FlowRun,
            run_deployment(deployment, parameters=parameters, flow_run_name=name, timeout=0),
        )
        logger.info(f"{name} was sent to {deployment}, flow run {url_for(run) or run.id}")
        yield run


@contextmanager
def cancelled_at_end(client: SyncPrefectClient) -> Iterator[list[FlowRun]]:
    """An empty list of flow runs; those in it that have not ended with the block are cancelled."""
    runs: list[FlowRun] = []
    try:
        yield runs
    finally:
        left, deadline = list(runs), time.monotonic() + PENDING_S
        while left := [run for run in left if not _cancel(client, run, deadline)]:
            time.sleep(CANCEL_INTERVAL_S)


def _cancel(client: SyncPrefectClient, run: FlowRun, deadline: float) -> bool:
    """Cancel a flow run; returns whether that is done.

    A run whose process is about to start (Pending) is left until it runs, or the deadline: Prefect
    would leave it in state Cancelling, where it takes a slot of its queue for ever.
    """
    with suppress(httpx.HTTPError, ObjectNotFound):
        state = client.read_flow_run(run.id).state
        if state and state.is_pending() and time.monotonic() < deadline:
            return False
        if state and not state.is_final():
            client.set_flow_run_state(run.id, Cancelling())
    return True


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


class _Watched:
    """A flow run, and the time since its last sign of life.

    Args:
        run: the flow run.
    """

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        self._sign: Any = None
        self._since = time.monotonic()

    def look(self, client: SyncPrefectClient) -> None:
        """Read the state; a run whose worker is lost becomes a crashed one.

        Raises:
            FlowError: no worker is online that could take the run.
        """
        run = self.run = client.read_flow_run(self.run.id)
        assert run.state
        sign = (run.state.id, run.labels.get(HEARTBEAT))
        queued = run.state.is_scheduled() and _has_workers(client, run)
        if sign != self._sign or queued:
            self._sign, self._since = sign, time.monotonic()
        if self.ended or time.monotonic() - self._since <= HEARTBEAT_TIMEOUT_S:
            return
        if run.state.is_scheduled():
            raise FlowError(
                f"No worker runs for the pool {run.work_pool_name!r}; start one on its machine, in "
                f"a clone: prefect worker start --pool {run.work_pool_name}"
            )
        lost = f"The worker has sent no heartbeat for {HEARTBEAT_TIMEOUT_S:g} s. The next run "
        crashed: State[Any] = Crashed(message=f"{lost}resumes the stage")
        client.set_flow_run_state(run.id, crashed, force=True)
        self.run = client.read_flow_run(run.id)

    @property
    def ended(self) -> bool:
        """Whether the run has ended in some way."""
        return bool(self.run.state and self.run.state.is_final())

    @property
    def completed(self) -> bool:
        """Whether the run has ended without an error."""
        return bool(self.run.state and self.run.state.is_completed())


def _wait_for_end(
    client: SyncPrefectClient, stage: str, deployment: str, runs: Sequence[FlowRun]
) -> FlowRun:
    """Wait until the flow runs of all ranks have ended, or one has failed; returns that of rank 0.

    Raises:
        FlowError: one failed, or is lost, or has no worker.
    """
    watched = [_Watched(run) for run in runs]
    together = gang.Gang(client, cluster.timeout_s())
    first_end: float | None = None
    while True:
        for one in watched:
            one.look(client)
        failed = any(one.ended and not one.completed for one in watched)
        # Rank 0 ends alone where it found the result in a run cache.
        if first_end is None and (failed or watched[0].completed):
            first_end = time.monotonic()
        if all(one.ended for one in watched) or (failed and not together.started):
            break
        if first_end is not None and time.monotonic() - first_end > SETTLE_S:
            break
        if len(watched) > 1 and not together.started:
            together.start_if_complete([one.run for one in watched])
        commands.wait_or_stop(POLL_INTERVAL_S)
    if watched[0].completed:
        return watched[0].run
    if len(watched) == 1:
        state, run = watched[0].run.state, watched[0].run
        raise FlowError(
            f"{deployment} did not finish {stage}: {state and state.name}: "
            f"{state and state.message}. See the log of flow run {run.id}"
        )
    lines = [together.describe(rank, one.run) for rank, one in enumerate(watched)]
    raise FlowError("\n".join([f"{deployment} did not finish {stage}:", *lines]))


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
                with suppress(
                    httpx.HTTPError, ObjectNotFound
                ):  # the server may be back for the next one
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
