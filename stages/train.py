"""Train a model: ``python -m stages.train STUDY RUN``."""

import logging
from pathlib import Path

import pandas as pd

from ostinato import models, params, store
from ostinato.errors import ParamsError
from ostinato.task import Placement, TrainingContext
from ostinato.tracking import live
from ostinato.training.imports import import_keras_quietly
from ostinato.training.machine import this_machine
from stages.entry import command, key_of, load_study


def main(study: str, name: str) -> None:
    """Train the run ``name`` of a study into results/<name>.

    A training that was killed continues after its last finished epoch, as long as its parameters,
    its data and its code are the same: the folder of its checkpoints is named by their digest.
    With several ranks (`ostinato.training.cluster`), rank 0 reads and writes all of this.
    """
    name, loaded = key_of(name), load_study(study)
    run, seed = loaded.entry("runs", name), loaded.params["seed"]
    data_folder, results = loaded.data_folder(run["data"]), loaded.result_folder(name)
    machine = this_machine()
    import_keras_quietly()
    from ostinato.training.placement import one_copy, place
    from ostinato.training.runtime import device_record, runtime

    model = models.load(run["domain"], run["model"])
    build, fit = params.bind(model.build, run["build"]), params.bind(model.fit, run["fit"])
    enter = params.bind(runtime, loaded.params["runtime"])
    placement = params.bind(Placement, run["placement"])() if "placement" in run else None
    code = params.training_code(run["domain"], run["model"])
    precision = loaded.entry("runtime", "precision")
    digest = store.digest(run, seed, precision, data_folder / "manifest.json", *code)
    checkpoints = loaded.scratch("train", name, digest)
    dataset = params.module(run["domain"], "dataset").load(data_folder)
    device = device_record(machine, precision)
    logging.getLogger("ostinato").info("%s: trains on %s", name, device)
    if placement and machine.cluster.ranks > 1:
        raise ParamsError(
            f"runs.{name}.placement: layers are placed on the devices of one machine, but this "
            f"training has {machine.cluster.ranks} ranks; delete placement, or start one rank"
        )
    if machine.cluster.rank:
        with enter(seed, machine):
            fit(build(dataset), dataset, TrainingContext(checkpoints, seed))
        return
    copies = one_copy(machine) if placement else machine
    with live.track(loaded, name, device.tags()) as on_epoch, enter(seed, copies):
        trained = build(dataset)
        if placement:
            trained = place(trained, placement, machine.devices)
        context = TrainingContext(checkpoints, seed, on_epoch, placement=placement)
        history = fit(trained, dataset, context)
        with store.atomic_folder(results / "model") as folder:
            model.save(trained, folder)
        store.write_table(results / "history.csv", pd.DataFrame(history))
        device.write(results / "training.json")
    store.remove(Path(checkpoints).parent)


if __name__ == "__main__":
    command(main)
