"""The files of a served model: what a domain's ``serving.load`` needs, from a result on disk."""

import json
import shutil
from pathlib import Path

from ostinato import params, store
from ostinato.errors import DataError
from ostinato.study import Study
from ostinato.task import Json, Serving
from ostinato.tracking import dvc_lock


def serving_of(domain: str) -> Serving:
    """How the models of a domain are packaged."""
    serving: Serving = params.module(domain, "serving").SERVING
    return serving


def pack(study: Study, name: str, example: Json | None, folder: Path) -> None:
    """Copy to ``folder`` what answers requests: the registry stores it, a server loads it.

    Args:
        study: of the result.
        name: of the run or ensemble.
        example: an input, with which a server warms the model up; None: no request.json.
        folder: an empty one that `ostinato.store` may write to.

    Raises:
        DataError: dvc.lock does not say how the data were prepared, or a file is missing.
    """
    entry, results = study.result(name), study.result_folder(name)
    domain, data = entry["domain"], entry["data"]
    prepared, record = study.data_folder(data), dvc_lock.read(study).get(f"prepare@{data}")
    if record is None:
        raise DataError(f"{study.folder / 'dvc.lock'}: no stage prepare@{data}; run `dvc repro`")
    try:
        shutil.copytree(results / "model", folder / "model")
        serving, sides = serving_of(domain), {"results": results, "data": prepared}
        for file in ("data/manifest.json", *serving.files, *serving.optional_files):
            side, _, path = file.partition("/")
            if file not in serving.optional_files or (sides[side] / path).exists():
                shutil.copy(sides[side] / path, folder)
    except (FileNotFoundError, shutil.Error) as error:
        raise DataError(f"{results}: {error}; run `dvc repro`, or `dvc checkout`") from None
    if (prepared / "profile.json").exists():
        shutil.copy(prepared / "profile.json", folder)
    about = {
        "domain": domain,
        "run": name,
        "model": study.model_name(name),
        "prepare": record.params[f"data.{data}.prepare"],
    }
    store.write_json(folder / "about.json", about)
    if example is not None:
        store.write_text(folder / "request.json", json.dumps({"inputs": [example]}))
