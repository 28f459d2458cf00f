"""Train and ask models from Python."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ostinato.api import train_drawing_classifier, train_forecaster, train_translator
from ostinato.errors import DataError, ParamsError, RequestError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is no checkout, and no variable allows other folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OSTINATO_FOLDERS")


def test_a_forecaster_of_a_table() -> None:
    days = pd.date_range("2024-01-01", periods=300)
    frame = pd.DataFrame({"day": days, "sales": 10 + np.sin(np.arange(300) * 2 * np.pi / 7)})
    model = train_forecaster(frame, date="day", target="sales", horizon=3, run="weather-linear")
    forecast = model.predict(frame)
    assert forecast["day"].tolist() == pd.date_range("2024-10-27", periods=3).tolist()
    truth = 10 + np.sin(np.arange(300, 303) * 2 * np.pi / 7)
    np.testing.assert_allclose(forecast["forecast"], truth, atol=0.7)
    assert (forecast["low_0.8"] <= forecast["high_0.8"]).all()
    assert model.metrics["mae"] < 0.7
    dirty = frame.drop(index=270)  # filled by the rule of the training
    dirty.loc[280, "sales"] = np.nan
    assert model.predict(dirty)["day"].tolist() == forecast["day"].tolist()
    with pytest.raises(RequestError, match="the model reads 28 steps"):
        model.predict(frame.tail(5))
    with pytest.raises(DataError, match="did you mean 'sales'"):
        train_forecaster(frame, date="day", target="sale")
    with pytest.raises(ParamsError, match="epoch: unknown; did you mean 'epochs'"):
        train_forecaster(frame, date="day", target="sales", fit={"epoch": 3})
    assert list(Path().iterdir()) == []


def test_a_classifier_of_drawings(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "drawings"
    folder.mkdir()

    def drawing(name: str) -> list[list[list[float]]]:
        along = np.linspace(0, 200, 9) + generator.normal(0, 3, 9)
        across = generator.normal(100, 3, 9)
        xs, ys = (along, across) if name == "dash" else (across, along)
        return [[xs.round().tolist(), ys.round().tolist()]]

    for name in ("bar", "dash"):
        lines = [
            json.dumps(
                {"word": name, "key_id": f"{name}{i}", "recognized": True, "drawing": drawing(name)}
            )
            for i in range(60)
        ]
        (folder / f"{name}.ndjson").write_text("\n".join(lines) + "\n")
    model = train_drawing_classifier(
        folder, run="sketches-nearest", build={"references": 50}, fit={"batch_size": 32}
    )
    (probabilities,) = model.predict([drawing("dash")])
    assert next(iter(probabilities)) == "dash"
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert model.metrics["top1"] > 0.9


def test_a_translator_of_pairs() -> None:
    words = {"red": "rouge", "green": "vert", "blue": "bleu", "car": "auto", "house": "maison"}
    names = list(words)
    pairs = [
        (f"the {a} {b} {number}", f"le {words[b]} {words[a]} {number}")
        for a in names
        for b in names
        for number in range(12)
    ]
    model = train_translator(
        pairs,
        languages=("en", "fr"),
        prepare={"vocab_size": 320, "language_margin": 0.0},
        build={"units": 8},
        fit={"epochs": 1, "average_checkpoints": 1},
    )
    (translation,) = model.predict(["the red car 3"])
    assert isinstance(translation, str)
    assert model.metrics["bleu"] >= 0
