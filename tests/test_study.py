"""A study is checked before its first stage; no name in it leads out of the checkout."""

import datetime
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ostinato import errors, params, store, study
from tests.workspace import copy_code

ROOT = Path(__file__).parent.parent
TABLES = ("data", "runs", "ensembles", "gates")
STUDY = """
root: .
at: ""
seed: 1
runtime: {precision: float32}
data:
  drawings:
    domain: sketches
    fetch:
      source: doodles
      doodles: {categories: all, per_class: 5}
    prepare:
      tolerated_rejects: 0.0
      validation: 0.1
      test: 0.1
      max_points: 100
      only_recognised: false
      shard_size: 100
      workers: 1
evaluation:
  sketches:
    resamples: 10
    bins: 5
    prefix_fractions: [1.0]
    max_examples: 10
    num_plots: 2
    batch_size: 8
    timed_requests: 2
drift: {psi_threshold: 0.2, ks_threshold: 0.1, significance: 0.01, bins: 10}
flows:
  stages:
    "*": {retries: 0, delay: 0.0, timeout: null, gpu: false}
gates:
  drawings:
    metric: top1
    at_least: 0.5
    margin: 0.0
    confidence: 0.95
    resamples: 10
    max_examples: 10
    approval: false
runs:
  baseline:
    data: drawings
    domain: sketches
    model: nearest
    build: {references: 10, neighbours: 1, blur: 1.0, prior_votes: 1.0}
    fit: {batch_size: 8}
  gru:
    data: drawings
    domain: sketches
    model: rnn
    build:
      cell: gru
      units: 4
      num_layers: 1
      bidirectional: false
      pooling: last
      dropout: 0.0
      weight_decay: 0.0
    fit:
      epochs: 1
      batch_size: 8
      loss: sparse_categorical_crossentropy
      metrics: []
      optimizer: adam
      learning_rate: 0.01
      schedule: constant
      warmup_fraction: 0.0
      clip_norm: 1.0
      monitor: validation_loss
      patience: 1
ensembles: {}
"""


def values(**changes: Any) -> dict[str, Any]:
    """The study above, with values set by dotted key."""
    found: dict[str, Any] = YAML(typ="safe").load(STUDY)
    for path, value in changes.items():
        put(found, path, value)
    return found


def put(table: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for key in outer:
        table = table[key]
    table[last] = value


def problems(study_values: dict[str, Any]) -> list[str]:
    with pytest.raises(errors.ParamsError) as caught:
        study.check(study_values)
    head, *lines = str(caught.value).splitlines()
    assert head == f"params.yaml: {len(lines)} wrong"
    return [line.strip() for line in lines]


def test_a_valid_study_passes() -> None:
    study.check(values())
    study.check({k: v for k, v in values().items() if k not in study.OPTIONAL})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runs.gru.batch", 8, "unknown here; did you mean 'runs.gru.fit.batch_size'?"),
        ("runs.gru.patiense", 1, "unknown here; did you mean 'runs.gru.fit.patience'?"),
        ("runs.gru.seed", 3, "unknown here; 'seed' stands at the top of params.yaml"),
        ("optimizer", "sgd", "unknown here; did you mean 'runs.gru.fit.optimizer'?"),
        ("sead", 1, "unknown; did you mean 'seed'?"),
        ("runtime.precison", 1, "unknown; did you mean 'precision'?"),
        (
            "runtime.devices", 2,
            "no parameter any more, as it describes the computer; delete it. To set it, use the "
            "environment variable OSTINATO_DEVICES",
        ),
        (
            "runtime.inter_op", None,
            "no parameter any more, as it describes the computer; delete it. To set it, use the "
            "environment variable TF_NUM_INTEROP_THREADS",
        ),
        ("data.drawings.preparation", {}, "unknown; did you mean 'prepare'?"),
        (
            "data.drawings.max_points", 9,
            "unknown here; did you mean 'data.drawings.prepare.max_points'?",
        ),
        ("data.drawings.prepare.max_point", 9, "unknown; did you mean 'max_points'?"),
        (
            "data.drawings.fetch.per_class", 3,
            "unknown here; did you mean 'data.drawings.fetch.doodles.per_class'?",
        ),
        ("data.drawings.fetch.doodels", {}, "unknown; did you mean 'doodles'?"),
        ("data.drawings.fetch.doodles.per_clas", 3, "unknown; did you mean 'per_class'?"),
        ("data.drawings.fetch.source", "doodels", "no source 'doodels'; did you mean 'doodles'?"),
        ("data.drawings.fetch.source", "folder", None),
        ("data.drawings.fetch.source", ["doodles"], None),
        ("data.drawings.test", 0.1, "unknown here; did you mean 'data.drawings.prepare.test'?"),
        ("data.drawings.domain", "sketch", None),
        ("evaluation.sketches.bin", 3, "unknown; did you mean 'bins'?"),
        ("evaluation.sketchs", {}, None),
        ("drift.bin", 1, "unknown; did you mean 'bins'?"),
        ("flows.stage", {}, "unknown; did you mean 'stages'?"),
        ("gates.drawings.margins", 0.1, "unknown; did you mean 'margin'?"),
        ("gates.drawings.data", "drawings", None),
        ("gates.drawings.at_most", 0.1, None),
        ("gates.drawing", {}, "no data set 'drawing'; did you mean 'drawings'?"),
        ("runs.gru.data", "drawing", "no data set 'drawing'; did you mean 'drawings'?"),
        ("runs.gru.domain", "video", None),
        ("runs.gru.domain", ["sketches"], None),
        ("evaluation.bins", {}, None),
        ("flows.stages.7", {}, None),
        ("runs.gru.model", "staked", None),
        (
            "runs.gru.model", "stacked",
            "ostinato.sketches.models: no module 'stacked'; it is called rnn now",
        ),
        ("runs.gru.fit.epochs", 0, "Input should be greater than or equal to 1, found 0"),
        ("runs.gru", None, "expected a mapping, found NoneType None"),
        ("data", None, "expected a mapping ({} for none), found None"),
    ],
)  # fmt: skip
def test_an_error_names_a_wrong_or_misplaced_key(
    path: str, value: Any, message: str | None
) -> None:
    found = problems(values(**{path: value}))
    if message:
        assert f"{path}: {message}" in found
    else:
        assert any(line.startswith(path.rpartition(".")[0]) for line in found)


def test_blocks_within_a_source_are_checked() -> None:
    clips = {
        "domain": "video",
        "fetch": {
            "source": "order",
            "order": {
                "drawings": {"source": "doodles", "doodles": {"categories": "all", "per_clas": 2}},
                "frames": 4, "size": 8, "pen": 1.0,
            },
        },
        "prepare": {
            "tolerated_rejects": 0.0, "validation": 0.1, "test": 0.1, "group": None, "frames": 4,
            "frame_rate": None, "frame_sampling": "uniform", "clips": 1, "height": 8, "width": 8,
            "colour": "grey", "max_pixels": 10_000, "shard_size": 10, "workers": 1,
            "augment": {
                "flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0, "flop": True,
            },
        },
    }  # fmt: skip
    found = problems(values(**{"data.clips": clips}))
    assert len(found) == 2
    assert found[0].startswith("data.clips.fetch.order.drawings: doodles.per_cl")
    assert found[1] == "data.clips.prepare.augment.flop: unknown; did you mean 'flip'?"


@pytest.mark.parametrize("seed", [None, -1, 20260101123456, 1.5, 1e3, "7", [1, 2], True])
def test_a_seed_is_an_unsigned_integer_of_32_bits(seed: Any) -> None:
    (line,) = problems(values(seed=seed))
    assert line.startswith("seed: Input should be ")
    assert line.endswith(f", found {seed!r}")


def test_the_check_lists_all_problems() -> None:
    changed = values(**{"seed": None, "runs.gru.fit.epochs": 0, "drift.psi_threshold": -1})
    del changed["runtime"]
    places = {line.partition(":")[0] for line in problems(changed)}
    assert places == {"runtime", "seed", "drift.psi_threshold", "runs.gru.fit.epochs"}


def test_each_old_key_is_one_problem_with_its_present_name() -> None:
    changed = values()
    old = {"machine": changed.pop("runtime"), "scores": changed.pop("evaluation"), **changed}
    old["drift"]["psi"] = old["drift"].pop("psi_threshold")
    old["gates"]["drawings"]["limit"] = old["gates"]["drawings"].pop("max_examples")
    for key, present in {"batch": "batch_size", "rate": "learning_rate"}.items():
        old["runs"]["gru"]["fit"][key] = old["runs"]["gru"]["fit"].pop(present)
    build = old["runs"]["baseline"]["build"]
    build["smoothing"] = build.pop("prior_votes")
    old["runs"]["gru"]["rate"] = 0.1
    assert problems(old) == [
        "machine: unknown; it is called runtime now",
        "scores: unknown; it is called evaluation now",
        "drift.psi: unknown; it is called psi_threshold now",
        "runs.baseline.build.smoothing: unknown; it is called prior_votes now",
        "runs.gru.rate: unknown here; did you mean 'runs.gru.fit.learning_rate'?",
        "runs.gru.fit.batch: unknown; it is called batch_size now",
        "runs.gru.fit.rate: unknown; it is called learning_rate now",
        "gates.drawings.limit: unknown; it is called max_examples now",
    ]


# Every key missing, every value of a wrong type


def paths(table: Any, prefix: str = "") -> list[str]:
    """The dotted keys of all values of a study."""
    found = []
    for key, value in table.items():
        path = f"{prefix}.{key}".lstrip(".")
        found += [path, *(paths(value, path) if isinstance(value, dict) else [])]
    return found


def whole() -> dict[str, Any]:
    """The study above with an ensemble."""
    ensemble = {
        "domain": "forecasting", "data": "days", "members": ["a", "b"], "combine": "mean",
    }  # fmt: skip
    return values(**{"ensembles.both": ensemble})


PATHS = paths(whole())
OTHERS: list[Any] = [
    None, True, -1, 10**30, 1.5, float("nan"), "x", "", [], [1], [[]], {}, {"a": 1}, {1: 2}, (1,),
    datetime.date(2026, 11, 30), b"x",
]  # fmt: skip


def named(path: str, message: str) -> bool:
    """Whether a message names a key, or the block that it is in."""
    return any(part in message for part in (path, path.rpartition(".")[0] or path))


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_key_is_an_error_that_names_it(path: str) -> None:
    changed = whole()
    *outer, last = path.split(".")
    table = changed
    for key in outer:
        table = table[key]
    del table[last]
    message = ""
    try:
        study.check(changed)
    except errors.ParamsError as error:
        message = str(error)
    entries = {"runs.gru", "runs.baseline", "gates.drawings", "flows.stages.*", "ensembles.both"}
    names_key = last in message  # a run without its data set names both
    assert names_key or path in {*study.OPTIONAL, *entries}


@given(st.sampled_from(PATHS), st.sampled_from(OTHERS))
def test_a_value_of_a_wrong_type_is_an_error_that_names_the_key(path: str, other: Any) -> None:
    changed = whole()
    del changed["ensembles"]["both"]
    put(changed, path, other) if not path.startswith("ensembles.") else None
    for check in (study.check, lambda changed: study.check_tables(study.Study(Path(), changed))):
        message = path
        try:
            check(changed)
        except errors.ParamsError as error:
            message = str(error)
        assert named(path, message)


def test_an_ensemble_needs_members_of_one_data_set_and_a_unique_name() -> None:
    entry = {"domain": "forecasting", "data": "drawings", "members": ["gro"], "combine": "mean"}
    found = problems(values(ensembles={"gru": entry, "both": {**entry, "combine": "sum"}}))
    assert "ensembles.gru: a run has this name; give the ensemble another one" in found
    assert "ensembles.gru.members: no run 'gro'; did you mean 'gru'?" in found
    other = {**entry, "data": "tea", "members": ["gru", "baseline"]}
    found += problems(values(ensembles={"tea": other}))
    wanted = "gru was trained on drawings, not on tea; leave it out, or make an ensemble"
    assert f"ensembles.tea.members: {wanted} for each data set" in found
    few = "expected two or more different runs, found ['gro']"
    assert f"ensembles.gru.members: {few}" in found
    assert any(line.startswith("ensembles.both.combine: Input should be 'mean'") for line in found)


# Names

BAD = [
    "/srv/models", "..", "../x", "a/b", "a;touch x", "a b", "it's", "$HOME", "`id`", "$(id)",
    "gru.v2", "gru@2", "gru:2", "a%b", "größe", "日本", "-x", "_x", "", "a\n", "\x00", "x" * 65,
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", [*BAD, 2024, None, 1.5, True])
def test_an_invalid_name_is_an_error_when_params_are_loaded(
    table: str, name: Any, tmp_path: Path
) -> None:
    write(tmp_path / "params.yaml", {"seed": 1, table: {name: {}}})
    with pytest.raises(errors.ParamsError, match=rf"1 wrong\n  {table}: ") as caught:
        params.load(tmp_path / "params.yaml")
    assert "not a valid name" in str(caught.value) or "put it in quotes" in str(caught.value)


def test_a_data_set_cannot_be_called_raw(tmp_path: Path) -> None:
    write(tmp_path / "params.yaml", {"data": {"raw": {}}})
    with pytest.raises(errors.ParamsError, match="'raw' is the folder of all raw data"):
        params.load(tmp_path / "params.yaml")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True))
def test_a_valid_name_is_returned_unchanged(name: str) -> None:
    from stages.entry import key_of

    assert params.check_name(name) == name
    assert key_of(name) == key_of(f"train@{name}") == name


def write(file: Path, content: Any) -> None:
    with file.open("w", encoding="utf-8") as opened:
        YAML().dump(content, opened)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a small study; its parent holds another folder, models/."""
    folder = tmp_path / "checkout"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("ostinato", "stages", "dvc.yaml"):
        copy_code(name, folder)
    (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "letter.txt").write_text("precious")
    write(folder / "params.yaml", values())
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OSTINATO_FOLDERS", raising=False)
    return folder


def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return run(str(binaries / "dvc"), *arguments, PATH=path)


def renamed(table: str, name: str) -> None:
    """Rename the first entry of a table of the study."""
    changed = values()
    changed[table] = {name: next(iter(changed[table].values()))}
    write(Path("params.yaml"), changed)


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without Python's cache of compiled modules."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    quiet = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**quiet, **variables}
    )


def stage(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", f"stages.{name}", *arguments)


@pytest.mark.parametrize("name", ["fetch", "prepare", "train", "evaluate", "ensemble"])
def test_a_stage_refuses_a_path_as_a_name(name: str, checkout: Path) -> None:
    models = checkout.parent / "models"
    changed = values()
    changed["data"][str(models)] = changed["data"]["drawings"]
    changed["runs"][str(models)] = changed["runs"]["baseline"]
    write(checkout / "params.yaml", changed)
    before = content(checkout)
    wrong = "ParamsError: params.yaml: 2 wrong\n  data: "
    for key, message in (
        (str(models), f"ParamsError: {str(models)!r} is not a valid"),
        ("x", wrong),
    ):
        done = stage(name, "params.yaml", key)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
        assert "Traceback" not in done.stderr
    assert (models / "letter.txt").read_text() == "precious"
    assert content(checkout) == before


def test_the_first_stage_finds_an_error_in_the_last_run(checkout: Path) -> None:
    write(checkout / "params.yaml", values(**{"runs.gru.fit.patiense": 3}))
    for name, *arguments in (("fetch", "drawings"), ("check",)):
        done = stage(name, "params.yaml", *arguments)
        assert done.returncode == 1
        assert done.stderr == (
            "ParamsError: params.yaml: 1 wrong\n"
            "  runs.gru.fit.patiense: unknown; did you mean 'patience'?\n"
        )
    assert not (checkout / "data").exists()


def test_the_error_names_the_params_file_of_a_recipe() -> None:
    with pytest.raises(errors.ParamsError, match=r"^recipes/x/params\.yaml: 1 wrong\n  sed: "):
        study.check(values(sed=1), Path("recipes/x/params.yaml"))


def test_a_study_is_checked_again_after_a_change_of_it_or_of_a_model(checkout: Path) -> None:
    passed = checkout / "scratch" / "checked"

    def check(study: Any) -> tuple[subprocess.CompletedProcess[str], int]:
        write(checkout / "params.yaml", study)
        return stage("check", "params.yaml"), len(list(passed.iterdir()))

    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: stage("check", "params.yaml"), range(2)))
    assert [(one.returncode, one.stderr) for one in both] == [(0, "")] * 2
    done, number = check(values())
    assert (done.returncode, number) == (0, 1)
    done, number = check(values(seed=2))
    assert (done.returncode, number) == (0, 2)
    done, number = check(values(seed=None))
    assert (done.returncode, number) == (1, 2)
    models = checkout / "ostinato" / "sketches" / "models"
    (models / "rnn.py").rename(models / "recurrent.py")
    done, number = check(values(seed=2))
    assert (done.returncode, number) == (1, 2)
    assert "runs.gru.model: ostinato.sketches.models: no module 'rnn'" in done.stderr


def test_processes_write_one_file_concurrently(checkout: Path) -> None:
    code = """
from pathlib import Path
from ostinato import store
for _ in range(200):
    store.write_text(Path("data/.checked"), "x")
"""
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: run(sys.executable, "-c", code), range(3)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 3
    assert [path.name for path in (checkout / "data").iterdir()] == [".checked"]


def test_a_wrong_number_of_arguments_prints_the_usage(checkout: Path) -> None:
    assert stage("train").stderr == "usage: python -m stages.train STUDY NAME\n"
    assert (
        stage("train", "params.yaml", "two", "names").stderr
        == "usage: python -m stages.train STUDY NAME\n"
    )


@pytest.mark.parametrize(
    ("table", "name", "stage_name"),
    [
        ("data", "{models}", "fetch"),
        ("data", "../../../models", "fetch"),
        ("data", "../../../models", "prepare"),
        ("data", "../../stages", "fetch"),
        ("runs", "{models}", "train"),
        ("runs", "../../models", "evaluate"),
    ],
)
def test_dvc_deletes_no_folder_that_a_name_points_to(
    table: str, name: str, stage_name: str, checkout: Path
) -> None:
    """DVC deletes the outputs of a stage before it runs the command of the stage."""
    name = name.format(models=checkout.parent / "models")
    renamed(table, name)
    before = content(checkout.parent)
    done = dvc("repro", f"{stage_name}@{name}")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    after = content(checkout.parent)
    assert {path: after.get(path) for path in before} == before
    assert {path for path in after.keys() - before if "/.dvc/" not in f"/{path}"} == set()


@pytest.mark.parametrize("name", ["a;touch pwned", "a';touch pwned;'", "$(touch pwned)", '"`id`'])
def test_no_name_is_part_of_a_shell_command(name: str, checkout: Path) -> None:
    """Each command of the project's dvc.yaml, run by DVC in its own shell, without `check`."""
    template = params.read_yaml(ROOT / "dvc.yaml")["stages"]
    commands = {key: block["do"]["cmd"] for key, block in template.items() if "do" in block}
    assert len(commands) == 5
    stages = {
        key: {"foreach": {name: {}}, "do": {"cmd": command}} for key, command in commands.items()
    }
    write(checkout / "dvc.yaml", {"stages": stages})
    done = dvc("repro", "--keep-going")
    assert done.returncode != 0
    assert done.stderr.count("is not a valid name") == 5, done.stderr
    assert not (checkout / "pwned").exists()


# The store


@pytest.mark.parametrize(
    "act",
    [
        store.remove,
        lambda path: store.write_text(path, "x"),
        lambda path: store.write_json(path, {}),
        lambda path: store.atomic_folder(path).__enter__(),
        lambda path: store.atomic_file(path).__enter__(),
    ],
    ids=["remove", "write_text", "write_json", "atomic_folder", "atomic_file"],
)
def test_the_store_refuses_paths_outside_its_folders(
    act: Callable[[Path], Any], checkout: Path
) -> None:
    models = checkout.parent / "models"
    before = content(checkout.parent)
    paths = [models, models / "x", Path("../models"), Path("results/../../models"), Path()]
    code = [
        Path("stages"),
        Path("stages/x"),
        Path(".git/x"),
        Path(".dvc/config"),
        Path("data/../x"),
    ]
    for path in (*paths, *code, checkout, checkout.parent, Path("/"), Path("/srv/models")):
        with pytest.raises(errors.StoreError, match="not written and not removed"):
            act(path)
    assert content(checkout.parent) == before


def test_the_store_writes_to_its_folders_and_to_configured_ones(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_text(Path("results/a/text"), "x")
    (checkout.parent / "disk").mkdir()
    Path("data").symlink_to(checkout.parent / "disk")  # a link that the user made
    store.write_text(Path("data/text"), "x")
    assert (checkout.parent / "disk" / "text").read_text() == "x"
    with store.temporary_folder() as folder:
        store.write_text(folder / "text", "x")
        assert folder.is_relative_to(checkout / "scratch")
    assert not folder.exists()
    models = checkout.parent / "models"
    monkeypatch.setenv("OSTINATO_FOLDERS", f"/nowhere{os.pathsep}{models}/../models/")
    store.write_text(models / "text", "x")
    with pytest.raises(errors.StoreError):
        store.remove(models)
    store.remove(Path("results/a"))
    assert not Path("results/a").exists()
    monkeypatch.delenv("OSTINATO_FOLDERS")
    for name in ("report", "results/a/tables"):
        with store.atomic_folder(Path(name)) as folder:
            store.write_text(folder / "text", "x")
    store.write_text(Path("report.md"), "x")
    assert Path("report/text").read_text() == Path("results/a/tables/text").read_text() == "x"


# `dvc exp run -S`


@pytest.mark.parametrize("path", study.studies(ROOT), ids=str)
def test_an_override_changes_the_entry_that_it_names_and_no_other(
    path: Path, tmp_path: Path
) -> None:
    """DVC writes a block that is an alias of another one twice: the second write wins."""
    before = params.load(ROOT / path)
    for table in ("data", "runs", "gates"):
        for name, entry in before.get(table, {}).items():
            for key, value in first_numbers(entry):
                file = tmp_path / "params.yaml"
                shutil.copy(ROOT / path, file)
                apply_overrides(file, [f"{table}.{name}.{key}={value + 7}"])
                after = params.load(file)[table]
                assert [n for n in after if after[n] != before[table][n]] == [name], key


def first_numbers(block: dict[str, Any]) -> list[tuple[str, float]]:
    """A number of each nested block, by its dotted key."""
    numbers = [(k, v) for k, v in block.items() if type(v) in (int, float)][:1]
    blocks = [(k, v) for k, v in block.items() if isinstance(v, dict)]
    return numbers + [(f"{k}.{inner}", v) for k, b in blocks for inner, v in first_numbers(b)]
