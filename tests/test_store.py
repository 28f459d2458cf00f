"""What is stored is whole, the same bytes for the same content, and never a pickle."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure

from ostinato import store

DTYPES = [np.dtype(name) for name in ("int16", "float32", "float64", "bool", "U4")]
ARRAYS: st.SearchStrategy[dict[str, np.ndarray]] = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    hnp.arrays(
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=4,
)


@settings(max_examples=50)
@given(arrays=ARRAYS)
def test_arrays_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    store.write_arrays(path, arrays)
    back = store.read_arrays(path)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_a_pickle_is_neither_written_nor_read(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        store.write_arrays(tmp_path / "a.npz", {"a": objects})
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "b.npz", a=objects)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        store.read_arrays(tmp_path / "b.npz")


def same_bytes_later(path: Path, monkeypatch: pytest.MonkeyPatch, write: object) -> None:
    assert callable(write)
    write(path)
    first = path.read_bytes()
    write(path)
    assert path.read_bytes() == first
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda clock=time.time: clock() + 1e6)
        write(path)
    assert path.read_bytes() == first


def test_identical_arrays_tables_and_figures_are_identical_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"a": np.arange(5), "b": np.ones((2, 3))}
    same_bytes_later(tmp_path / "a.npz", monkeypatch, lambda p: store.write_arrays(p, arrays))
    table = pd.DataFrame({"x": [0.1, 1 / 3], "name": ["a", "b,c"]})
    same_bytes_later(tmp_path / "a.csv", monkeypatch, lambda p: store.write_table(p, table))
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    same_bytes_later(tmp_path / "a.png", monkeypatch, lambda p: store.write_figure(p, figure))


MODEL = """
import sys
from pathlib import Path
from ostinato import store
from ostinato.training.imports import import_keras_quietly
import_keras_quietly()
import keras
keras.utils.set_random_seed(7)
junk = [object() for _ in range(int(sys.argv[2]))]
shared = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=3))
inputs = keras.Input((None, 3))
hidden = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True))(
    keras.layers.Masking()(inputs))
outputs = keras.layers.Dense(2)(shared(shared(hidden[..., :3])))
store.write_model(Path(sys.argv[1]), keras.Model(inputs, outputs))
"""


def test_identical_models_are_identical_files_also_from_another_process(tmp_path: Path) -> None:
    import keras

    files = [tmp_path / "a.keras", tmp_path / "b.keras"]
    for number, file in enumerate(files):
        # Another number of live objects gives Keras other ids; another second, another date.
        subprocess.run(
            [sys.executable, "-c", MODEL, str(file), str(1000 * number)],
            check=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        time.sleep(1)
    assert files[0].read_bytes() == files[1].read_bytes()
    with zipfile.ZipFile(files[0]) as archive:
        assert {i.date_time for i in archive.infolist()} == {store.EPOCH}
    models = [store.read_model(file) for file in files]
    points = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    assert isinstance(models[0], keras.Model)
    np.testing.assert_array_equal(models[0](points), models[1](points))


def test_a_model_with_code_in_it_is_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    store.write_model(tmp_path / "a.keras", model)
    with pytest.raises(ValueError, match=r"[Ll]ambda"):
        store.read_model(tmp_path / "a.keras")


def test_a_write_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    store.write_text(path, "former")
    with pytest.raises(RuntimeError), store.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_leaves_the_former_folder(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with store.atomic_folder(path) as folder:
        store.write_text(folder / "x", "former")
    with pytest.raises(RuntimeError), store.atomic_folder(path) as folder:
        store.write_text(folder / "x", "half")
        raise RuntimeError
    assert [p.read_text() for p in path.iterdir()] == ["former"]
    with store.atomic_folder(path) as folder:
        store.write_text(folder / "y", "next")
    assert [p.name for p in path.iterdir()] == ["y"]
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import sys, time
from pathlib import Path
from ostinato import store
with store.atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "x").write_text("half")
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_killed_write_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    with store.atomic_folder(path) as folder:
        assert list(folder.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_digest_tells_contents_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    whole = store.digest(tmp_path)
    assert store.digest(tmp_path) == whole
    (tmp_path / "b").rename(tmp_path / "c")
    renamed = store.digest(tmp_path)
    (tmp_path / "c").write_bytes(b"three")
    assert len({whole, renamed, store.digest(tmp_path)}) == 3
    assert store.digest({"a": 1, "b": 2}) == store.digest({"b": 2, "a": 1})
    assert store.digest(b"ab", b"c") != store.digest(b"a", b"bc")
    expected = hashlib.blake2b(b"one\0", digest_size=16).hexdigest()
    assert store.digest(tmp_path / "a") == expected
