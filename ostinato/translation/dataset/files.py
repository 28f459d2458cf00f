"""The files of a prepared data set: names of shards, and the details of its manifest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ostinato.task import Json

NAME = "translation"  # of the tensorflow-datasets data set: prefix of its files
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Details:
    """The ``details`` of the manifest.

    Attributes:
        languages: codes of the source and of the target language.
        read: pairs in the raw files, with those that cannot be read.
        changed: pairs that normalisation changed.
        left_out: pairs that each rule of `cleaning.RULES` removed.
        shared_vocabulary: whether source and target have one vocabulary.
        max_length: maximum number of tokens of a text, without eos.
        shards: files of each split.
    """

    languages: list[str]
    read: int
    changed: int
    left_out: dict[str, int]
    shared_vocabulary: bool
    max_length: int
    shards: int

    def to_json(self) -> dict[str, Json]:
        """The details as the manifest keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Json]) -> "Details":
        """Read what `to_json` returned."""
        return cls(**content)


def shard_name(split: str, shard: int, count: int) -> str:
    """The name of a shard's file, as tensorflow-datasets expects it."""
    return f"{NAME}-{split}.tfrecord-{shard:05d}-of-{count:05d}"
