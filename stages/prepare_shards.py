"""Help to prepare a data set: ``python -m stages.prepare_shards STUDY DATA``.

Not a stage of the graph: it makes shards for a process of `stages.prepare` that works in the same
checkout, or in one on another machine with the same disk.
"""

import logging
import time

from ostinato import params
from ostinato.errors import MissingFileError, ParamsError
from stages.entry import command, key_of, load_study

START_S = 60.0  # that `stages.prepare` has to start
POLL_S = 0.5


def main(study: str, name: str) -> None:
    """Make shards of the data set until there is none left to make.

    Raises:
        ParamsError: the domain prepares a data set as a whole.
        MissingFileError: nothing prepares the data set here.
    """
    name, loaded = key_of(name), load_study(study)
    entry = loaded.entry("data", name)
    prepare = params.bind(params.module(entry["domain"], "dataset").prepare, entry["prepare"])
    scratch = loaded.shards_folder(name)
    if scratch is None:
        raise ParamsError(
            f"data.{name}: found the domain {entry['domain']}, which prepares a data set in one "
            "process; expected a domain that prepares it in shards, such as sketches"
        )
    deadline = time.monotonic() + START_S
    while not scratch.exists():
        if time.monotonic() > deadline:
            raise MissingFileError(
                f"{scratch}: no such folder; `stages.prepare` has not started within {START_S:g} s "
                "with the same parameters, raw data and code; run in its checkout, or in one whose "
                "data and scratch are links to those of that checkout"
            )
        time.sleep(POLL_S)
    time.sleep(POLL_S)  # the folder is filled
    try:
        prepare(loaded.raw_folder(name), None, scratch)
    except FileNotFoundError:
        if scratch.exists():
            raise
    logging.getLogger("ostinato").info("%s: all shards are made", name)


if __name__ == "__main__":
    command(main)
