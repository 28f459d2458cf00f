"""Requests for pieces, the evaluation that they must agree with, and what is written."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ostinato import store
from ostinato.errors import RequestError
from ostinato.music import dataset, evaluation, serving
from ostinato.music.dataset.loader import Pieces
from ostinato.music.formats import midi
from ostinato.music.formats.keys import KEYS, find_key
from ostinato.music.formats.roll import NOTES, Note, Roll, from_notes
from ostinato.music.models import markov
from ostinato.music.serving import Input, MusicService, Response
from ostinato.serving.kinds import kind_of, reads
from ostinato.serving.loading import Interface, Loaded
from ostinato.serving.prediction.predict import predict
from tests.test_music_dataset import prepared

TEMPERATURE = 0.5
FILE = {"frames_per_quarter": 2, "quarters_per_minute": 80.0, "quarters_per_bar": 4}


class Told(markov.Markov):
    """A chain that says it is conditional, and keeps what it is told."""

    conditional = True

    def __init__(self, pieces: Pieces, order: int) -> None:
        super().__init__(pieces, order)
        self.told: list[tuple[int, int, float]] = []

    def write(
        self,
        frames: Sequence[int],
        styles: Any,
        musical_keys: Any,
        seeds: Sequence[int],
        temperature: Any,
        beginnings: Sequence[Roll] | None = None,
    ) -> list[Roll]:
        rows = styles.tolist(), musical_keys.tolist(), temperature.tolist()
        self.told += list(zip(*rows, strict=True))
        return super().write(frames, styles, musical_keys, seeds, temperature, beginnings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset.Dataset:
    return prepared(tmp_path_factory.mktemp("music"))


@pytest.fixture
def service(data: dataset.Dataset) -> MusicService:
    return MusicService(markov.build(data, order=2), data, TEMPERATURE)


@pytest.fixture
def conditional(data: dataset.Dataset) -> MusicService:
    return MusicService(Told(data.examples("train"), 2), data, TEMPERATURE)


def ask(service: MusicService, *requests: Mapping[str, Any], **options: Any) -> list[Response]:
    return service.predict([Input.model_validate(each) for each in requests], options)


def roll_of(response: Response) -> Roll:
    notes = [Note(round(2 * s), round(2 * d), p) for s, d, p in response.notes]
    return from_notes(notes, round(2 * response.quarters))


def test_a_piece_has_its_bars_and_comes_as_notes_and_as_a_file(service: MusicService) -> None:
    (found,) = ask(service, {"bars": 3, "seed": 4}, midi=True)
    roll = roll_of(found)
    assert roll.shape == (3 * 8, NOTES)
    assert roll.any()
    assert found.midi is not None
    again = midi.read(base64.b64decode(found.midi), frames_per_quarter=2, tempo=80,
                      time_signatures=[])  # fmt: skip
    assert (again == roll[: len(again)]).all()
    assert not roll[len(again) :].any()
    assert found.key == KEYS[find_key(roll)]
    assert (found.given_quarters, found.quarters, found.nats) == (0, 12, None)
    assert ask(service, {"bars": 3, "seed": 4}, midi=False)[0].midi is None


def test_the_same_input_gives_the_same_piece_whatever_is_asked_beside_it(
    service: MusicService,
) -> None:
    one, other = {"bars": 2, "seed": 1}, {"bars": 4, "seed": 2, "temperature": 1.5}
    whole = {"whole": [[0, 4, 60], [4, 4, 64]]}
    (alone,) = ask(service, one)
    several = ask(service, other, one, whole, one)
    assert several[1] == several[3] == alone
    assert several[0].notes != alone.notes
    assert several[2].notes == []


def test_a_beginning_is_kept_and_continued_as_notes_and_as_a_file(
    service: MusicService, data: dataset.Dataset
) -> None:
    begun = data.examples("test")[0][:8]
    notes = serving.to_quarters(begun, 2)
    file = base64.b64encode(midi.write(begun, **FILE)).decode()  # type: ignore[arg-type]
    for given in ({"beginning": notes}, {"midi": file}):
        (found,) = ask(service, {**given, "bars": 3})
        roll = roll_of(found)
        assert (roll[:8] == begun).all()
        assert found.given_quarters == 4
        assert len(roll) == 24
        assert roll[8:].any()


def test_a_conditional_model_is_told_style_key_and_temperature(
    conditional: MusicService, data: dataset.Dataset
) -> None:
    chain = conditional.model
    scale = [[i, 1, 55 + step] for i, step in enumerate((0, 2, 4, 5, 7, 9, 11, 12, 0, 4, 7))]
    found = ask(
        conditional,
        {"style": "plain", "key": "A minor", "temperature": 0.9},
        {"style": "florid", "beginning": scale},
        {"seed": 3}, {"seed": 3}, {"seed": 5}, {"seed": 6},
    )  # fmt: skip
    assert chain.told[0] == (1, KEYS.index("A minor"), 0.9)
    assert chain.told[1] == (0, KEYS.index("G major"), TEMPERATURE)
    assert chain.told[2] == chain.told[3]
    assert len(set(chain.told[2:])) > 1
    counts = data.manifest.details["key_counts"]
    assert all(counts[key] > 0 for _, key, _ in chain.told[2:])
    assert [each.style for each in found[:2]] == ["plain", "florid"]
    assert set(conditional.reads["keys"]) == {KEYS[i] for i in np.flatnonzero(counts)}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"bars": 0}, "piece 1: bars: found 0; expected 1 to 64"),
        ({"seed": -1}, "piece 1: seed: found -1"),
        ({"temperature": 2.5}, "piece 1: temperature: found 2.5; expected a number above 0"),
        ({"beginning": [[0, 4, 200]]}, r"piece 1: beginning\[0\]: found \[0, 4, 200\]; expected a"),
        ({"beginning": [[0, 1, 60], [-1, 1, 60]]}, r"piece 1: beginning\[1\]: found \[-1, 1, 60\]"),
        ({"beginning": [[0, 0, 60]]}, r"piece 1: beginning\[0\]: found \[0, 0, 60\]"),
        ({"beginning": [[0, float("nan"), 60]]}, r"piece 1: beginning\[0\]"),
        ({"beginning": [[4000, 2000, 60]]}, "piece 1: beginning: found 6000 quarter notes"),
        ({"beginning": [[0, 8, 60]], "bars": 2}, "bars: found 2, but the beginning has 2"),
        ({"beginning": [[0, 1, 60]], "midi": ""}, "midi: found beginning, too; expected one"),
        ({"midi": "***"}, "piece 1: midi: no base64"),
        ({"midi": "TVRoZA=="}, "piece 1: midi: not a MIDI file"),
        ({"whole": [[0, 0.5, 60]]}, "piece 1: whole: found 1 frames; expected 2"),
        ({"whole": [[0, 8, 60]], "quarters": -3.0}, "piece 1: quarters: found -3"),
        ({"style": "plane"}, "style: found 'plane', which is not known; .*plain"),
        ({"key": "H major"}, "key: found 'H major', which is not known"),
    ],
)
def test_an_error_names_piece_and_field(
    conditional: MusicService, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        ask(conditional, {}, request_)
    assert caught.value.item == 1


def test_a_model_that_is_not_conditional_says_so(service: MusicService) -> None:
    with pytest.raises(RequestError, match="this model takes none; ask one that was built with"):
        ask(service, {"key": "C major"})
    assert service.reads["styles"] == service.reads["keys"] == []


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Input.model_validate({"tempo": 90})


def test_clients_learn_the_kind_and_what_can_be_asked(
    service: MusicService, data: dataset.Dataset
) -> None:
    assert kind_of(Input) == "music"
    found = reads(data.manifest, service)
    assert found["quarters_per_bar"] == 4
    assert found["temperature"] == TEMPERATURE


def test_requests_of_test_pieces_are_answered_as_evaluation_measures_them(
    service: MusicService, data: dataset.Dataset
) -> None:
    pieces = data.examples("test")
    arrays, _ = evaluation.measure(service.model, pieces)
    keys = pieces.keys.tolist()[:3]
    requests = serving.to_requests(data.folder, data.folder, keys)
    assert list(requests) == keys
    sent = json.loads(json.dumps(list(requests.values())))
    responses = [each.model_dump() for each in ask(service, *sent)]
    found = serving.from_responses(responses, (), ())
    assert set(found) == set(evaluation.SUMS)
    for name, values in found.items():
        np.testing.assert_allclose(values, arrays[name][:3], rtol=1e-9)


def test_a_file_of_requests_is_answered_in_a_table(service: MusicService, tmp_path: Path) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text(
        '{"bars": 2, "seed": 5}\n'
        '{"key": "C major"}\n'
        "{broken\n"
        '{"tempo": 90}\n'
        '{"beginning": [[0, 1.5, 60]], "bars": 1}\n'
    )
    source: Any = SimpleNamespace(
        name="pieces",
        domain="music",
        interface=Interface.of("music"),
        current=lambda: "1",
        load=lambda version: Loaded("1", service, {}),
    )
    summary = predict(source, file, tmp_path / "out.ndjson", options={})
    found = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [(row["line"], row["quarters"], row["given_quarters"]) for row in found] == [
        (1, 8, 0), (5, 4, 1.5)
    ]  # fmt: skip
    (alone,) = ask(service, {"bars": 2, "seed": 5}, midi=True)
    assert found[0]["notes"] == [list(note) for note in alone.notes]
    assert found[0]["midi"] == alone.midi
    assert [reject.place for reject in summary.rejects] == ["line 2", "line 3", "line 4"]
    assert "tempo" in summary.rejects[2].reason
    predict(source, file, tmp_path / "out.parquet", options={"midi": False})
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows[0]["notes"] == found[0]["notes"]
    assert rows[0]["midi"] is None


def test_a_packaged_model_is_loaded_and_answers(data: dataset.Dataset, tmp_path: Path) -> None:
    markov.save(markov.build(data, order=2), tmp_path / "model")
    store.write_json(tmp_path / "about.json", {"domain": "music", "model": "markov"})
    store.write_json(tmp_path / "manifest.json", data.manifest.to_json())
    store.write_arrays(tmp_path / "serving.npz", {"temperature": np.array(0.25, np.float32)})
    service = serving.load(tmp_path)
    assert service.temperature == 0.25
    assert roll_of(ask(service, {"bars": 2})[0]).any()


def test_evaluation_measures_real_pieces_as_real_and_prefers_a_better_model(
    data: dataset.Dataset,
) -> None:
    block: dict[str, Any] = {
        "resamples": 50, "temperatures": [0.6, 1.0], "samples": 8, "max_frames": 24,
        "copied_frames": 8, "num_plots": 2, "timed_requests": 1,
    }  # fmt: skip
    found = evaluation.evaluate(markov.build(data, order=2), data, 3, **block)
    again = evaluation.evaluate(markov.build(data, order=2), data, 3, **block)
    assert found.metrics == again.metrics
    written = found.tables["written"]
    real = written.iloc[0]
    assert real["pieces"] == "test"
    for name in ("pitch_class_distance", "interval_distance", "parallel_fifths"):
        assert real[name] == 0
    assert (written["interval_distance"].iloc[1:] > 0).all()
    by_position = found.tables["by_position"]
    assert by_position["frames"].sum() == sum(len(roll) for roll in data.examples("test"))
    assert by_position["nats"][0] == pytest.approx(found.value("first_frame_nats"))
    for name in ("pitch_classes", "intervals"):
        np.testing.assert_allclose(found.tables[name].iloc[:, 1:].sum(), 1)
    file, sound = (found.figures[f"written-1.{ending}"] for ending in ("mid", "wav"))
    assert isinstance(file, bytes)
    assert isinstance(sound, bytes)
    assert midi.read(file, frames_per_quarter=2, tempo=80, time_signatures=[]).any()
    assert sound.startswith(b"RIFF")
    few = data.examples("train")
    silence = Pieces(
        np.zeros((9, 11), np.uint8), np.array([9]), few.styles[:1], few.musical_keys[:1],
        few.keys[:1],
    )  # fmt: skip
    worse = evaluation.evaluate(markov.Markov(silence, 2), data, 3, **block)
    assert worse.value("nats") > 1.5 * found.value("nats")
    assert worse.value("accuracy") < found.value("accuracy")
