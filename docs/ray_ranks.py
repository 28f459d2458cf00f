"""Train a run on several ranks of a Ray cluster, without Prefect.

python docs/ray_ranks.py RANKS PYTHON CHECKOUT STUDY RUN     in an environment that has ray

PYTHON and CHECKOUT are paths on each machine: of Ostinato's Python and of a checkout with the data.
"""

import json
import os
import random
import socket
import subprocess
import sys
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

WAIT_S = float(os.environ.get("OSTINATO_RANKS_TIMEOUT", "600"))


class Rank:
    """A rank of the training, on a machine that Ray chooses."""

    def address(self) -> str:
        """Reserve a port; returns HOST:PORT."""
        self.held = socket.socket()
        self.held.bind(("", port := random.randrange(20_000, 30_000)))
        return f"{ray.util.get_node_ip_address()}:{port}"

    def train(self, addresses: list[str], rank: int, checkout: str, *command: str) -> None:
        """Run the command with TF_CONFIG; its output is in the driver's terminal."""
        self.held.close()
        task = {"type": "worker", "index": rank}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        environment = {**os.environ, "TF_CONFIG": config}
        subprocess.run(command, cwd=checkout, env=environment, check=True)


def main(ranks: str, python: str, checkout: str, study: str, run: str) -> None:
    """Place all ranks or none, and train."""
    ray.init()
    gpus = int(os.environ.get("OSTINATO_DEVICES", "1")) if "GPU" in ray.cluster_resources() else 0
    bundle = {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
    group = placement_group([bundle] * int(ranks), strategy="SPREAD")
    if not group.wait(WAIT_S):
        sys.exit(f"Ray has no place for {ranks} ranks within {WAIT_S:g} s; see `ray status`")
    place = PlacementGroupSchedulingStrategy(group)
    options = {"num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": place}
    actor: Any = ray.remote(Rank)
    actors = [actor.options(**options).remote() for _ in range(int(ranks))]
    addresses = ray.get([actor.address.remote() for actor in actors])
    command = (checkout, python, "-m", "stages.train", study, run)
    ray.get([actor.train.remote(addresses, i, *command) for i, actor in enumerate(actors)])


if __name__ == "__main__":
    main(*sys.argv[1:])
