"""Raw parallel text to a prepared data set: cleaned, split and tokenised."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
import orjson
from jaxtyping import Float64

from ostinato import store
from ostinato.errors import DataError
from ostinato.progress import track
from ostinato.task import Manifest
from ostinato.translation.dataset import cleaning, tokenizer, writing
from ostinato.translation.dataset.cleaning import RULES, LanguageModel
from ostinato.translation.dataset.files import SPLITS, Details
from ostinato.translation.dataset.tokenizer import SIDES
from ostinato.translation.formats.parallel_text import read_pairs
from ostinato.translation.formats.placeholders import PLACEHOLDER
from ostinato.translation.formats.raw import Pair, RawManifest
from ostinato.units import Count, Fraction, NonNegative, SplitFraction, Tokens

PARTITIONS = 64  # temporary files, by a hash of the source; one at a time is in memory
PARTITION_BYTES = 1 << 21  # of raw files for each; more bytes have more partitions
MAX_FACTOR = 8  # times as many partitions, so that fewer files are open than 1,024, a usual limit
MAX_SYMBOLS = 500  # placeholders and tags that are single tokens
NUM_EXAMPLES = 3  # unreadable lines in a message
HELD_OUT = ("test", "validation")
PARAMETERS = {"ratio": "max_length_ratio", "foreign": "language_margin", "long": "max_length"}
LOG = logging.getLogger(__name__)


class Row(NamedTuple):
    """A pair in a temporary file.

    Attributes:
        split: train, validation or test.
        source: normalised text.
        target: normalised text.
        key: `cleaning.source_key` of the source.
        fixed: whether the file is the validation or test split, which is kept whole.
    """

    split: str
    source: str
    target: str
    key: str
    fixed: bool


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: SplitFraction,
    test: SplitFraction,
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
    """Write raw parallel text as a tensorflow-datasets data set of tokens.

    Pairs that break one of `cleaning.RULES` are left out and counted; lines, translation units and
    catalogs that cannot be read are written to ``rejects.ndjson`` with the reasons. A file that is
    a split keeps its split; validation and test files are kept whole, so that metrics are
    comparable with published ones. Otherwise a hash of the source determines the split: a pair
    stays in its split when the data grow, and sources that differ only in case or punctuation are
    in the same split.

    Args:
        raw: folder of a source, with its manifest.
        folder: empty folder for the data set, ``source.model``, ``target.model``,
            ``manifest.json``, ``profile.json`` and ``rejects.ndjson``.
        tolerated_rejects: share of the pairs (of catalogs: of the files) that may be unreadable.
        validation: share of the pairs, unless a file is this split.
        test: share of the pairs, unless a file is this split.
        max_length_ratio: maximum ratio of the longer text to the shorter one, in characters, after
            adding 10 to both; 0 turns the rule off. Where the languages differ typically by more
            than its square root, as English and Chinese do, it is relative to the median ratio.
        language_margin: nats per trigram by which a text may look more like the other language; 0
            turns the rule off.
        max_length: maximum number of tokens of a text, without eos.
        tokenizer: SentencePiece model type: unigram (Kudo 2018, arXiv 1804.10959) or BPE (Sennrich
            et al. 2016, arXiv 1508.07909).
        vocab_size: maximum number of tokens of each vocabulary.
        character_coverage: share of the characters in the vocabulary; others are encoded as bytes.
        shared_vocabulary: whether both languages share one vocabulary.
        tokenizer_sample: maximum number of training pairs that the tokenizer is trained on.
        shard_size: approximate number of training pairs in a file.

    Raises:
        DataError: unreadable files, too little text for the vocabulary, or an empty split.
    """
    about = RawManifest.read(raw)
    shares = _shares(about, {"test": test, "validation": validation})
    if 0 < max_length_ratio < 1:
        raise DataError(f"max_length_ratio: found {max_length_ratio}; expected 0 or at least 1")
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as temporary:
        count = PARTITIONS * _factor(raw, about)
        partitions = [Path(temporary, f"{number:03d}") for number in range(count)]
        with (folder / "rejects.ndjson").open("wb") as rejects:
            pairs = _readable(raw, about, rejects, tolerated_rejects, counts)
            languages, symbols = _partition(
                pairs,
                partitions,
                shares,
                max_length_ratio,
                _typical(raw, about, max_length_ratio),
                counts,
            )
        log_odds = languages.log_odds()
        for partition in partitions:
            rows = _filter(partition, log_odds, language_margin, counts)
            partition.write_bytes(b"".join(map(_line, rows)))
        if not counts["kept"]:
            raise DataError(f"{raw}: {_summary(counts)}; expected pairs to train on")
        sample = list(_sample(partitions, tokenizer_sample, counts["kept"]))
        train_tokenizers(
            folder,
            sample,
            symbols,
            tokenizer,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            shared_vocabulary=shared_vocabulary,
        )
        shards = min(count, max(1, round(counts["kept"] / shard_size)))
        groups = [
            partitions[i * count // shards : (i + 1) * count // shards] for i in range(shards)
        ]
        written = writing.write(
            folder,
            [lambda group=group: _pairs(group) for group in groups],  # type: ignore[misc]
            max_length,
            counts,
        )
    for split in SPLITS:
        if not written[split].counts["pairs"]:
            worst = max(RULES, key=lambda rule: counts[rule])
            hint = f"fetch more pairs or raise the share {split}"
            if counts[worst] > counts["read"] / 2:
                parameter = PARAMETERS.get(worst, "the source")
                hint = f"most are left out by {worst}: look at the data and at {parameter}"
            raise DataError(f"{raw}: split {split} is empty: {_summary(counts)}; {hint}")
    LOG.info("%s: %s", raw, _summary(counts))
    worst, left_out = max(((rule, counts[rule]) for rule in RULES), key=lambda item: item[1])
    if left_out > counts["read"] / 2:
        LOG.warning(
            "the rule %s left out %s of %s pairs; look at the data and at %s",
            worst,
            f"{left_out:,}",
            f"{counts['read']:,}",
            PARAMETERS.get(worst, "the source"),
        )
    details = Details(
        languages=about.languages,
        read=counts["read"],
        changed=counts["changed"],
        left_out={rule: counts[rule] for rule in RULES},
        shared_vocabulary=shared_vocabulary,
        max_length=max_length,
        shards=shards,
    )
    manifest = Manifest(
        source=about.source,
        examples="pairs",
        splits={split: dict(result.counts) for split, result in written.items()},
        details=details.to_json(),
    )
    writing.write_metadata(folder, manifest, about.languages, written)
    store.write_json(folder / "manifest.json", manifest.to_json())


def train_tokenizers(
    folder: Path,
    sample: list[tuple[str, str]],
    symbols: list[str],
    model_type: Literal["unigram", "bpe"],
    *,
    vocab_size: int,
    character_coverage: float,
    shared_vocabulary: bool,
) -> None:
    """Write ``source.model`` and ``target.model``; the same model for a shared vocabulary."""
    for sides in (SIDES,) if shared_vocabulary else ((side,) for side in SIDES):
        texts = [pair[SIDES.index(side)] for side in sides for pair in sample]
        model = tokenizer.train(texts, symbols, model_type, vocab_size, character_coverage)
        for side in sides:
            store.write_bytes(folder / f"{side}.model", model)


def _shares(about: RawManifest, shares: dict[str, float]) -> dict[str, float]:
    """The share of each split that is no file.

    Raises:
        DataError: nothing to train on, or a share of 0.
    """
    file_splits = {file.split for file in about.files}
    if not file_splits & {None, "train"}:
        raise DataError(f"files: found the splits {sorted(map(str, file_splits))}; expected train")
    shares = {split: 0.0 if split in file_splits else share for split, share in shares.items()}
    if sum(shares.values()) >= 1:
        raise DataError(
            f"validation {shares['validation']} and test {shares['test']} leave no training pairs; "
            "lower them"
        )
    for split, share in shares.items():
        if not share and split not in file_splits:
            raise DataError(
                f"{split}: found a share of 0; expected more, as split {split} is empty without a "
                "file of its own"
            )
    return shares


def _factor(raw: Path, about: RawManifest) -> int:
    """How many times `PARTITIONS` there are, a power of two: a partition's size is bounded."""
    size, factor = sum((raw / file.path).stat().st_size for file in about.files), 1
    while factor < MAX_FACTOR and size > PARTITIONS * factor * PARTITION_BYTES:
        factor *= 2
    return factor


def _partition_of(group: str, count: int) -> int:
    """The partition of a source, by its `cleaning.split_key`: one of each of `PARTITIONS` parts."""
    first, second = (
        int.from_bytes(blake2b(group.encode(), digest_size=size).digest()) for size in (1, 2)
    )
    factor = count // PARTITIONS
    return first % PARTITIONS * factor + second % factor


def _summary(counts: Counter[str]) -> str:
    """How many pairs were read and are left, and how many each rule left out."""
    rules = sorted((rule for rule in RULES if counts[rule]), key=lambda rule: -counts[rule])
    left_out = ", ".join(f"{rule} {counts[rule]:,}" for rule in rules)
    kept = counts["read"] - sum(counts[rule] for rule in RULES)
    left = {0: "none is left", 1: "1 is left"}.get(kept, f"{kept:,} are left")
    return f"of {counts['read']:,} pairs {left}" + (f": {left_out}" if left_out else "")


def _typical(raw: Path, about: RawManifest, max_length_ratio: float) -> float:
    """The `cleaning.typical_ratio` of the pairs that are to be cleaned."""
    if not max_length_ratio:
        return 1.0
    pairs = (
        (pair.source.strip(), pair.target.strip())
        for pair in read_pairs(raw, about)
        if isinstance(pair, Pair) and pair.split not in HELD_OUT
    )
    different = (
        (source, target) for source, target in pairs if source and target and source != target
    )
    return cleaning.typical_ratio(different, max_length_ratio)


def _readable(
    raw: Path, about: RawManifest, rejects: IO[bytes], tolerated: float, counts: Counter[str]
) -> Iterator[Pair]:
    """The pairs of a raw folder; writes what cannot be read to ``rejects``.

    Raises:
        DataError: more than the tolerated share cannot be read.
    """
    examples: list[str] = []
    for pair in track(read_pairs(raw, about), "reading", unit="pairs"):
        counts["read"] += 1
        if isinstance(pair, Pair):
            yield pair
            continue
        counts["malformed"] += 1
        rejects.write(orjson.dumps(pair._asdict(), option=orjson.OPT_APPEND_NEWLINE))
        if len(examples) < NUM_EXAMPLES:
            examples.append(str(pair))
    catalogs = about.format == "gettext"
    total = len(about.files) if catalogs else counts["read"]
    if counts["malformed"] > tolerated * total:
        raise DataError(
            f"{counts['malformed']:,} of {total:,} {'catalogs' if catalogs else 'pairs'} cannot be "
            f"read, more than tolerated_rejects: {tolerated} allows:\n  " + "\n  ".join(examples)
        )


def _partition(
    pairs: Iterable[Pair],
    partitions: list[Path],
    shares: Mapping[str, float],
    max_length_ratio: float,
    typical: float,
    counts: Counter[str],
) -> tuple[LanguageModel, list[str]]:
    """Write pairs that break no rule by themselves to partitions; equal sources to the same one.

    Returns:
        The language model, and the placeholders that occur more than once.
    """
    languages, placeholders = LanguageModel(), Counter[str]()
    with ExitStack() as stack:
        files = [stack.enter_context(partition.open("wb")) for partition in partitions]
        for pair in pairs:
            source, target = cleaning.normalise(pair.source), cleaning.normalise(pair.target)
            counts["changed"] += (source, target) != (pair.source, pair.target)
            key = cleaning.source_key(source)
            group = cleaning.split_key(key)
            split = "train" if pair.split in (None, "feedback") else pair.split
            if split == "train":
                broken = cleaning.broken_rule(
                    source, target, pair.uncertain, max_length_ratio, typical
                )
                if broken:
                    counts[broken] += 1
                    continue
                position = cleaning.uniform_hash(group)
                if position < shares["test"]:
                    if pair.split == "feedback":  # users do not change what a model is judged by
                        counts["leak"] += 1
                        continue
                    split = "test"
                elif position < shares["test"] + shares["validation"]:
                    split = "validation"
                languages.update(source, target)
                placeholders.update(p for p in PLACEHOLDER.findall(source) if " " not in p)
            fixed = pair.split in HELD_OUT
            files[_partition_of(group, len(files))].write(
                _line(Row(split, source, target, key, fixed))
            )
    repeated = [text for text, count in placeholders.most_common(MAX_SYMBOLS) if count > 1]
    return languages, sorted(repeated)


def _filter(
    partition: Path,
    log_odds: Float64[np.ndarray, " bucket"],
    language_margin: float,
    counts: Counter[str],
) -> Iterator[Row]:
    """The rows of a partition without duplicates, leaks and foreign texts, ordered by a hash."""
    rows = list(_rows(partition))
    held_out = {row.key: row.split for split in SPLITS[1:] for row in rows if row.split == split}
    seen = set()
    rows.sort(key=lambda row: cleaning.uniform_hash(f"{row.source}\t{row.target}"))
    for row in rows:
        if not row.fixed:
            broken = None
            if row[:3] in seen:
                broken = "duplicate"
            elif held_out.get(row.key, row.split) != row.split:
                broken = "leak"
            elif cleaning.is_foreign(log_odds, row.source, row.target, language_margin):
                broken = "foreign"
            if broken:
                counts[broken] += 1
                continue
            seen.add(row[:3])
        counts["kept"] += row.split == "train"
        yield row


def _sample(partitions: list[Path], count: int, total: int) -> Iterator[tuple[str, str]]:
    """About ``count`` of ``total`` training pairs, evenly from all partitions."""
    share = count / max(total, 1)
    for partition in partitions:
        for row in _rows(partition):
            # Reversed texts: a hash that is independent of the stored order.
            position = cleaning.uniform_hash(row.target[::-1] + row.source[::-1])
            if row.split == "train" and position < share:
                yield row.source, row.target


def _pairs(partitions: list[Path]) -> Iterator[list[writing.Pair]]:
    """The pairs of each partition."""
    for partition in partitions:
        yield [
            writing.Pair(row.split, row.source, row.target, row.fixed) for row in _rows(partition)
        ]


def _rows(partition: Path) -> Iterator[Row]:
    return (Row(*orjson.loads(line)) for line in partition.read_bytes().splitlines())


def _line(row: Row) -> bytes:
    return orjson.dumps(list(row), option=orjson.OPT_APPEND_NEWLINE)
