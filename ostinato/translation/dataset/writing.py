"""Write pairs as TFRecord shards that tensorflow-datasets can read, and their profile."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ostinato import store
from ostinato.data import tfrecords
from ostinato.progress import track
from ostinato.task import Manifest, Profile
from ostinato.translation.dataset import tokenizer
from ostinato.translation.dataset.files import NAME, SPLITS, shard_name
from ostinato.translation.dataset.tokenizer import SIDES

PROFILE_SAMPLE = 1000  # numbers of a feature in the profile


class Pair(NamedTuple):
    """A pair to be written.

    Attributes:
        split: train, validation or test.
        source: normalised text.
        target: normalised text.
        fixed: whether it is kept however long it is.
    """

    split: str
    source: str
    target: str
    fixed: bool


@dataclass
class WrittenSplit:
    """What was written of a split.

    Attributes:
        counts: pairs, source_tokens and target_tokens.
        shard_sizes: pairs of each shard.
        num_bytes: of the records.
    """

    counts: dict[str, int] = field(
        default_factory=lambda: {"pairs": 0, "source_tokens": 0, "target_tokens": 0}
    )
    shard_sizes: list[int] = field(default_factory=list)
    num_bytes: int = 0


def write(
    folder: Path,
    shards: Sequence[Callable[[], Iterator[list[Pair]]]],
    max_length: int,
    counts: Counter[str],
) -> dict[str, WrittenSplit]:
    """Tokenise pairs, and write the shards and the profile.

    Args:
        folder: with the tokenizers.
        shards: for each shard a function that returns its pairs, in lists.
        max_length: pairs with more tokens on a side are counted as ``long`` and left out.
        counts: of the pairs that are left out.
    """
    import tensorflow as tf

    tokenizers = [tokenizer.load(folder, side) for side in SIDES]
    written = {split: WrittenSplit() for split in SPLITS}
    lengths: dict[str, Counter[int]] = {side: Counter() for side in SIDES}
    used = {side: np.zeros(len(t), np.int64) for side, t in zip(SIDES, tokenizers, strict=True)}
    progress = track(shards, "writing", unit="shards")
    for number, read in enumerate(progress):
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    tf.io.TFRecordWriter(str(folder / shard_name(split, number, len(shards))))
                )
                for split in SPLITS
            }
            index: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
            for pairs in read():
                sides = ([pair.source for pair in pairs], [pair.target for pair in pairs])
                encoded = [t.encode(texts) for t, texts in zip(tokenizers, sides, strict=True)]
                for pair, *tokens in zip(pairs, *encoded, strict=True):
                    if not pair.fixed and max(map(len, tokens)) > max_length:
                        counts["long"] += 1
                        continue
                    record = _example(pair, tokens)
                    writers[pair.split].write(record)
                    index[pair.split].append((len(record), *map(len, tokens)))
                    split = written[pair.split]
                    split.num_bytes += len(record)
                    for side, row in zip(SIDES, tokens, strict=True):
                        split.counts[f"{side}_tokens"] += len(row)
                        if pair.split == "train":
                            lengths[side][len(row)] += 1
                            np.add.at(used[side], row, 1)
        for name in SPLITS:
            written[name].counts["pairs"] += len(index[name])
            written[name].shard_sizes.append(len(index[name]))
            rows = np.array(index[name], np.int64).reshape(-1, 1 + len(SIDES))
            file = folder / shard_name(name, number, len(shards))
            tfrecords.write_index(file, rows[:, 0], rows[:, 1:])
    profile = Profile(
        examples=written["train"].counts["pairs"],
        numbers={f"{side} tokens": quantile_sample(lengths[side]) for side in SIDES},
        counts={
            f"{side} pieces": {
                t.id_to_piece(token): int(count) for token, count in enumerate(used[side]) if count
            }
            for side, t in zip(SIDES, tokenizers, strict=True)
        },
    )
    store.write_json(folder / "profile.json", profile.to_json())
    return written


def quantile_sample(counted: Counter[int]) -> list[float]:
    """A sorted sample of about 1,000 of the counted numbers, at even quantiles."""
    values = sorted(counted)
    ends = np.cumsum([counted[value] for value in values])
    total = int(ends[-1]) if values else 0
    ranks = np.linspace(0, total - 1, min(total, PROFILE_SAMPLE)).astype(np.int64)
    return [float(values[index]) for index in np.searchsorted(ends, ranks, side="right")]


def _example(pair: Pair, tokens: Sequence[list[int]]) -> bytes:
    """A pair as a serialised ``tf.train.Example``."""
    import tensorflow as tf

    def feature(content: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    features = {"source": feature(pair.source.encode()), "target": feature(pair.target.encode())}
    features |= {
        f"{side}_tokens": feature(np.array(row, "<i4").tobytes())
        for side, row in zip(SIDES, tokens, strict=True)
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def write_metadata(
    folder: Path, manifest: Manifest, languages: list[str], written: dict[str, WrittenSplit]
) -> None:
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
                name=name,
                shard_lengths=split.shard_sizes,
                num_bytes=split.num_bytes,
                filename_template=template.replace(split=name),
            )
            for name, split in written.items()
        ],
        filename_template=template,
        check_data=False,
        description=f"Parallel text, {' to '.join(languages)}, as text and as tokens.",
        supervised_keys=("source", "target"),
        metadata=tfds.core.MetadataDict(manifest.to_json()),
    )
