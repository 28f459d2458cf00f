"""Promotion: a challenger must beat the champion on the same drawings, significantly."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from flows.engine.verification import PromoteError
from ostinato import errors, params, store
from ostinato.study import Study, studies
from ostinato.tracking import dvc_lock, mirror, runs
from stages import report, sample_requests
from tests.workspace import ROOT, Workspace, default_values, dvc_md5

CLASSES = ("circle", "fish", "house")
GATE = {
    "metric": "top1", "at_least": 0.4, "margin": 0.01, "confidence": 0.95, "resamples": 500,
    "max_examples": 1000, "approval": False,
}  # fmt: skip
FILES = ("metrics.json", "speed.json", "predictions.npz", "serving.npz")
NEAREST = default_values()["runs"]["sketches-nearest"]


class World:
    """A checkout whose runs have the predictions that a test chooses; so have their models."""

    data = "sketches"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.responses: dict[str, dict[str, Any]] = {}  # digest of a model -> request -> response
        self.deviates = False  # the fresh process gives other responses

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        values = params.load()
        change(values)
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)

    def gate(self, **changes: Any) -> None:
        self.edit(lambda values: values["gates"][self.data].update(changes))

    def prepare(self, *categories: str) -> None:
        """Fetch and prepare drawings of these categories."""
        self.edit(
            lambda values: values["data"]["sketches"]["fetch"]["doodles"].update(
                categories=list(categories), per_class=100
            )
        )
        self.make_data("sketches", "doodles")

    def make_data(self, domain: str, source: str) -> None:
        """The stages fetch and prepare."""
        study = Study.load()
        entry, name = study.params["data"][self.data], self.data
        fetch = params.function(params.module(domain, "sources"), source)
        with store.atomic_folder(study.raw_folder(name)) as folder:
            scratch = self.folder / "scratch"
            scratch.mkdir(exist_ok=True)
            params.bind(fetch, entry["fetch"][source])(folder, scratch, study.params["seed"])
        prepare = params.bind(params.module(domain, "dataset").prepare, entry["prepare"])
        with store.atomic_folder(study.data_folder(name)) as folder:
            prepare(study.raw_folder(name), folder)
        raw, data = study.raw_folder(name).as_posix(), study.data_folder(name).as_posix()
        values = {key: study.params["data"][name][key] for key in ("domain", "fetch", "prepare")}
        flat = {f"data.{name}.{key}": value for key, value in values.items()}
        self.lock(f"fetch@{name}", flat, [], [raw])
        self.lock(f"prepare@{name}", flat, [raw], [data])

    def train(
        self,
        name: str,
        correct: Callable[[int], bool],
        only: bool = True,
        validation: float | None = None,
    ) -> str:
        """A run that is correct on each test example whose number makes ``correct`` true.

        Its accuracy on the validation split is that of the test split, unless it is stated.
        """
        from ostinato.evaluation.classification import Predictions
        from ostinato.sketches import dataset, serving

        def add(values: dict[str, Any]) -> None:
            others = {} if only else values["runs"]
            values["runs"] = {**others, name: NEAREST}

        self.edit(add)
        study = Study.load()
        data = dataset.load(study.data_folder("sketches"))
        split = data.examples("test")
        order = np.argsort(split.keys)
        classes = data.manifest.classes
        label = np.zeros(len(order), np.int64)
        for number, row in enumerate(order):
            label[row] = (split.labels[row] + (not correct(number))) % len(classes)
        p = np.full((len(order), len(classes)), 0.1 / (len(classes) - 1))
        p[np.arange(len(order)), label] = 0.9
        rank = np.where(label == split.labels, 1, 2)
        likelihood = p[np.arange(len(order)), split.labels]
        confidence = np.full(len(order), 0.9)
        found = Predictions(split.labels, label, rank, confidence, likelihood, p)
        top1 = float((rank == 1).mean())
        scores = {"samples": len(rank), "top1": top1, "top1_low": top1, "top1_high": top1}
        scores["validation_top1"] = top1 if validation is None else validation
        digest = self.write_result(name, {"keys": split.keys, **found.arrays()}, scores)
        requests = serving.to_requests(
            study.raw_folder("sketches"), study.data_folder("sketches"), split.keys.tolist()
        )
        labels = dict(zip(split.keys.tolist(), label.tolist(), strict=True))
        self.responses[digest] = {
            json.dumps(request): classes[labels[key]] for key, request in requests.items()
        }
        return digest

    def write_result(self, name: str, arrays: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
        """The outputs of the stages of a result, and their records; returns the model's digest."""
        study = Study.load()
        results = study.result_folder(name)
        with store.atomic_folder(results / "model") as folder:
            (folder / "weights.txt").write_text(f"{name} {np.random.default_rng().random()}")
        (results / "history.csv").write_text("epoch,loss,seconds\n1,0.5,1.0\n")
        store.write_arrays(results / "predictions.npz", arrays)
        store.write_json(results / "metrics.json", scores)
        store.write_json(results / "speed.json", {"inference_ms_single": 1.0})
        for part, file in (("tables", "intervals.csv"), ("figures", "some.txt")):
            (results / part).mkdir(exist_ok=True)
            (results / part / file).write_text("level,step,margin\n0.8,1,0.5\n")
        store.write_arrays(results / "serving.npz", {"levels": np.array([0.8])})
        model, history = (f"{results}/{file}" for file in ("model", "history.csv"))
        evaluated = [f"{results}/{file}" for file in (*FILES, "tables", "figures")]
        data = study.data_folder(self.data).as_posix()
        entry = study.result(name)
        if study.is_ensemble(name):
            values = {"seed": 1, f"ensembles.{name}": entry}
            self.lock(f"ensemble@{name}", values, [data], [model, history, *evaluated])
        else:
            values = {"seed": 1, f"runs.{name}": entry}
            code = "ostinato/layers.py"
            self.lock(f"train@{name}", values, [data, code], [model, history])
            self.lock(f"evaluate@{name}", {"seed": 1}, [data, model], evaluated)
        return store.digest(results / "model")

    def lock(self, stage: str, values: Mapping[str, Any], deps: list[str], outs: list[str]) -> None:
        """Write the record of a stage to dvc.lock, as DVC does."""
        file = Path("dvc.lock")
        content: Any = {"schema": "2.0", "stages": {}}
        if file.exists():
            content = params.load(file)
        content["stages"][stage] = {
            "cmd": f"run {stage}",
            "params": {"params.yaml": dict(values)},
            "deps": [{"path": path, "md5": dvc_md5(Path(path))} for path in deps],
            "outs": [{"path": path, "md5": dvc_md5(Path(path))} for path in outs],
        }
        with file.open("w") as opened:
            YAML().dump(content, opened)

    def edit_lock(self, stage: str, output: Path) -> None:
        """Record the present content of an output in dvc.lock."""
        content: Any = params.load(Path("dvc.lock"))
        (record,) = [o for o in content["stages"][stage]["outs"] if o["path"] == str(output)]
        record["md5"] = dvc_md5(output)
        with Path("dvc.lock").open("w") as file:
            YAML().dump(content, file)

    def changed_outputs(self, *stages: str) -> dict[str, list[str]]:
        """What `dvc status` finds."""
        records = dvc_lock.read(Study.load())
        return {
            stage: [
                path
                for path, md5 in records[stage].outs.items()
                if not Path(path).exists() or dvc_md5(Path(path)) != md5
            ]
            for stage in stages
        }

    def command(self, *argv: str, **options: Any) -> None:
        """The commands of the flow, without the start of a process and the network."""
        if "stages.sample_requests" in argv:
            sample_requests.main(*argv[-4:])
        elif "ostinato.tracking" in argv:
            list(mirror.mirror(Study.load()))
        else:
            options_of = argv[argv.index("predict") :]
            paths = (Path(options_of[options_of.index(flag) + 1]) for flag in ("-m", "-i", "-o"))
            self.predict(*paths)

    def predict(self, model: Path, requests: Path, responses: Path) -> None:
        known = self.responses[store.digest(model / "artifacts" / "model")]
        classes = store.read_json(model / "artifacts" / "manifest.json")["classes"]
        predictions = []
        for request in store.read_json(requests)["inputs"]:
            label = known.get(json.dumps(request), "circle")
            if self.deviates:
                label = classes[classes.index(label) - 1]
            rest = 0.1 / (len(classes) - 1)
            p = {name: 0.9 if name == label else rest for name in classes}
            predictions.append({"label": label, "probability": 0.9, "probabilities": p})
        store.write_json(responses, {"predictions": predictions})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A checkout with drawings, without runs, and an empty MLflow store."""
    folder = tmp_path_factory.mktemp("made")
    (folder / ".dvc").mkdir()
    values = {**default_values(), "runs": {}, "gates": {"sketches": GATE}}
    values["data"]["sketches"]["prepare"] |= {"validation": 0.1, "test": 0.5}
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    (folder / "ostinato").mkdir()
    shutil.copy(ROOT / "ostinato" / "layers.py", folder / "ostinato")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        World(folder).prepare(*CLASSES)
    shutil.copy(mlflow_tables, folder)
    return folder


@pytest.fixture
def world(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> World:
    folder = tmp_path / "checkout"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    world = World(folder)
    patch_flow(world, monkeypatch)
    return world


def patch_flow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what needs a process: a check takes 5 s after each edit, DVC 2 s."""
    from flows.engine import candidates, dvc_graph, verification

    for module in (candidates, verification):
        monkeypatch.setattr(module, "run_command", world.command)
    monkeypatch.setattr(dvc_graph, "check_study", Study.load)
    monkeypatch.setattr(dvc_graph, "changed_outputs", world.changed_outputs)
    monkeypatch.setattr(sample_requests, "load_study", Study.load)
    monkeypatch.setattr(runs, "_log_model", log_model)


def log_model(client: Any, run: Any, study: Study, name: str) -> None:
    """Without the Keras flavour: these models are no Keras models."""
    from mlflow.entities import LoggedModelOutput

    with runs.logged_model(client, run, name) as (folder, described):
        shutil.copytree(study.result_folder(name) / "model", folder / "data")
        described.save(str(folder / "MLmodel"))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(described.model_id, step=0)])


def decide(**arguments: Any) -> Any:
    from flows import promote

    return promote.promote(**arguments)["sketches"]


def client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")


def aliases() -> Mapping[str, str]:
    (model,) = client().search_registered_models()
    return {alias: str(number) for alias, number in model.aliases.items()}


def versions() -> dict[str, Any]:
    return {str(v.version): v for v in client().search_model_versions("name = 'sketches'")}


def records() -> list[Any]:
    experiment = client().get_experiment_by_name("default/sketches").experiment_id
    return list(client().search_runs([experiment], "tags.stage = 'promote'"))


def log_results() -> None:
    list(mirror.mirror(Study.load()))


def training(name: str) -> Any:
    experiment = client().get_experiment_by_name("default/sketches").experiment_id
    (run,) = client().search_runs([experiment], f"attributes.run_name = '{name}'")
    return run


def test_the_first_champion_has_to_reach_the_bound_and_records_its_lineage(world: World) -> None:
    world.train("first", lambda n: n % 2 == 0)
    verdict = decide()
    assert (verdict.promoted, verdict.version) == (True, 1)
    assert aliases() == {"champion": "1"}
    version = versions()["1"]
    lock = dvc_lock.read(Study.load())["train@first"]
    md5 = lock.outs["results/first/model"]
    assert version.tags["model"] == md5
    assert version.tags["content"] == store.digest(Path("results/first/model"))
    assert version.tags["data"] == lock.deps["data/sketches"]
    assert json.loads(version.tags["code"])["ostinato/layers.py"] == lock.deps["ostinato/layers.py"]
    assert json.loads(version.tags["params"])["model"] == "nearest"
    assert json.loads(version.tags["scores"])["top1"] == verdict.score
    assert version.tags["run"] == "first"
    assert version.tags["check"].startswith("passed")
    assert {"commit", "dirty", "trained", "serving"} <= set(version.tags)
    for part in ("# first", "circle, fish, house", "doodles", "models:/sketches@champion", md5):
        assert part in version.description
    run = training("first")
    assert run.data.tags["alias"] == "champion"
    assert (version.run_id, run.info.status) == (run.info.run_id, "FINISHED")
    (record,) = records()
    assert record.data.metrics["gate/score"] == verdict.score
    assert record.data.params["margin"] == "0.01"


def test_a_promotion_does_not_change_status_and_end_of_the_training_run(world: World) -> None:
    world.train("first", lambda n: True)
    log_results()
    before = training("first")
    decide()
    after = training("first")
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    log_results()  # still takes it for complete
    assert training("first").info.end_time == before.info.end_time


def test_below_the_bound_nothing_is_registered_and_the_numbers_are_recorded(world: World) -> None:
    world.train("weak", lambda n: n % 4 == 0)
    verdict = decide()
    assert not verdict.promoted
    assert "below the lower bound" in verdict.reason
    assert client().search_registered_models() == []
    (record,) = records()
    assert record.data.tags["promoted"] == "false"
    assert record.data.metrics["gate/score"] == pytest.approx(0.25, abs=0.01)
    assert record.data.metrics["gate/at_least"] == 0.4
    assert "below the lower bound" in training("weak").data.tags["gate"]


def test_a_better_challenger_becomes_champion_and_the_champion_previous(world: World) -> None:
    from prefect.client.orchestration import get_client

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: n % 4 != 0)
    verdict = decide()
    assert verdict.promoted
    assert verdict.champion_score == pytest.approx(0.5, abs=0.01)
    assert verdict.comparison.low <= verdict.comparison.difference <= verdict.comparison.high
    assert verdict.comparison.low >= GATE["margin"]
    assert aliases() == {"champion": "2", "previous": "1"}
    assert training("second").data.tags["alias"] == "champion"
    assert training("first").data.tags["alias"] == "previous"
    with get_client(sync_client=True) as prefect:
        shown = max(prefect.read_artifacts(), key=lambda artifact: str(artifact.created))
    assert (shown.key, shown.type) == ("promote-sketches", "markdown")
    assert str(shown.data) == verdict.to_markdown()


def test_a_worse_challenger_is_not_registered(world: World) -> None:
    world.train("first", lambda n: n % 4 != 0)
    decide()
    world.train("second", lambda n: n % 2 == 0)
    verdict = decide()
    assert not verdict.promoted
    assert verdict.comparison.difference < 0
    assert aliases() == {"champion": "1"}
    assert len(versions()) == 1
    assert records()[0].data.metrics["gate/difference"] == verdict.comparison.difference


def test_an_insignificant_improvement_is_not_promoted(world: World) -> None:
    world.train("first", lambda n: n % 2 == 0)
    decide()
    # Correct on the other half than the champion, and on four more.
    world.train("second", lambda n: n % 2 == 1 or n < 8)
    verdict = decide()
    assert verdict.comparison.difference > GATE["margin"]
    assert verdict.comparison.low < 0 < verdict.comparison.high
    assert not verdict.promoted
    assert aliases() == {"champion": "1"}


def test_the_lower_end_of_the_interval_has_to_reach_the_margin(world: World) -> None:
    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: n % 2 == 0 or n % 8 == 1)
    world.gate(margin=0.11)
    verdict = decide()
    assert 0 < verdict.comparison.low < 0.11 < verdict.comparison.difference
    assert not verdict.promoted
    world.gate(margin=0.05)
    assert decide().promoted


def test_without_a_margin_an_equal_challenger_is_not_promoted(world: World) -> None:
    world.gate(margin=0.0)
    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: n % 2 == 0)
    assert not decide().promoted


def test_the_best_run_is_the_challenger_and_a_second_promotion_changes_nothing(
    world: World,
) -> None:
    world.train("weak", lambda n: n % 2 == 0)
    world.train("strong", lambda n: True, only=False)
    assert decide().run == "strong"
    again = decide()
    assert not again.promoted
    assert "nothing to do" in again.reason
    assert len(versions()) == len(records()) == 1


def test_the_challenger_is_the_best_on_the_validation_split_and_alone_judged_on_test(
    world: World,
) -> None:
    world.train("lucky", lambda n: True, validation=0.7)
    world.train("chosen", lambda n: n % 4 != 0, only=False, validation=0.8)
    verdict = decide()
    assert (verdict.run, verdict.promoted) == ("chosen", True)
    assert verdict.score == pytest.approx(0.75, abs=0.01)
    text = verdict.to_markdown()
    assert "| **chosen** | 0.800 | 0.7" in text
    assert "| lucky | 0.700 |  |  | not chosen |" in text
    assert records()[0].data.metrics["gate/validation"] == 0.8


def test_a_champion_that_is_still_a_result_is_compared_by_its_evaluation_as_in_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.engine import verification

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: n % 4 != 0, only=False)
    monkeypatch.setattr(verification, "verify", lambda *arguments: None)
    monkeypatch.setattr(verification, "predict", lambda *arguments: pytest.fail("it predicts"))
    verdict = decide()
    assert verdict.promoted
    assert verdict.comparison.examples == verdict.examples
    study = Study.load()
    section, _ = next(report.sections(study))
    first, second = sorted(section.results, key=lambda result: result.name)
    assert report.compared_with(section, second, first, section.primary) == verdict.comparison


def test_without_a_value_on_the_validation_split_a_run_is_left_out(world: World) -> None:
    world.train("old", lambda n: True)
    file = Path("results/old/metrics.json")
    scores = store.read_json(file)
    store.write_json(file, {**scores, "validation_top1": None})
    world.edit_lock("evaluate@old", file)
    assert (
        "validation_top1 is not defined: metrics.json has no value"
        in decide().candidates[0].left_out
    )


def test_a_champion_with_other_classes_is_compared_by_their_names(world: World) -> None:
    world.train("first", lambda n: True)
    decide()
    world.prepare("circle", "star", "triangle")
    world.train("second", lambda n: n % 2 == 0)
    verdict = decide()
    # It predicts "circle" for drawings of other classes.
    truth = store.read_arrays(Path("results/second/predictions.npz"))["truth"]
    assert verdict.champion_score == pytest.approx((truth == 0).mean())


def test_results_that_differ_from_dvc_lock_are_left_out_with_the_reason(world: World) -> None:
    world.train("first", lambda n: True)
    Path("results/first/predictions.npz").write_bytes(b"other")
    verdict = decide()
    assert not verdict.promoted
    assert "the output of evaluate@first is not that of dvc.lock" in verdict.candidates[0].left_out
    world.train("first", lambda n: True)
    with Path("data/raw/sketches/fish.ndjson").open("a") as file:
        file.write("\n")
    assert "the output of fetch@sketches is not that of dvc.lock" in decide().candidates[0].left_out


@pytest.mark.parametrize("how", ["other predictions", "another file"])
def test_a_version_that_does_not_reproduce_its_evaluation_is_not_promoted(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ostinato.tracking import registry

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: True)
    register = registry.register

    def tampered(*arguments: Any) -> Any:
        version = register(*arguments)
        if how == "another file":
            file = Path(version.source.removeprefix("file://"), "artifacts", "model", "weights.txt")
            file.write_bytes(file.read_bytes() + b"x")
        else:
            world.deviates = True
        return version

    monkeypatch.setattr(registry, "register", tampered)
    with pytest.raises(PromoteError, match="version 2"):
        decide()
    assert aliases() == {"champion": "1"}
    assert versions()["2"].tags["check"].startswith("failed")
    assert "version 2" in training("second").data.tags["gate"]
    world.deviates = False
    monkeypatch.setattr(registry, "register", register)
    if how == "other predictions":  # when they are correct again, the same version is promoted
        assert decide().version == 2
        assert aliases() == {"champion": "2", "previous": "1"}


def test_a_champion_whose_files_are_gone_is_named_and_the_verdict_recorded(world: World) -> None:
    from ostinato.tracking import registry

    world.train("first", lambda n: n % 2 == 0)
    decide()
    shutil.rmtree(versions()["1"].source.removeprefix("file://"))
    world.train("second", lambda n: True)
    with pytest.raises(PromoteError, match=r"the files of version 1 of sketches \(champion\)") as e:
        decide()
    assert "take the alias away" in str(e.value)
    assert aliases() == {"champion": "1"}
    assert "files of version 1 of sketches" in training("second").data.tags["gate"]
    with registry.connected() as connected:
        connected.delete_registered_model_alias("sketches", "champion")
    assert decide().promoted


def test_a_promotion_killed_after_the_registration_resumes_with_that_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.engine import verification

    class Cut(BaseException): ...

    def cut(*arguments: Any) -> None:
        raise Cut

    world.train("first", lambda n: True)
    with monkeypatch.context() as patch:
        patch.setattr(verification, "verify", cut)
        with pytest.raises(Cut):
            decide()
    assert (aliases(), len(versions())) == ({}, 1)
    assert decide().version == 1
    assert (aliases(), len(versions())) == ({"champion": "1"}, 1)


def test_an_interrupted_move_of_aliases_is_completed_by_the_next_flow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from flows import promote
    from ostinato.tracking import registry

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: True)
    point = MlflowClient.set_registered_model_alias

    def cut(self: Any, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        point(self, name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", cut)
        with pytest.raises(KeyboardInterrupt):
            decide()
    assert aliases()["champion"] == "1"  # never without one
    with registry.connected() as connected:
        registry.finish_alias_move(connected, "sketches")
    assert aliases() == {"champion": "2", "previous": "1"}
    promote.rollback("sketches")
    assert aliases() == {"champion": "1", "previous": "2"}


def test_a_second_rollback_reverts_the_first(world: World) -> None:
    from flows import promote

    with pytest.raises(PromoteError, match="no previous champion"):
        promote.rollback("sketches")
    world.train("first", lambda n: n % 2 == 0)
    decide()
    with pytest.raises(PromoteError, match="version 1 alone"):
        promote.rollback("sketches")
    world.train("second", lambda n: True)
    decide()
    assert promote.rollback("sketches").version == 1
    assert aliases() == {"champion": "1", "previous": "2"}
    assert training("first").data.tags["alias"] == "champion"
    promote.rollback("sketches")
    assert aliases() == {"champion": "2", "previous": "1"}
    assert [run.data.tags["version"] for run in records()] == ["2", "1", "2", "1"]


def test_a_version_that_was_rolled_back_needs_an_approval(world: World) -> None:
    from flows import promote

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: True)
    decide()
    promote.rollback("sketches")
    verdict = decide()  # it would win again
    assert not verdict.promoted
    assert "version 2, which was rolled back" in verdict.reason
    assert aliases() == {"champion": "1", "previous": "2"}
    assert decide(version=2).promoted
    assert aliases() == {"champion": "2", "previous": "1"}
    assert "rolled back" not in versions()["2"].tags


def test_with_approval_a_challenger_waits_for_a_reviewer(world: World) -> None:

    world.gate(approval=True)
    world.train("first", lambda n: True)
    verdict = decide()
    assert (verdict.promoted, verdict.version) == (False, 1)
    assert "waits for approval" in verdict.reason
    assert aliases() == {"challenger": "1"}
    with pytest.raises(PromoteError, match="no version 7"):
        decide(version=7)
    world.deviates = True
    with pytest.raises(PromoteError, match="predictions differ"):
        decide(version=1)
    assert aliases() == {"challenger": "1"}
    world.deviates = False
    assert decide(version=1).promoted
    assert aliases() == {"champion": "1"}
    assert "nothing to do" in decide(version=1).reason


def test_a_new_champion_emits_an_event_with_both_versions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import promote

    events: list[dict[str, Any]] = []
    monkeypatch.setattr(promote, "emit_event", lambda **event: events.append(event))
    world.train("first", lambda n: n % 2 == 0)
    decide()
    decide()
    world.train("second", lambda n: True)
    decide()
    promote.rollback("sketches")
    moves = [(event["payload"]["from"], event["payload"]["to"]) for event in events]
    assert moves == [(None, "1"), ("1", "2"), ("2", "1")]
    assert {event["event"] for event in events} == {"ostinato.champion.changed"}
    assert events[0]["resource"]["prefect.resource.id"] == "ostinato.model.sketches"


def test_an_unavailable_server_is_an_error_without_its_password_and_moves_no_alias(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import promote

    world.train("first", lambda n: n % 2 == 0)
    decide()
    world.train("second", lambda n: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@127.0.0.1:9")
    for act in (decide, lambda: promote.rollback("sketches")):
        with pytest.raises(errors.RegistryError, match=r"MLflow at http://\*\*\*@127") as raised:
            act()
        assert "hunter2" not in str(raised.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert aliases() == {"champion": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margn": 1}, "margn: unknown"),
        ({"confidence": 1.5}, "confidence"),
        ({"metric": "top3"}, "gates.sketches: sketches has no metric 'top3'; did you mean 'top"),
        ({"metric": "log_loss"}, "lower values of log_loss are better: set at_most, and not at_l"),
        ({"at_most": 0.9}, "higher values of top1 are better: set at_least, and not at_most"),
        ({"data": "clips"}, "data: unknown"),
    ],
)
def test_a_wrong_gate_is_an_error_with_the_key(
    world: World, change: dict[str, Any], message: str
) -> None:
    world.train("first", lambda n: True)
    world.gate(**change)
    with pytest.raises(ValueError, match=message):
        decide()


@pytest.mark.parametrize("file", studies(ROOT), ids=str)
def test_the_gates_of_every_study_are_valid(file: Path) -> None:
    from flows import promote

    study = Study(file, params.load(ROOT / file))
    if "gates" in study.params:
        assert promote.bind_gates(study, [])


def test_a_data_set_without_a_gate_is_an_error_with_similar_names(world: World) -> None:
    with pytest.raises(errors.ParamsError, match="did you mean 'sketches'"):
        decide(data=["sketch"])


def test_a_rollback_needs_no_valid_params_file(world: World) -> None:
    from flows import promote

    world.train("first", lambda n: n % 2 == 0)
    assert decide().version == 1
    world.train("second", lambda n: True)
    assert decide().version == 2
    with Path("params.yaml").open("a") as file:
        file.write("data: [\n")
    assert promote.rollback("sketches").version == 1
    with pytest.raises(errors.ParamsError, match="not valid YAML"):
        decide()


def test_two_promotions_at_once_register_one_version(world: World) -> None:
    world.train("first", lambda n: True)
    with ThreadPoolExecutor(2) as threads:
        verdicts = [future.result() for future in [threads.submit(decide) for _ in range(2)]]
    assert sorted(verdict.promoted for verdict in verdicts) == [False, True]
    assert (len(versions()), aliases()) == (1, {"champion": "1"})


WEATHER: dict[str, Any] = {
    "domain": "forecasting",
    "fetch": {"source": "seattle", "seattle": {}},
    "prepare": {
        "horizon": 7, "window": 28, "season": 7, "stride": 1, "since": None, "until": None,
        "validation": "2014-01-01", "calibration": None, "test": "2015-01-01", "timezone": None,
        "duplicates": "refuse", "gaps": "forward", "longest_gap": 3, "zeros": "keep",
        "tolerated_rejects": 0.01, "calendar": ["year"], "country": None, "subdivision": None,
        "scaling": "standard", "per": "series", "log": False,
    },
}  # fmt: skip


class SeriesWorld(World):
    """A checkout whose runs forecast the weather, with the errors that a test chooses."""

    data = "weather"
    steps = 7  # of a forecast of the champion

    def prepare(self) -> None:  # type: ignore[override]
        gate = {key: value for key, value in GATE.items() if key != "at_least"}
        gate |= {"metric": "mae", "at_most": 3.3, "margin": 0.0, "confidence": 0.9}
        study = {"data": {"weather": WEATHER}, "runs": {}, "gates": {"weather": gate}}
        self.edit(lambda values: values.update(study))
        self.make_data("forecasting", "seattle")

    def forecast(self, name: str, error: Callable[[Any], Any], members: Any = None) -> str:
        """A run or ensemble whose forecast from each origin is too high by an error."""
        from ostinato.forecasting import dataset, serving

        entry = {"data": "weather", "domain": "forecasting"}
        run = {**entry, "model": "linear", "build": {}, "fit": {}}
        if members:
            ensemble = {**entry, "members": members, "combine": "mean"}
            runs = dict.fromkeys(members, run)
            self.edit(lambda v: v.update(runs=runs, ensembles={name: ensemble}))
        else:
            self.edit(lambda v: v.update(runs={name: run}, ensembles={}))
        study = Study.load()
        data = dataset.load(study.data_folder("weather"))
        windows = data.windows("test", np.arange(data.size("test")))
        shift = error(np.arange(len(windows.keys)))[:, None] * np.ones(windows.truth.shape[1])
        forecast = windows.truth + shift
        arrays = {
            "keys": windows.keys,
            "truth": windows.truth,
            "forecast": forecast,
            "scale": np.ones(len(shift)),
        }
        scores = {"samples": len(shift), "mae": 1.0, "mae_low": 1.0, "mae_high": 1.0}
        scores["validation_mae"] = float(np.abs(shift).mean())
        digest = self.write_result(name, arrays, scores)
        requests = serving.to_requests(
            study.raw_folder("weather"), study.data_folder("weather"), windows.keys.tolist()
        )
        rows = dict(zip(windows.keys.tolist(), forecast.tolist(), strict=True))
        self.responses[digest] = {
            json.dumps(request): rows[key] for key, request in requests.items()
        }
        return digest

    def predict(self, model: Path, requests: Path, responses: Path) -> None:
        known = self.responses[store.digest(model / "artifacts" / "model")]
        forecasts = [
            known[json.dumps(q)][: self.steps] for q in store.read_json(requests)["inputs"]
        ]
        predictions = [{"dates": [], "forecast": f, "intervals": {}} for f in forecasts]
        store.write_json(responses, {"predictions": predictions})


def test_of_forecasts_a_lower_error_is_better_and_weeks_are_resampled_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import promote

    series = SeriesWorld(world.folder)
    patch_flow(series, monkeypatch)
    series.prepare()

    def judged() -> Any:
        return promote.promote()["weather"]

    series.forecast("poor", lambda n: 9.0 + 0 * n)
    assert "mae 9.0000 is above the upper bound 3.3" in judged().reason
    series.forecast("first", lambda n: 2.0 + 0 * n)
    verdict = judged()
    assert (verdict.promoted, verdict.score) == (True, pytest.approx(2.0))
    series.forecast("longer", lambda n: 0.5 + 0 * n)
    series.steps = 5  # the champion's
    with pytest.raises(PromoteError, match="longer cannot be compared with the champion"):
        judged()
    series.steps = 7
    # Better for two months, worse for the next two: single days would seem significant.
    series.forecast("lucky", lambda n: np.where(n // 60 % 2, 2.8, 1.0))
    verdict = judged()
    gain = np.where(np.arange(359) // 60 % 2, -0.8, 1.0)
    assert verdict.comparison.difference == pytest.approx(gain.mean())
    assert np.quantile(np.random.default_rng(0).choice(gain, (500, 359)).mean(axis=1), 0.05) > 0
    assert verdict.comparison.low < 0
    assert not verdict.promoted
    assert verdict.comparison.clusters == 26
    digest = series.forecast("second", lambda n: 1.0 + 0 * n, members=["lucky", "first"])
    verdict = judged()
    assert verdict.run == "second"
    assert "better than version 1: improvement of mae +1.0000" in verdict.reason
    assert (verdict.champion_score, verdict.score) == pytest.approx((2.0, 1.0))
    version = client().get_model_version_by_alias("weather", "champion")
    assert version.tags["content"] == digest
    assert "Windows: train 697" in version.description
    assert "Classes" not in version.description
    artifacts = Path(version.source.removeprefix("file://"), "artifacts")
    packed = artifacts / "serving.npz"
    assert packed.read_bytes() == Path("ensembles/second/serving.npz").read_bytes()
    assert store.read_json(artifacts / "about.json")["model"] == "ensemble"
    request = store.read_json(artifacts / "request.json")
    assert request["inputs"] == store.read_json(artifacts / "examples.json")["inputs"][:1]
    assert json.dumps(request) in version.description


# Python imports it at its start: it records the names of the files that a process opens.
RECORD_OPENED = """
import os, sys
def record(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        if "/data/" in os.path.abspath(arguments[0]):
            line = os.path.relpath(arguments[0], {folder!r}) + "\\n"
            os.write(log, line.encode())
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
sys.addaudithook(record)
"""


@pytest.mark.slow
def test_the_champion_predicts_with_its_own_code_and_no_data_are_read_twice(
    tmp_path: Path, dvc_cache: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real trainings, stages and processes."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    workspace = Workspace(tmp_path / "checkout", dvc_cache)
    workspace.edit(lambda values: values["gates"]["sketches"].update(at_least=0.1))
    workspace("dvc", "repro", "-q")
    monkeypatch.chdir(workspace.folder)
    script, log = tmp_path / "sitecustomize.py", tmp_path / "opened"
    script.write_text(RECORD_OPENED.format(folder=str(workspace.folder), log=str(log)))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        workspace(sys.executable, "-m", "flows.promote")
    opened = Counter(log.read_text().splitlines())
    assert opened["data/sketches/manifest.json"] > 0
    # Not of packages that are called data: several processes import their modules.
    files = {path: n for path, n in opened.items() if path.startswith("data/")}
    files = {path: n for path, n in files.items() if Path(path).is_file()}
    large = {path: n for path, n in files.items() if Path(path).stat().st_size > 10_000}
    assert large
    assert max(large.values()) == 1, "DVC knows the hashes, and one process reads the examples"
    (version,) = versions().values()
    assert (version.tags["run"], aliases()) == ("sketches-nearest", {"champion": "1"})
    assert version.tags["check"].startswith("passed: 16 examples")
    # From here on the checkout simplifies coarsely, and its only run is worse.
    code = Path("ostinato/sketches/formats/strokes.py")
    code.write_text(code.read_text().replace("EPSILON = 2.0", "EPSILON = 90.0"))
    workspace.edit(lambda values: values["runs"].pop("sketches-nearest"))
    workspace(sys.executable, "-m", "flows.promote")
    record = records()[0]
    assert record.data.tags["run"] == "sketches-gru"
    assert record.data.metrics["gate/difference"] < 0
    top1 = json.loads(version.tags["scores"])["top1"]
    assert record.data.metrics["gate/champion_score"] == pytest.approx(top1)
    assert aliases() == {"champion": "1"}
    # A version with the code of this checkout does not reproduce its evaluation.
    workspace.edit(lambda values: values["gates"]["sketches"].update(margin=0.0))
    client().delete_registered_model_alias("sketches", "champion")
    failed = workspace.run(sys.executable, "-m", "flows.promote")
    assert failed.returncode != 0
    assert "version 2: its predictions differ from its evaluation" in failed.stdout + failed.stderr
    assert aliases() == {}
