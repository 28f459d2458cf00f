"""The domain's face: raw parallel text to clean and split pairs of tokens, and these for training.

Tokens are SentencePiece's (Kudo and Richardson 2018, arXiv 1808.06226). Their first ids are fixed:
0 pad, 1 unk, 2 bos, 3 eos. A character that has no piece is spelled in bytes, so that no text ever
holds unk, and tokens always join to the text again.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from tqdm import tqdm

from ostinato import store
from ostinato.errors import DataError
from ostinato.translation.dataset import cleaning
from ostinato.translation.dataset.batches import (
    BOS,
    EOS,
    NAME,
    PAD,
    SIDES,
    SPLITS,
    UNK,
    Data,
    shard_name,
)
from ostinato.translation.dataset.cleaning import PLACEHOLDER, RULES, Languages
from ostinato.translation.dataset.reading import pairs
from ostinato.units import Count, Fraction, NonNegative, Tokens

load = Data

PARTS = 64  # pairs are put aside in so many parts, by a hash of the source; one at a time is read
WHOLE = 500  # placeholders and tags that are tokens of their own, at most
PROFILE = 1000  # numbers in a sorted sample

Row = tuple[str, str, str, str]  # split, source, target, key of the source


def prepare(
    raw: Path,
    folder: Path,
    *,
    validation: Fraction,
    test: Fraction,
    max_length_ratio: NonNegative,
    language_margin: NonNegative,
    max_length: Tokens,
    tokenizer: Literal["unigram", "bpe"],
    vocab_size: Count,
    character_coverage: Fraction,
    shared_vocabulary: bool,
    tokenizer_sample: Count,
    shard_size: Count,
) -> None:
    """Write raw parallel text as a tensorflow-datasets data set of tokens, clean and split.

    Pairs are left out by the rules of ``cleaning.RULES``, each counted. Files that are a split keep
    it, and those of test and validation are kept whole, so that scores on them compare with those
    of others; else a hash of the source tells the split, so that a pair stays in its split when
    the data grow, and sources that differ in case or punctuation alone fall into the same one.

    Args:
        raw: a folder with a manifest, as the sources fill it.
        folder: an empty folder; gets the data set, ``source.model``, ``target.model``,
            ``manifest.json`` and ``profile.json``.
        validation: share of the pairs, where no file is that split.
        test: share of the pairs, where no file is that split.
        max_length_ratio: of the longer text to the shorter one, in characters (10 more each), at most; 0 lets
            all be.
        language_margin: nats a character by which a text may read more like the other language; 0 lets
            all be.
        max_length: tokens of a text, eos not counted, at most.
        tokenizer: SentencePiece's model: unigram (Kudo 2018, arXiv 1804.10959) or BPE (Sennrich et
            al. 2016, arXiv 1508.07909).
        vocab_size: tokens in each vocabulary, at most.
        character_coverage: share of all characters that get a piece; the rest is spelled in bytes.
        shared_vocabulary: whether both languages share one vocabulary.
        tokenizer_sample: training pairs from which the pieces are learned, at most.
        shard_size: pairs in a file of the training split, about.

    Raises:
        DataError: unreadable files, a vocabulary that the text cannot fill, or an empty split.
    """
    if validation + test >= 1:
        raise DataError(f"validation {validation} and test {test} leave nothing to train on")
    about = store.read_json(raw / "manifest.json")
    own = {file["split"] for file in about["files"]}
    shares = {"test": 0 if "test" in own else test}
    shares["validation"] = 0 if "validation" in own else validation
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as aside:
        parts = [Path(aside, f"{number:02d}") for number in range(PARTS)]
        languages, whole = _put_aside(raw, about, parts, shares, max_length_ratio, counts)
        odds = languages.odds()
        for part in parts:
            rows = _sifted(part, odds, language_margin, counts)
            part.write_bytes(
                b"".join(orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in rows)
            )
        texts = list(_sample(parts, tokenizer_sample, counts["kept"]))
        for sides in (SIDES,) if shared_vocabulary else ((side,) for side in SIDES):
            chosen = [pair[SIDES.index(side)] for side in sides for pair in texts]
            model = _pieces(chosen, whole, tokenizer, vocab_size, character_coverage)
            for side in sides:
                store.write_bytes(folder / f"{side}.model", model)
        written = _write(folder, parts, max_length, shard_size, counts)
    for split in SPLITS:
        if not written[split]["pairs"]:
            raise DataError(f"{raw}: no pair falls into {split}; fetch more, or raise its share")
    manifest = {
        "source": about["source"],
        "languages": about["languages"],
        "read": counts["read"],
        "changed": counts["changed"],
        "left_out": {rule: counts[rule] for rule in RULES},
        "joint": shared_vocabulary,
        "longest": max_length,
        "shards": len(written["train"]["shards"]),
        "splits": {
            split: {key: told[key] for key in ("pairs", "source_tokens", "target_tokens")}
            for split, told in written.items()
        },
    }
    _describe(folder, manifest, written)
    store.write_json(folder / "manifest.json", manifest)


def _put_aside(
    raw: Path,
    about: dict[str, Any],
    parts: list[Path],
    shares: dict[str, float],
    ratio: float,
    counts: Counter[str],
) -> tuple[Languages, list[str]]:
    """Spread the pairs that are right by themselves over the parts; equal sources go together."""
    languages, found = Languages(), Counter[str]()
    with ExitStack() as stack:
        files = [stack.enter_context(part.open("wb")) for part in parts]
        for pair in tqdm(pairs(raw, about), "reading", unit=" pairs", disable=None):
            counts["read"] += 1
            source, target = cleaning.uniform(pair.source), cleaning.uniform(pair.target)
            counts["changed"] += (source, target) != (pair.source, pair.target)
            key = cleaning.key(source)
            at = cleaning.place(key)
            split = pair.split or "train"
            if split == "train":
                wrong = cleaning.fault(source, target, pair.uncertain, ratio)
                if wrong:
                    counts[wrong] += 1
                    continue
                if at < shares["test"]:
                    split = "test"
                elif at < shares["test"] + shares["validation"]:
                    split = "validation"
                languages.learn(source, target)
                found.update(p for p in PLACEHOLDER.findall(source) if " " not in p)
            given = "given" if pair.split in ("test", "validation") else ""
            part = int.from_bytes(blake2b(key.encode(), digest_size=1).digest()) % PARTS
            row = [split, source, target, key, given]
            files[part].write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    # More than once: what occurs once is no piece of the language.
    often = [text for text, count in found.most_common(WHOLE) if count > 1]
    return languages, sorted(often)


def _sifted(part: Path, odds: Any, margin: float, counts: Counter[str]) -> Iterator[Row]:
    """The pairs of a part that are right among all, in the order of a hash of each."""
    rows = [orjson.loads(line) for line in part.read_bytes().splitlines()]
    taken = {row[3]: row[0] for split in ("validation", "test") for row in rows if row[0] == split}
    seen = set()
    rows.sort(key=lambda row: cleaning.place(f"{row[1]}\t{row[2]}"))
    for split, source, target, key, given in rows:
        if not given:
            wrong = None
            if (split, source, target) in seen:
                wrong = "duplicate"
            elif taken.get(key, split) != split:
                wrong = "leak"
            elif cleaning.foreign(odds, source, target, margin):
                wrong = "foreign"
            if wrong:
                counts[wrong] += 1
                continue
            seen.add((split, source, target))
        counts["kept"] += split == "train"
        yield split, source, target, given


def _sample(parts: list[Path], count: int, of: int) -> Iterator[tuple[str, str]]:
    """About ``count`` training pairs out of so many, evenly from all parts."""
    share = count / max(of, 1)
    for part in parts:
        for line in part.read_bytes().splitlines():
            split, source, target, _ = orjson.loads(line)
            # Reversed, as the stored order is that of the plain text's hash.
            if split == "train" and cleaning.place(target[::-1] + source[::-1]) < share:
                yield source, target


def _pieces(
    texts: list[str], whole: list[str], kind: str, vocabulary: int, coverage: float
) -> bytes:
    """A SentencePiece model, learned from texts."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=vocabulary,
            hard_vocab_limit=kind == "bpe",  # unigram ends with fewer where there are no more
            byte_fallback=True,
            character_coverage=coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=whole,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            num_threads=1,  # the same pieces on any machine
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"vocabulary: {vocabulary} {kind} pieces from {len(texts):,} texts: "
            f"{str(error).strip().splitlines()[-1]}"
        ) from None
    return model.getvalue()


def _write(
    folder: Path, parts: list[Path], longest: int, shard: int, counts: Counter[str]
) -> dict[str, dict[str, Any]]:
    """Encode all pairs into shards of TFRecord; what each split holds."""
    import tensorflow as tf

    data = [_processor(folder, side) for side in SIDES]
    of = min(PARTS, max(1, round(counts["kept"] / shard)))
    told: dict[str, dict[str, Any]] = {
        split: {"pairs": 0, "bytes": 0, "shards": [], "source_tokens": 0, "target_tokens": 0}
        for split in SPLITS
    }
    lengths: dict[str, Counter[int]] = {side: Counter() for side in SIDES}
    used = {side: np.zeros(len(model), np.int64) for side, model in zip(SIDES, data, strict=True)}
    for number in tqdm(range(of), "writing", of, unit="shard", disable=None):
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    tf.io.TFRecordWriter(str(folder / shard_name(split, number, of)))
                )
                for split in SPLITS
            }
            sizes = dict.fromkeys(SPLITS, 0)
            for part in parts[number * PARTS // of : (number + 1) * PARTS // of]:
                rows = [orjson.loads(line) for line in part.read_bytes().splitlines()]
                ids = [model.encode([r[1 + n] for r in rows]) for n, model in enumerate(data)]
                for (split, source, target, given), *tokens in zip(rows, *ids, strict=True):
                    if not given and max(map(len, tokens)) > longest:
                        counts["long"] += 1
                        continue
                    record = _example(source, target, tokens)
                    writers[split].write(record)
                    sizes[split] += 1
                    told[split]["bytes"] += len(record)
                    for side, row in zip(SIDES, tokens, strict=True):
                        told[split][f"{side}_tokens"] += len(row)
                        if split == "train":
                            lengths[side][len(row)] += 1
                            np.add.at(used[side], row, 1)
        for split in SPLITS:
            told[split]["pairs"] += sizes[split]
            told[split]["shards"].append(sizes[split])
    shares = {
        f"{side} pieces": {
            model.id_to_piece(i): int(count) for i, count in enumerate(used[side]) if count
        }
        for side, model in zip(SIDES, data, strict=True)
    }
    numbers = {f"{side} tokens": _spread(lengths[side]) for side in SIDES}
    profile = {"numbers": numbers, "counts": shares, "examples": told["train"]["pairs"]}
    store.write_json(folder / "profile.json", profile)
    return told


def _processor(folder: Path, side: str) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))


def _spread(counted: Counter[int]) -> list[int]:
    """A sorted sample of counted numbers, evenly from the least to the largest."""
    values = sorted(counted)
    ends = np.cumsum([counted[value] for value in values])
    total = int(ends[-1]) if values else 0
    places = np.linspace(0, total - 1, min(total, PROFILE)).astype(np.int64)
    return [values[i] for i in np.searchsorted(ends, places, side="right")]


def _example(source: str, target: str, tokens: list[list[int]]) -> bytes:
    import tensorflow as tf

    def feature(content: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    texts = {"source": source, "target": target}
    features = {side: feature(text.encode()) for side, text in texts.items()} | {
        f"{side}_tokens": feature(np.array(row, "<i4").tobytes())
        for side, row in zip(SIDES, tokens, strict=True)
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def _describe(folder: Path, about: dict[str, Any], written: dict[str, dict[str, Any]]) -> None:
    """Write the metadata by which tensorflow-datasets reads the folder."""
    import tensorflow_datasets as tfds

    tokens = tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes")
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix="tfrecord"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={
            "source": tfds.features.Text(),
            "target": tfds.features.Text(),
            "source_tokens": tokens,
            "target_tokens": tokens,
        },
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=told["shards"],
                num_bytes=told["bytes"],
                filename_template=template.replace(split=split),
            )
            for split, told in written.items()
        ],
        filename_template=template,
        check_data=False,
        description=f"Parallel text, {' to '.join(about['languages'])}, as text and as tokens.",
        supervised_keys=("source", "target"),
        metadata=tfds.core.MetadataDict(about),
    )
