"""Nights of `retrain` with faults: the processes that test_soak.py drives.

    python -m tests.soak        run flows: a JSON line in, a JSON line out

The process works in a checkout of tests/drifting.py. What takes a new process per call (the check
of params.yaml, a fresh process that predicts) runs in it, so that a night takes seconds.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = "@@ "  # begins a line of output that is a result


class Proxy:
    """Forwards connections to a server, until it is cut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.open = True
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.open = False
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)  # wakes the threads that read, too

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self._connections |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while block := one.recv(1 << 16):
                other.sendall(block)
        except OSError:
            pass
        for connection in (one, other):
            self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class Runner:
    """A process that runs flows in itself, or in a forked child that may be killed."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        from tests import servers

        paths = f"{folder}{os.pathsep}{ROOT}"
        self.log = log.open("a")
        self.process = servers.start(
            [sys.executable, "-m", "tests.soak"],
            cwd=folder,
            env={**os.environ, **environment, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
        )

    def send(self, **request: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(RESULT):
                return json.loads(line.removeprefix(RESULT))
        raise RuntimeError("the runner has ended")

    def close(self) -> None:
        from tests import servers

        servers.stop(self.process)
        self.log.close()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()

    def __call__(self, **request: Any) -> Any:
        self.send(**request)
        return self.receive()


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))  # the checkout's library, before that of the repository
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    patch()
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("wait"):
            _, status, usage = os.wait4(request["wait"], 0)
            answer: Any = {"status": status, "rss": usage.ru_maxrss}
        elif request.pop("fork", False):
            child = os.fork()
            if not child:
                os.setsid()
                file = Path(request.pop("file"))
                file.write_text(json.dumps(run(**request)))
                os._exit(0)
            answer = {"pid": child}
        else:
            answer = run(**request)
        output.write(f"{RESULT}{json.dumps(answer)}\n")
        output.flush()


def patch() -> None:
    """Import all that a night needs, and replace what starts a Python process for each call."""
    import mlflow
    import mlflow.pyfunc  # noqa: F401
    from mlflow import MlflowClient  # noqa: F401

    import ostinato.data.figures  # noqa: F401
    from flows import maintain, retrain  # noqa: F401
    from flows.engine import candidates, dvc_graph, verification
    from ostinato.study import Study
    from stages import sample_requests

    for module in (candidates, verification):
        module.run_command = command  # type: ignore[attr-defined]
    dvc_graph.check_study = Study.load
    sample_requests.load_study = Study.load  # type: ignore[attr-defined]


def command(*argv: str, **options: Any) -> None:
    """The commands of `promote` in this process."""
    from ostinato import store
    from ostinato.study import Study
    from ostinato.tracking import mirror
    from stages import sample_requests
    from tests import drifting

    if "stages.sample_requests" in argv:
        sample_requests.main(*argv[-4:])
    elif "ostinato.tracking" in argv:
        list(mirror.mirror(Study.load()))
    else:
        model, requests, responses = (
            Path(argv[argv.index(flag, argv.index("predict")) + 1]) for flag in ("-m", "-i", "-o")
        )
        service = drifting.load(model / "artifacts")
        inputs = [drifting.Input(**one) for one in store.read_json(requests)["inputs"]]
        answers = [one.model_dump() for one in service.predict(inputs, {})]
        store.write_json(responses, {"predictions": answers})


def run(flow: str, **parameters: Any) -> dict[str, Any]:
    """Run a flow; its state, and what this process uses."""
    from flows.maintain import maintain
    from flows.retrain import retrain

    start = time.monotonic()
    flows: dict[str, Callable[..., Any]] = {"retrain": retrain, "maintain": maintain}
    state = flows[flow](**parameters, return_state=True)
    return {
        "state": state.name,
        "message": state.message,
        "run": str(state.state_details.flow_run_id),
        "seconds": time.monotonic() - start,
        **usage(os.getpid()),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def usage(process: int) -> dict[str, int]:
    """Resident memory in kB, and open files, of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return {"rss": int(rss), "files": len(list(Path(f"/proc/{process}/fd").iterdir()))}


if __name__ == "__main__":
    main()
