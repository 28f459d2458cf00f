"""Models of pieces: their probabilities, and what they write."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato.music import evaluation
from ostinato.music.dataset.loader import Dataset, Pieces, conditions
from ostinato.music.formats.measured import Measured
from ostinato.music.formats.roll import NOTES, Roll, pack
from ostinato.music.layers import Nade, Network, Writer, nats
from ostinato.music.models import markov, rnn, tcn, transformer, vae
from ostinato.task import Manifest, TrainingContext

STYLES = ["plain", "florid"]
COMMON: dict[str, Any] = {"nade_units": 5, "condition": 26, "dropout": 0.0}
NETWORKS: dict[str, Any] = {
    "lstm": lambda: rnn.network(cell="lstm", units=[6, 5], output="nade", **COMMON),
    "gru": lambda: rnn.network(cell="gru", units=[6], output="independent", **COMMON),
    "simple": lambda: rnn.network(cell="simple", units=[6], output="independent", **COMMON),
    "tcn": lambda: tcn.network(filters=6, levels=2, kernel_size=3, output="nade", **COMMON),
    "transformer": lambda: transformer.network(
        head_dim=4, num_heads=2, num_layers=2, feedforward_dim=8, context=5, output="nade", **COMMON
    ),
    "vae": lambda: vae.network(
        encoder_units=4, decoder_units=6, latent_size=3, output="nade", **COMMON
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def some_roll(seed: int, frames: int = 12, chance: float = 0.06) -> Roll:
    return np.random.default_rng(seed).random((frames, NOTES)) < chance


def network(name: str) -> Network:
    """A network with large random weights, so that everything shows in its outputs."""
    keras.utils.set_random_seed(4)
    built: Network = NETWORKS[name]()
    random = np.random.default_rng(5)
    for weight in built.trainable_weights:
        weight.assign(random.normal(0, 0.6, weight.shape))
    return built


def pieces_of(rolls: Sequence[Roll]) -> Pieces:
    count = len(rolls)
    return Pieces(
        pack(np.concatenate(rolls)),
        np.cumsum([len(roll) for roll in rolls]),
        np.zeros(count, np.int32),
        np.full(count, 3, np.int32),
        np.array([f"piece {i}" for i in range(count)]),
    )


class InMemory(Dataset):
    """A data set of given pieces."""

    def __init__(self, **splits: Sequence[Roll]) -> None:
        manifest = Manifest(
            source="test",
            examples="pieces",
            splits={name: {"pieces": len(rolls)} for name, rolls in splits.items()},
            classes=STYLES,
            details={"frames_per_quarter": 1, "quarters_per_bar": 4, "quarters_per_minute": 80},
        )
        super().__init__(Path("memory"), manifest)
        self._splits = {name: pieces_of(rolls) for name, rolls in splits.items()}


def told(count: int) -> dict[str, Any]:
    return {"styles": np.arange(count) % 2, "musical_keys": np.arange(count) % 24}


@every_network
def test_the_features_of_writing_are_those_of_training(name: str) -> None:
    built = network(name)
    roll = np.stack([some_roll(1), some_roll(2)]).astype(np.float32)
    before = np.pad(roll[:, :-1], ((0, 0), (1, 0), (0, 0)))
    condition = conditions(np.array([0, 1]), np.array([3, -1]), 2)
    latent = tf.random.stateless_normal((2, 3), (1, 2)) if built.latent_size else None
    expected = built.features(before, condition, latent)
    beside, state = built.told(condition, latent), built.trunk.start(2)
    for t in range(roll.shape[1]):
        features, state = built.trunk.step(tf.concat([before[:, t], beside], axis=1), state)
        np.testing.assert_allclose(features, expected[:, t], atol=2e-5)


def test_nade_is_the_product_of_its_conditionals_computed_note_by_note() -> None:
    keras.utils.set_random_seed(1)
    layer, random = Nade(4, 6), np.random.default_rng(2)
    for weight in layer.trainable_weights:
        weight.assign(random.normal(0, 1, weight.shape))
    features = random.normal(size=(2, 3, 4)).astype(np.float32)
    frames = (random.random((2, 3, NOTES)) < 0.1).astype(np.float32)
    uniform = random.random((6, NOTES)).astype(np.float32)
    read, write = layer.read.numpy(), layer.write.numpy()
    b, c = layer.biases(features).numpy(), layer.hidden_biases(features).numpy()
    expected, drawn, hidden = np.zeros_like(frames), np.zeros((6, NOTES)), c.reshape(6, -1).copy()
    for note in range(NOTES):
        below = frames[..., :note] @ read[:note] + c
        expected[..., note] = b[..., note] + (1 / (1 + np.exp(-below))) @ write[:, note]
        logit = b.reshape(6, -1)[:, note] + (1 / (1 + np.exp(-hidden))) @ write[:, note]
        drawn[:, note] = uniform[:, note] < 1 / (1 + np.exp(-logit / 0.7))
        hidden += drawn[:, note, None] * read[note]
    np.testing.assert_allclose(layer(features, frames), expected, atol=1e-4)
    found = layer.sample(features.reshape(6, 4), uniform, tf.fill((6, 1), 0.7))
    np.testing.assert_array_equal(found, drawn)


def test_silence_costs_what_the_model_says() -> None:
    logits = np.random.default_rng(1).normal(size=(2, 3, NOTES)).astype(np.float32)
    silence = np.zeros_like(logits)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(nats(silence, logits), -np.log(1 - chances).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(nats(silence + 1, logits), -np.log(chances).sum(-1), rtol=1e-5)


@every_network
def test_what_is_said_of_a_piece_does_not_depend_on_the_others(name: str) -> None:
    writer = Writer(network(name))
    rolls = [some_roll(i, frames) for i, frames in enumerate((12, 5, 30, 2))]
    together = writer.measure(rolls, **told(4), seeds=[1, 2, 3, 4])
    for i, roll in enumerate(rolls):
        said = {key: value[i : i + 1] for key, value in told(4).items()}
        (alone,) = writer.measure([roll], **said, seeds=[i + 1])
        assert len(alone.nats) == len(roll)
        np.testing.assert_allclose(together[i].nats, alone.nats, rtol=1e-4)
        np.testing.assert_array_equal(together[i].hits, alone.hits)
        assert together[i].kl == pytest.approx(alone.kl, rel=1e-4)
        assert (alone.kl > 0) == (name == "vae")
        assert (alone.hits <= roll.sum(axis=1)).all()
        assert (alone.either >= roll.sum(axis=1)).all()


@every_network
def test_a_piece_is_written_from_its_own_arguments(name: str) -> None:
    writer = Writer(network(name))
    begun = [some_roll(7, 3), some_roll(8, 0), some_roll(9, 5)]
    heat = np.array([0.5, 1.0, 0.7])
    lengths = [9, 6, 12]
    together = writer.write(lengths, **told(3), seeds=[5, 6, 7], temperature=heat, beginnings=begun)
    assert [len(roll) for roll in together] == lengths
    for i, roll in enumerate(together):
        said = {key: value[i : i + 1] for key, value in told(3).items()}
        (alone,) = writer.write(
            [lengths[i] + 4], **said, seeds=[5 + i], temperature=heat[i : i + 1],
            beginnings=begun[i : i + 1],
        )  # fmt: skip
        np.testing.assert_array_equal(alone[: lengths[i]], roll)
        np.testing.assert_array_equal(roll[: len(begun[i])], begun[i])
    (other,) = writer.write([12], np.array([0]), np.array([0]), seeds=[99], temperature=heat[:1])
    assert (other[:9] != together[0]).any()


@every_network
def test_a_cold_model_writes_its_most_likely_frames(name: str) -> None:
    writer = Writer(network(name))
    begun = some_roll(3, 6)
    said: dict[str, Any] = {"styles": np.array([1]), "musical_keys": np.array([4])}
    (roll,) = writer.write([7], **said, seeds=[1], temperature=np.array([1e-6]), beginnings=[begun])
    if name == "vae":  # whose latent vector is that of the beginning, and not of the piece
        return
    (found,) = writer.measure([roll], **said, seeds=[1])
    assert found.hits[6] == found.either[6] == roll[6].sum() > 0


def test_the_condition_counts_only_in_a_conditional_network() -> None:
    roll = [some_roll(1), some_roll(1)]
    said: dict[str, Any] = {"styles": np.array([0, 0]), "musical_keys": np.array([0, 7])}
    one, other = Writer(network("gru")).measure(roll, **said, seeds=[1, 1])
    assert (one.nats != other.nats).all()
    settings = {**network("gru").settings, "condition": 0}
    one, other = Writer(rnn.network(**settings)).measure(roll, **said, seeds=[1, 1])
    np.testing.assert_allclose(one.nats, other.nats, rtol=1e-6)


def test_the_sums_of_a_piece_leave_out_the_first_frame_and_bound_a_latent_vector() -> None:
    rows = np.array([5.0, 1.0, 2.0])
    assert Measured(rows, rows, rows).statistics == {
        "nats": 3.0, "frames": 2.0, "hits": 3.0, "either": 3.0, "first_nats": 5.0
    }  # fmt: skip
    assert Measured(rows, rows, rows, kl=0.5).statistics["nats"] == 8.5


def test_the_chain_of_chords_is_a_distribution() -> None:
    chords = [some_roll(i, 1)[0] for i in range(4)]
    roll = np.stack([chords[i] for i in (0, 1, 0, 2, 0, 1, 3, 0, 1)])
    chain = markov.Markov(pieces_of([roll, roll[::-1].copy()]), 2)
    beginning = [chords[3], chords[0]]
    found = np.array([
        chain.measure([np.stack([*beginning, chord])], **told(1), seeds=[0])[0].nats[2]
        for chord in chords
    ])  # fmt: skip
    chances = np.where(chords[0], chain.sounds[1], chain.sounds[0])
    base = [np.prod(np.where(chord, chances, 1 - chances)) for chord in chords]
    weight = 1.0  # of the notes by themselves, after all contexts
    for context in ((), tuple(beginning[1:]), tuple(beginning)):
        followers = chain.counts[tuple(pack(chord[None]).tobytes() for chord in context)]
        weight *= len(followers) / (len(followers) + sum(followers.values()))
    # What the seen chords do not take is what the notes give to unseen ones.
    assert np.exp(-found).sum() == pytest.approx(1 - weight * (1 - sum(base)), rel=1e-9)
    assert 0 < weight < 0.1


def test_the_chain_writes_pairs_that_it_has_read_and_continues_a_beginning() -> None:
    chords = [some_roll(i, 1)[0] for i in range(4)]
    roll = np.stack([chords[i] for i in (0, 1, 2, 3) * 30])
    chain = markov.Markov(pieces_of([roll]), 1)
    written = chain.write(
        [40] * 3, **told(3), seeds=[1, 2, 1], temperature=np.ones(3), beginnings=[roll[:2]] * 3
    )
    assert (written[0] == written[2]).all()
    assert all((each[:2] == roll[:2]).all() for each in written)
    pairs = {(a.tobytes(), b.tobytes()) for a, b in itertools.pairwise(roll)}
    follows = [
        (a.tobytes(), b.tobytes()) in pairs for each in written for a, b in itertools.pairwise(each)
    ]
    assert np.mean(follows) > 0.8


@pytest.mark.slow
def test_nade_learns_chords_where_independent_notes_cannot(tmp_path: Path) -> None:
    """One of two chords at random: log 2 nats a frame, and eight times that note by note."""
    chords = np.zeros((2, NOTES), bool)
    chords[0, [30, 34, 37, 42]] = chords[1, [32, 35, 39, 44]] = True
    random = np.random.default_rng(1)
    rolls = [chords[random.integers(2, size=16)] for _ in range(80)]
    data = InMemory(train=rolls[:64], validation=rolls[64:], test=rolls[64:])
    found = {}
    for output in ("nade", "independent"):
        keras.utils.set_random_seed(1)
        model = rnn.build(
            data, cell="gru", units=[8], output=output, nade_units=8, conditional=False, dropout=0.0
        )
        rnn.fit(
            model, data, TrainingContext(tmp_path / output, 1), epochs=40, batch_size=8,
            max_frames=16, max_transposition=0, optimizer="adam", learning_rate=0.03,
            schedule="cosine", warmup_fraction=0.0, clip_norm=1.0, patience=40,
        )  # fmt: skip
        arrays, _ = evaluation.measure(Writer(model), data.examples("test"))
        found[output] = arrays["nats"].sum() / arrays["frames"].sum()
    assert np.log(2) - 0.05 < found["nade"] < np.log(2) + 0.15
    assert 8 * np.log(2) - 0.1 < found["independent"] < 8 * np.log(2) + 0.3
