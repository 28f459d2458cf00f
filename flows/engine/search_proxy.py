"""Optuna's gRPC proxy: flows on other machines use the storage without its password or driver.

    OPTUNA_STORAGE=postgresql://USER:PASSWORD@HOST/NAME python -m flows.engine.search_proxy

The proxy neither authenticates nor encrypts, so it listens on loopback unless --host says
otherwise: use it in a network of trusted machines, or through a tunnel. It holds no state: started
again, it serves the flows that go on.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import optuna
from optuna.storages import get_storage, run_grpc_proxy_server

from flows.engine.errors import command
from flows.engine.search_storage import ignore_experimental_warnings, open_storage, parse
from ostinato.errors import SettingError, masked

THREADS = 10


def serve(address: str, host: str, port: int) -> None:
    """Serve a storage until the process ends.

    Args:
        address: of the storage.
        host: name or address to listen on.
        port: to listen on.

    Raises:
        SettingError: the storage is a proxy.
    """
    if address.startswith("grpc:"):
        raise SettingError(f"storage: {masked(address)} is a proxy; name its database")
    # Of SQLite, which has no locks on rows, one thread serves all requests one by one.
    threads = 1 if parse(address).get_backend_name() == "sqlite" else THREADS
    storage = get_storage(open_storage(address))
    print(f"serves {masked(address)} at grpc://{host}:{port}", flush=True)
    with ignore_experimental_warnings():
        run_grpc_proxy_server(
            storage, host=host, port=port, thread_pool=ThreadPoolExecutor(threads)
        )


@command
def main() -> None:
    """Run the proxy from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.engine.search_proxy")
    parser.add_argument(
        "--storage",
        help="address of the database; by default the variable OPTUNA_STORAGE, which no list of "
        "processes shows",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=13000)
    arguments = parser.parse_args()
    address = arguments.storage or os.environ.get("OPTUNA_STORAGE")
    if not address:
        raise SettingError("OPTUNA_STORAGE: not set; set it to the address of the database")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    serve(address, arguments.host, arguments.port)


if __name__ == "__main__":
    main()
