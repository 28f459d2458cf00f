"""Normalisation of parallel text, and the rules that remove pairs."""

import re
import unicodedata
from collections import Counter
from hashlib import blake2b

import numpy as np
from jaxtyping import Float64, Int64

RULES = (
    "uncertain",  # marked as uncertain by the translators
    "empty",  # on either side
    "wordless",  # no letter on either side
    "identical",
    "ratio",  # of the lengths, above the limit
    "placeholders",  # markup and placeholders differ
    "duplicate",  # the pair occurs elsewhere
    "leak",  # the source is also in the test or validation split
    "foreign",  # a side looks more like the other language
    "long",  # more tokens than the limit
)

# Format placeholders and markup: each is a token, and has to be the same on both sides.
PLACEHOLDER = re.compile(
    r"%\(\w+\)[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]|%(?:\d+\$)?\d*(?:\.\d+)?[sdifgrc](?![a-zA-Z])"
    r"|\{\{[^{}]*\}\}|\{[\w.!:,%]*\}|\$\{?\w+\}?|</?[a-zA-Z][^<>]*>|&#?\w+;"
)
EXTRA_CHARACTERS = 10  # added to both lengths before their ratio: short texts vary more
BUCKETS = 1 << 16  # of hashed character trigrams
MIN_TRIGRAMS = 20  # of a text whose language is detected


def normalise(text: str) -> str:
    """Apply NFC, remove control characters and collapse whitespace to single spaces.

    U+2581, which SentencePiece uses for spaces, becomes a space, so that tokens always decode to
    the text. Format characters stay, as some scripts need them; the byte order mark is removed.
    """
    text = unicodedata.normalize("NFC", text).replace("\ufeff", "").replace("\u2581", " ")
    kept = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())


def source_key(source: str) -> str:
    """A key that is the same for sources that differ only in case, spaces and punctuation."""
    return "".join(filter(str.isalnum, source.casefold())) or source


def uniform_hash(text: str) -> float:
    """A hash of a text, uniform in [0, 1)."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def broken_rule(source: str, target: str, uncertain: bool, max_length_ratio: float) -> str | None:
    """The first rule that a pair breaks by itself; None if it breaks none."""
    if uncertain:
        return "uncertain"
    if not source or not target:
        return "empty"
    if not any(map(str.isalpha, source)) or not any(map(str.isalpha, target)):
        return "wordless"
    if source == target:
        return "identical"
    short, long = sorted((len(source) + EXTRA_CHARACTERS, len(target) + EXTRA_CHARACTERS))
    if max_length_ratio and long > max_length_ratio * short:
        return "ratio"
    if Counter(PLACEHOLDER.findall(source)) != Counter(PLACEHOLDER.findall(target)):
        return "placeholders"
    return None


def trigrams(text: str) -> Int64[np.ndarray, " trigram"]:
    """The bucket of each character trigram of a text without its placeholders."""
    letters = PLACEHOLDER.sub(" ", f" {text.lower()} ")
    codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    mixed: np.ndarray = codes[:-2] * 73_856_093 ^ codes[1:-1] * 19_349_663 ^ codes[2:] * 83_492_791
    return mixed % BUCKETS


class LanguageModel:
    """Character trigram counts of two languages, learned from the pairs themselves.

    Most pairs are correct, so the counts separate the languages (after Cavnar & Trenkle 1994).
    """

    def __init__(self) -> None:
        self.counts = np.ones((2, BUCKETS))  # add-one smoothing

    def update(self, source: str, target: str) -> None:
        """Count the trigrams of a pair."""
        for counts, text in zip(self.counts, (source, target), strict=True):
            np.add.at(counts, trigrams(text), 1)

    def log_odds(self) -> Float64[np.ndarray, " bucket"]:
        """Log odds of the source language for each bucket, in nats."""
        shares = np.log(self.counts / self.counts.sum(axis=1, keepdims=True))
        return np.asarray(shares[0] - shares[1])


def is_foreign(
    log_odds: Float64[np.ndarray, " bucket"], source: str, target: str, language_margin: float
) -> bool:
    """Whether a side looks more like the other language.

    Args:
        log_odds: of `LanguageModel`.
        source: the source text.
        target: the target text.
        language_margin: in nats per trigram; 0 turns the rule off.
    """
    if not language_margin:
        return False
    one, two = log_odds[trigrams(source)], log_odds[trigrams(target)]
    return bool(
        (len(one) >= MIN_TRIGRAMS and one.mean() < -language_margin)
        or (len(two) >= MIN_TRIGRAMS and two.mean() > language_margin)
    )
