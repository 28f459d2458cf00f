"""Laws of prepared parallel text: no pair is lost, none leaks, and tokens decode to the text."""

import random
import unicodedata
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import store
from ostinato.errors import DataError, ParamsError
from ostinato.params import bind
from ostinato.task import Profile
from ostinato.translation import dataset
from ostinato.translation.dataset import BOS, EOS, PAD, UNK, cleaning
from ostinato.translation.dataset.batching import length_batches
from ostinato.translation.dataset.files import SPLITS, Details

PREPARE = {
    "tolerated_rejects": 0.01,
    "validation": 0.2,
    "test": 0.2,
    "max_length_ratio": 3.0,
    "language_margin": 0.5,
    "max_length": 40,
    "tokenizer": "unigram",
    "vocab_size": 400,
    "character_coverage": 0.9995,
    "shared_vocabulary": True,
    "tokenizer_sample": 10_000,
    "shard_size": 100,
}
NOUNS = {"cat": "chat", "dog": "chien", "house": "palais", "tree": "sapin", "file": "fichier"}
VERBS = {"sees": "voit", "opens": "ouvre", "follows": "suit", "likes": "aime", "closes": "ferme"}

Lines = list[tuple[str, str]]


def sentences(count: int, seed: int = 0) -> Lines:
    """Distinct sentences in English and French."""
    pairs = [
        (
            f"The {a} {v} the {b} {n} times, {{name}}.",
            f"Le {NOUNS[a]} {VERBS[v]} le {NOUNS[b]} {n} fois, {{name}}.",
        )
        for a in NOUNS
        for v in VERBS
        for b in NOUNS
        for n in range(2, 10)
    ]
    return random.Random(seed).sample(pairs, count)


def prepared(folder: Path, files: dict[str | None, Lines], **changed: Any) -> Any:
    """The data set of the lines of each split; the lines of None are to be split."""
    raw, out = folder / "raw", folder / "data"
    for path in (raw, out):
        path.mkdir(parents=True)
    entries = []
    for split, lines in files.items():
        for number, language in enumerate(("en", "fr")):
            name = f"{split}.{language}"
            text = "".join(f"{pair[number]}\n" for pair in lines)
            (raw / name).write_text(text, encoding="utf-8", newline="\n")
            entries.append({"path": name, "split": split, "language": language})
    about = {"source": "moses", "format": "moses", "languages": ["en", "fr"], "files": entries}
    store.write_json(raw / "manifest.json", about)
    bind(dataset.prepare, PREPARE | changed)(raw, out)
    return dataset.load(out)


def details(data: Any) -> Details:
    return Details.from_json(data.manifest.details)


def split_texts(data: Any) -> dict[str, Lines]:
    return {split: data.texts(split) for split in SPLITS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepared(tmp_path_factory.mktemp("pairs"), {None: sentences(600)})


@settings(max_examples=300)
@given(text=st.text(max_size=60))
def test_tokens_decode_to_the_text_without_unknown_tokens(data: Any, text: str) -> None:
    text = cleaning.normalise(text)
    for side in ("source", "target"):
        tokens = data.encode([text], side)
        assert data.decode(tokens, side) == [text]
        assert not {PAD, UNK, BOS, EOS} & set(tokens[0])


@given(st.text())
def test_normalisation_is_idempotent_composed_and_printable(text: str) -> None:
    once = cleaning.normalise(text)
    assert cleaning.normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not {unicodedata.category(c) for c in once} & {"Cc", "Cs", "Zl", "Zp"}
    assert "  " not in once
    assert once == once.strip()


def test_whitespace_controls_and_accents_are_normalised() -> None:
    assert cleaning.normalise(" e\u0301te\u0301\t\x00du\u2028 jour\x07 \ufeff") == "été du jour"
    assert cleaning.normalise("a\u2581b") == "a b"


@pytest.mark.parametrize(
    ("source", "target", "uncertain", "rule"),
    [
        ("Open the file", "Ouvrir le fichier", False, None),
        ("Open the file", "Ouvrir le fichier", True, "uncertain"),
        ("", "Ouvrir", False, "empty"),
        ("Open", "", False, "empty"),
        ("12:30", "12 h 30", False, "wordless"),
        ("Image", "Image", False, "identical"),
        ("Go", "Partir d'ici aussi vite que possible", False, "ratio"),
        ("%(n)s files", "%(n)s fichiers", False, None),
        ("%(n)s files", "%(m)s fichiers", False, "placeholders"),
        ("{0} of {1}", "{1} pour {0}", False, None),
        ("<b>New</b> file", "Nouveau fichier", False, "placeholders"),
        ("%d%% done", "%d %% fait", False, None),
    ],
)
def test_each_rule_detects_its_pairs(
    source: str, target: str, uncertain: bool, rule: str | None
) -> None:
    assert cleaning.broken_rule(source, target, uncertain, 3.0) == rule


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Open the file!", "open the FILE", True),
        ("It's e-mail", "Its email.", True),
        ("« Hello »", "Hello", True),
        ("a\u200db", "ab", True),
        ("दिन", "दान", False),
        ("दान", "दीन", False),
        ("ข้าว", "ขาว", False),
        ("קָמַץ", "קָמָץ", False),
        ("2.5", "25", False),
        ("1,000", "1000", False),
        ("-5", "5", False),
        ("C++", "C#", False),
        ("C", "C#", False),
        ("5%", "5", False),
        ("5 €", "5 $", False),
    ],
)
def test_sources_share_a_key_if_case_spaces_and_punctuation_differ(
    one: str, other: str, same: bool
) -> None:
    keys = [cleaning.source_key(cleaning.normalise(text)) for text in (one, other)]
    assert (keys[0] == keys[1]) == same
    if same:
        assert cleaning.split_key(keys[0]) == cleaning.split_key(keys[1])


@pytest.mark.parametrize("factor", [0.2, 0.25, 4, 5])
def test_the_ratio_is_relative_to_that_of_the_languages(factor: float) -> None:
    """The rule keeps the same pairs whichever language is the shorter one."""
    lengths = np.random.default_rng(0).integers(30, 90, size=200) * 10
    pairs = [("a" * n, "b" * round(n * factor)) for n in lengths.tolist()]
    typical = cleaning.typical_ratio(pairs, 2.5)
    assert typical == pytest.approx(factor, rel=0.1)
    kept = [cleaning.broken_rule(a, b, False, 2.5, typical) is None for a, b in pairs]
    assert all(kept)
    long, short = ("a" * 600, "b" * round(1800 * factor)), ("a" * 600, "b" * round(200 * factor))
    for odd in (long, short):
        assert cleaning.broken_rule(*odd, False, 2.5, typical) == "ratio"


def test_each_pair_is_kept_or_counted_under_one_rule(tmp_path: Path) -> None:
    correct = sentences(300)
    broken = [("", "vide"), ("Same", "Same"), ("1", "2"), ("Go", "x" * 80), ("{a} b", "{c} d")]
    swapped = [(target, source) for source, target in sentences(5, seed=9)]
    long = [(" ".join(s for s, _ in correct[:9]), " ".join(t for _, t in correct[:9]))]
    data = prepared(tmp_path, {None: [*correct, *correct[:7], *broken, *swapped, *long]})
    counted = details(data)
    assert counted.left_out == {
        **dict.fromkeys(cleaning.RULES, 0),
        **dict.fromkeys(("empty", "identical", "wordless", "ratio", "placeholders"), 1),
        "duplicate": 7,
        "foreign": 5,
        "long": 1,
    }
    assert counted.read == sum(counted.left_out.values()) + sum(map(data.size, SPLITS))
    assert sorted(pair for pairs in split_texts(data).values() for pair in pairs) == sorted(correct)


def test_a_limit_of_zero_turns_a_rule_off(tmp_path: Path) -> None:
    swapped = [(target, source) for source, target in sentences(5, seed=9)]
    lines = [*sentences(300), *swapped, ("Go", "x" * 80)]
    data = prepared(tmp_path, {None: lines}, max_length_ratio=0.0, language_margin=0.0)
    left_out = details(data).left_out
    assert left_out["ratio"] == left_out["foreign"] == 0


def test_no_source_is_in_two_splits(tmp_path: Path) -> None:
    lines = sentences(400)
    lines += [(s.replace("The", "the"), f"{t} !") for s, t in lines[::3]]
    data = prepared(tmp_path, {None: lines})
    texts = split_texts(data)
    assert sum(map(data.size, SPLITS)) == len(lines), (
        "near-duplicates are in one split, and none is lost"
    )
    keys = {split: {cleaning.source_key(source) for source, _ in texts[split]} for split in SPLITS}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    assert all(keys.values())


def test_sources_of_a_test_file_are_removed_from_training(tmp_path: Path) -> None:
    lines = sentences(400)
    test = [*lines[:30], lines[0], ("Same", "Same"), ("", "rien")]
    train = [*lines[20:], (lines[0][0].lower(), "autre chose que cela, {name}")]
    data = prepared(tmp_path, {"train": train, "test": test})
    texts = split_texts(data)
    assert sorted(texts["test"]) == sorted(test), "test files are kept whole"
    assert details(data).left_out["leak"] == 11
    assert sorted(texts["train"] + texts["validation"]) == sorted(lines[30:])


def test_a_pair_stays_in_its_split_when_the_data_grow(tmp_path: Path) -> None:
    lines = sentences(600)
    few = split_texts(prepared(tmp_path / "few", {None: lines[:300]}))
    many = split_texts(prepared(tmp_path / "many", {None: lines}))
    for split in SPLITS:
        assert set(few[split]) <= set(many[split])


def test_the_output_does_not_depend_on_the_order_of_the_input(tmp_path: Path) -> None:
    lines = sentences(300)
    one = prepared(tmp_path / "one", {None: lines})
    two = prepared(tmp_path / "two", {None: lines[::-1]})
    names = sorted(p.name for p in one.folder.iterdir())
    assert names == sorted(p.name for p in two.folder.iterdir())
    for name in names:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name


def test_large_files_have_more_partitions_with_the_same_pairs(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = import_module("ostinato.translation.dataset.prepare")
    monkeypatch.setattr(module, "PARTITION_BYTES", 200)
    opened: list[Path] = []
    read = module._pairs

    def counted(group: list[Path]) -> Any:
        opened.extend(group)
        return read(group)

    monkeypatch.setattr(module, "_pairs", counted)
    lines = sentences(600)
    many = prepared(tmp_path, {None: [*lines, lines[0]]})
    assert len(set(opened)) == len(opened) == 4 * module.PARTITIONS
    for split, texts in split_texts(many).items():
        assert sorted(texts) == sorted(data.texts(split))
    assert details(many).left_out["duplicate"] == 1


def test_placeholders_and_markup_are_single_tokens(tmp_path: Path) -> None:
    lines = [(f"<b>{a}</b> %(n)s", f"<b>{b}</b> %(n)s") for a, b in sentences(300)]
    data = prepared(tmp_path, {None: lines})
    model = data._tokenizers["source"]
    pieces = [model.id_to_piece(token) for token in data.encode([lines[0][0]])[0]]
    assert {"<b>", "</b>", "%(n)s", "{name}"} <= set(pieces)


@pytest.mark.parametrize("tokenizer", ["unigram", "bpe"])
def test_vocabularies_are_shared_or_separate(tmp_path: Path, tokenizer: str) -> None:
    sizes = {"vocab_size": 330, "tokenizer": tokenizer}
    one = prepared(tmp_path / "one", {None: sentences(300)}, shared_vocabulary=True, **sizes)
    two = prepared(tmp_path / "two", {None: sentences(300)}, shared_vocabulary=False, **sizes)
    for data, shared in ((one, True), (two, False)):
        models = [(data.folder / f"{side}.model").read_bytes() for side in ("source", "target")]
        assert (models[0] == models[1]) == shared
        for model in data._tokenizers.values():
            names = [model.pad_id(), model.unk_id(), model.bos_id(), model.eos_id()]
            assert names == [PAD, UNK, BOS, EOS]


def test_a_rule_that_takes_most_pairs_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = sentences(300)
    with caplog.at_level("INFO", "ostinato"):
        prepared(tmp_path, {None: [*lines, *lines, *lines, *lines]})
    assert "of 1,200 pairs 300 are left: duplicate 900" in caplog.text
    assert "the rule duplicate left out 900 of 1,200 pairs" in caplog.text


def test_an_impossible_vocab_size_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vocab_size: 30000 tokens \(bpe\)"):
        prepared(tmp_path / "large", {None: sentences(100)}, vocab_size=30_000, tokenizer="bpe")
    with pytest.raises(DataError, match=r"vocab_size: 20 tokens \(unigram\)"):
        prepared(tmp_path / "small", {None: sentences(100)}, vocab_size=20)


def test_empty_splits_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave no training pairs"):
        prepared(tmp_path / "all", {None: sentences(50)}, validation=0.5, test=0.5)
    with pytest.raises(ParamsError, match="test: Input should be greater than 0, found 0"):
        prepared(tmp_path / "none", {None: sentences(100)}, test=0.0)


def test_tensorflow_datasets_reads_the_data_set(data: Any) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data.folder)
    for split in SPLITS:
        assert builder.info.splits[split].num_examples == data.size(split)
    example = next(iter(tfds.as_numpy(builder.as_dataset("train"))))
    for side in ("source", "target"):
        text = example[side].decode()
        assert data.encode([text], side) == [example[f"{side}_tokens"].tolist()]


def test_the_profile_describes_the_training_split(data: Any) -> None:
    profile = Profile.read(data.folder / "profile.json")
    assert profile.examples == data.size("train")
    sources = data.encode([source for source, _ in data.texts("train")])
    assert profile.numbers["source tokens"] == sorted(map(len, sources))
    counts = Counter(token for row in sources for token in row)
    model = data._tokenizers["source"]
    expected = {model.id_to_piece(token): count for token, count in counts.items()}
    assert profile.counts["source pieces"] == expected


def rows(data: Any, split: str, **order: Any) -> list[tuple[list[int], list[int]]]:
    """The pairs of all batches; asserts that each batch is well formed."""
    found = []
    for x, y, weight in data.batches(split, **order):
        source, before, y, weight = (t.numpy() for t in (x["source"], x["before"], y, weight))
        assert source.dtype == before.dtype == y.dtype == np.int32
        for one, two in ((source, y), (y, y)):
            lengths = (one != PAD).sum(axis=1)
            assert lengths.max() == one.shape[1], "no more padding than needed"
            assert (one[np.arange(len(one)), lengths - 1] == EOS).all()
            assert (one == EOS).sum() == len(one) == len(two)
        np.testing.assert_array_equal(weight, y != PAD)
        assert (before[:, 0] == BOS).all()
        without_eos = np.where(y == EOS, PAD, y)
        np.testing.assert_array_equal(before[:, 1:], without_eos[:, :-1])
        found += [
            ([t for t in one if t not in (PAD, EOS)], [t for t in two if t not in (PAD, EOS)])
            for one, two in zip(source.tolist(), y.tolist(), strict=True)
        ]
    return found


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("split", SPLITS)
def test_an_epoch_has_each_pair_once(data: Any, split: str, seed: int | None) -> None:
    sources, targets = zip(*data.texts(split), strict=True)
    expected = zip(data.encode(list(sources)), data.encode(list(targets), "target"), strict=True)
    assert sorted(rows(data, split, batch_size=16, seed=seed, epoch=1)) == sorted(expected)


def test_batches_are_a_function_of_seed_and_epoch(data: Any) -> None:
    one = rows(data, "train", batch_size=16, seed=1, epoch=1)
    assert rows(data, "train", batch_size=16, seed=1, epoch=1) == one
    assert rows(data, "train", batch_size=16, seed=1, epoch=2) != one
    assert rows(data, "train", batch_size=16, seed=2, epoch=1) != one


@settings(max_examples=300)
@given(
    # Similar lengths, so that the jitter changes their order.
    st.lists(st.integers(45, 60), min_size=1, max_size=60),
    st.integers(1, 500),
    st.one_of(st.none(), st.integers(0, 9)),
)
def test_no_batch_exceeds_max_tokens(lengths: list[int], budget: int, seed: int | None) -> None:
    sizes = np.array([lengths, lengths[::-1]], np.int64)
    order, ranges = length_batches(sizes, float(budget), seed, 0, 0)
    assert sorted(order) == list(range(len(lengths)))
    covered = sorted(i for begin, end in ranges for i in range(begin, end))
    assert covered == list(range(len(lengths)))
    for begin, end in ranges:
        chosen = order[begin:end]
        assert len(chosen) == 1 or len(chosen) * sizes[:, chosen].max() <= budget


def test_rows_are_padded_on_the_right(data: Any) -> None:
    padded = data.pad([[5, 6], [], [7]])
    np.testing.assert_array_equal(padded, [[5, 6, EOS], [EOS, PAD, PAD], [7, EOS, PAD]])


def test_an_unknown_split_and_an_empty_folder_raise_errors(data: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'train'"):
        data.size("trian")
    with pytest.raises(DataError, match="no such file"):
        dataset.load(tmp_path)
