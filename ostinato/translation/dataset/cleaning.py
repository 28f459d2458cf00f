"""What is kept of parallel text: texts made uniform, and the rules by which pairs are left out."""

import re
import unicodedata
from collections import Counter
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

RULES = (
    "uncertain",  # marked so by its translators
    "empty",  # on either side
    "wordless",  # no letter on either side
    "identical",
    "ratio",  # of the lengths, above the limit
    "placeholders",  # markup and placeholders differ
    "duplicate",  # the same pair stands elsewhere
    "leak",  # the source also stands in the test or validation split
    "foreign",  # a side reads more like the other language
    "long",  # more tokens than the limit
)

# What programs put values into, and markup: to be kept whole and the same on both sides.
PLACEHOLDER = re.compile(
    r"%\(\w+\)[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]|%(?:\d+\$)?\d*(?:\.\d+)?[sdifgrc](?![a-zA-Z])"
    r"|\{\{[^{}]*\}\}|\{[\w.!:,%]*\}|\$\{?\w+\}?|</?[a-zA-Z][^<>]*>|&#?\w+;"
)
SLACK = 10  # characters added to both lengths before their ratio: short texts differ more
BUCKETS = 1 << 16  # of runs of three characters
ENOUGH = 20  # such runs, from which a language can be told


def uniform(text: str) -> str:
    """NFC, without control characters, whitespace collapsed to single spaces.

    U+2581, by which SentencePiece marks spaces, becomes a space, so that its pieces always join to
    the text. Format characters stay but the byte order mark: some scripts need them.
    """
    text = unicodedata.normalize("NFC", text).replace("\ufeff", "").replace("\u2581", " ")
    kept = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())


def key(source: str) -> str:
    """What two sources have in common that differ in case, spaces and punctuation alone."""
    return "".join(filter(str.isalnum, source.casefold())) or source


def place(text: str) -> float:
    """A hash of a text, even in 0 to 1."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def fault(source: str, target: str, uncertain: bool, ratio: float) -> str | None:
    """The first of the rules that a pair breaks by itself, or None."""
    if uncertain:
        return "uncertain"
    if not source or not target:
        return "empty"
    if not any(map(str.isalpha, source)) or not any(map(str.isalpha, target)):
        return "wordless"
    if source == target:
        return "identical"
    short, long = sorted((len(source) + SLACK, len(target) + SLACK))
    if ratio and long > ratio * short:
        return "ratio"
    if Counter(PLACEHOLDER.findall(source)) != Counter(PLACEHOLDER.findall(target)):
        return "placeholders"
    return None


def runs(text: str) -> NDArray[np.int64]:
    """The bucket of every run of three characters of a text, placeholders left out."""
    letters = PLACEHOLDER.sub(" ", f" {text.lower()} ")
    codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    mixed: NDArray[np.int64] = (
        codes[:-2] * 73_856_093 ^ codes[1:-1] * 19_349_663 ^ codes[2:] * 83_492_791
    )
    return mixed % BUCKETS


class Languages:
    """Which of two languages a text reads like, by its runs of three characters.

    Learned from the pairs themselves, most of which are right (after Cavnar and Trenkle 1994).
    """

    def __init__(self) -> None:
        self.counts = np.ones((2, BUCKETS))  # one more than was seen

    def learn(self, source: str, target: str) -> None:
        """Count a pair."""
        for counts, text in zip(self.counts, (source, target), strict=True):
            np.add.at(counts, runs(text), 1)

    def odds(self) -> NDArray[np.float64]:
        """Log odds of the source's language for each bucket, in nats."""
        shares: NDArray[np.float64] = np.log(self.counts / self.counts.sum(axis=1, keepdims=True))
        odds: NDArray[np.float64] = shares[0] - shares[1]
        return odds


def foreign(odds: NDArray[np.float64], source: str, target: str, margin: float) -> bool:
    """Whether a side reads more like the other's language, by ``margin`` nats a character.

    A margin of 0 lets all be.
    """
    if not margin:
        return False
    one, two = odds[runs(source)], odds[runs(target)]
    return bool(
        (len(one) >= ENOUGH and one.mean() < -margin)
        or (len(two) >= ENOUGH and two.mean() > margin)
    )
