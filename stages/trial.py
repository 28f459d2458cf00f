"""One training of a search: ``python -m stages.trial check|train PLAN [FOLDER]``, PLAN in JSON.

Leaves nothing in data/ and results/ and knows no tracking: what came out is on standard output,
for flows/tune.py.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from ostinato import errors, params, store
from ostinato.task import TrainingContext
from ostinato.tracking import mirror
from stages import command, start_tensorflow


def main(verb: str, plan: str, folder: str = "") -> None:
    """Check the plan of a search, or train one of its entries.

    Args:
        verb: check or train.
        plan: seed, runtime and run, the blocks of params.yaml; to check also space (the values to
            try of each parameter, ``build.units``) and objective (a column of the history).
        folder: of the training's checkpoints; a killed one goes on from there.
    """
    values = json.loads(plan)
    start_tensorflow()
    if verb == "check":
        print(json.dumps(check(**values)))
    else:
        train(**values, folder=Path(folder))


def check(
    seed: int, runtime: Any, run: Any, space: dict[str, list[Any]], objective: str
) -> dict[str, Any]:
    """What has to be known before a search.

    Returns:
        problems: the values that do not fit, each with the reason.
        types: of each parameter: int, float or other.
        direction: minimize or maximize the objective.
        files: code and data that decide the result, with their md5s.

    Raises:
        ParamsError: what is wrong with the run itself, or the objective.
    """
    from ostinato.training import runtime as runtimes
    from ostinato.training import trainer

    model_file = params.model_module(run["domain"], run["model"])
    params.bind(runtimes.runtime, runtime)
    if "metrics" in run["fit"]:
        known = [f"validation_{name}" for name in ("loss", *run["fit"]["metrics"])]
        if objective not in known:
            hint = params.near(objective, known)
            raise errors.ParamsError(f"objective: no {objective!r}; {hint}")
    problems, types = [], {}
    for part in ("build", "fit"):
        params.bind(getattr(model_file, part), run[part])
    for name, values in space.items():
        part, _, key = name.partition(".")
        function = getattr(model_file, part)
        for value in values:
            try:
                params.bind(function, {**run[part], key: value})
            except errors.ParamsError as error:
                problems.append(str(error))
        hint = get_type_hints(function)[key]
        kinds = [kind for kind in (float, int) if kind in (hint, *get_args(hint))]
        types[name] = kinds[0].__name__ if kinds else "other"
    rises = trainer.best_epoch([{objective: 0.0}, {objective: 1.0}], objective) == 2
    return {
        "problems": problems,
        "types": types,
        "direction": "maximize" if rises else "minimize",
        "files": _files(run, model_file),
    }


def train(seed: int, runtime: Any, run: Any, folder: Path) -> None:
    """Train as ``stages.train`` does; print each epoch's record and the best epoch so far."""
    from ostinato.training import runtime as runtimes
    from ostinato.training import trainer

    model_file = params.model_module(run["domain"], run["model"])
    build = params.bind(model_file.build, run["build"])
    fit = params.bind(model_file.fit, run["fit"])
    data = params.module(run["domain"], "dataset").load(Path("data", run["data"]))
    checkpoints = folder / store.digest(seed, runtime, run, _files(run, model_file))
    history: list[dict[str, Any]] = []

    def tell(record: dict[str, Any]) -> None:
        history.append(record)
        monitor = run["fit"].get("monitor")  # none, where nothing is learned by gradients
        best = trainer.best_epoch(history, monitor) if monitor else len(history)
        print(json.dumps({**record, "best": best}), flush=True)

    with params.bind(runtimes.runtime, runtime)(seed):
        fit(build(data), data, TrainingContext(checkpoints, seed, tell))


def _files(run: Any, model_file: ModuleType) -> dict[str, str | None]:
    """The code and the data that decide a training's result, with their md5s."""
    from ostinato import layers
    from ostinato.training import losses, trainer

    examples = Path(str(params.module(run["domain"], "dataset").__file__)).parent
    used = (layers, losses, trainer, params.module(run["domain"], "layers"), model_file)
    code = [Path(str(module.__file__)) for module in used]
    root = Path(__file__).resolve().parent.parent
    named = {path.relative_to(root).as_posix(): path for path in (*code, examples)}
    named[f"data/{run['data']}/manifest.json"] = Path("data", run["data"], "manifest.json")
    return {name: mirror.md5_of(path) for name, path in named.items()}


if __name__ == "__main__":
    try:
        command(main)
    except KeyboardInterrupt:  # the search has stopped it, and says so
        sys.exit(130)
