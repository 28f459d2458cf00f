"""The checkpoint of a training: one file of rank 0, replaced atomically after every epoch."""

import json
import logging
import zipfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import keras
import numpy as np

from ostinato import store
from ostinato.errors import TrainingError
from ostinato.task import Record
from ostinato.training import ranks

LOG = logging.getLogger("ostinato")
FILE = "epoch.npz"


def save(
    folder: Path,
    variables: Sequence[keras.Variable],
    history: Sequence[Record],
    best: Sequence[np.ndarray],
) -> None:
    """Write the state after the last epoch to ``folder``/epoch.npz, on rank 0.

    Args:
        folder: of this training alone.
        variables: everything that training changes: weights, then the optimisers' variables.
        history: the records of the finished epochs.
        best: the weights of the best epoch.
    """
    if ranks.part().rank:
        return
    state = {"history": list(history), "variables": _describe(variables)}
    if (number := ranks.part().ranks) > 1:
        state["ranks"] = number
    arrays = {f"variable/{i}": variable.numpy() for i, variable in enumerate(variables)}
    arrays |= {f"best/{i}": value for i, value in enumerate(best)}
    store.write_arrays(folder / FILE, {"state": np.array(json.dumps(state)), **arrays})


def resume(
    folder: Path, variables: Sequence[keras.Variable]
) -> tuple[list[Record], list[np.ndarray]]:
    """Assign the values that rank 0 has saved to ``variables``, on all ranks.

    Returns:
        The records of the finished epochs and the weights of the best one; both are empty, and
        nothing is assigned, if there is no checkpoint.

    Raises:
        TrainingError: the file is unreadable, or the variables have other names or shapes.
    """
    path = folder / FILE
    try:
        if (file := ranks.open_file(path)) is None:
            return [], []
        with file:
            arrays = store.load_arrays(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: unreadable checkpoint ({error}); delete it to start over"
        ) from None
    state = json.loads(str(arrays["state"]))
    for saved, expected in zip_longest(state["variables"], _describe(variables)):
        if saved != expected:
            raise TrainingError(
                f"{path}: checkpoint of another model: it has the variable {saved}, the model has "
                f"{expected}; delete it to start over"
            )
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"variable/{i}"])
    wrote, now = state.get("ranks", 1), ranks.part().ranks
    changed = "" if wrote == now else f"; ranks now: {now}, when it was written: {wrote}"
    LOG.info("resuming after epoch %d, from %s%s", len(state["history"]), path, changed)
    best = [name for name in arrays if name.startswith("best/")]
    return state["history"], [arrays[f"best/{i}"] for i in range(len(best))]


def _describe(variables: Sequence[keras.Variable]) -> list[list[object]]:
    """Path and shape of each variable, as JSON keeps them."""
    return [[variable.path, list(variable.shape)] for variable in variables]
