"""Normalisation of parallel text, and the rules that remove pairs."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from jaxtyping import Float64, Int64

from ostinato.translation.formats.placeholders import PLACEHOLDER

RULES = (
    "malformed",  # cannot be read
    "uncertain",  # marked as uncertain by the translators
    "empty",  # on either side
    "wordless",  # no letter on either side
    "identical",
    "ratio",  # of the lengths, too far from the typical one
    "placeholders",  # markup and placeholders differ
    "duplicate",  # the pair occurs elsewhere
    "leak",  # the source is also in the test or validation split
    "foreign",  # a side looks more like the other language
    "long",  # more tokens than the limit
)

EXTRA_CHARACTERS = 10  # added to both lengths before their ratio: short texts vary more
RATIO_STEPS = 100  # per factor of e, of the lengths' ratios whose median is taken
BUCKETS = 1 << 16  # of hashed character trigrams
MIN_TRIGRAMS = 20  # of a text whose language is detected
# Characters that show nothing, besides spaces, controls and format characters (Cf).
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]"
)
# Punctuation that distinguishes texts: of numbers (2.5, -5) and of names (C#, 5%).
DISTINCTIVE = re.compile(r"(?<=\d)[^\w\s](?=\d)|(?<!\S)-(?=\d)|[#%&@*]")


def normalise(text: str) -> str:
    """Apply NFC, remove control characters and collapse whitespace to single spaces.

    U+2581, which SentencePiece uses for spaces, becomes a space, so that tokens always decode to
    the text. Format characters stay, as some scripts need them; the byte order mark is removed,
    and so is a text in which nothing is visible.
    """
    text = unicodedata.normalize("NFC", text).replace("\ufeff", "").replace("\u2581", " ")
    kept = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    text = " ".join("".join(kept).split())
    visible = INVISIBLE.sub("", text)
    if text.isascii() or any(c != " " and unicodedata.category(c) != "Cf" for c in visible):
        return text
    return ""


def has_words(text: str) -> bool:
    """Whether a text has a letter outside of its placeholders, and so something to translate."""
    return any(map(str.isalpha, PLACEHOLDER.sub("", text)))


def source_key(source: str) -> str:
    """A key that is the same for sources that differ only in case, spaces and punctuation.

    Vowel signs and other marks, symbols, and the punctuation of numbers are part of the key.
    """
    text = source.casefold()
    distinctive = {match.start() for match in DISTINCTIVE.finditer(text)}
    return (
        "".join(
            c
            for index, c in enumerate(text)
            if c.isalnum() or unicodedata.category(c)[0] in "MS" or index in distinctive
        )
        or source
    )


def split_key(key: str) -> str:
    """The letters and digits of a `source_key`: sources with the same ones are in one split."""
    return "".join(filter(str.isalnum, key)) or key


def uniform_hash(text: str) -> float:
    """A hash of a text, uniform in [0, 1)."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def typical_ratio(pairs: Iterable[tuple[str, str]], max_length_ratio: float) -> float:
    """The median ratio of the length of a target to that of its source, in characters.

    1 where it is within the square root of the limit: such pairs have room enough for the
    variation of single texts. Chinese is several times shorter than English.
    """
    counts: Counter[int] = Counter()
    for source, target in pairs:
        ratio = (len(target) + EXTRA_CHARACTERS) / (len(source) + EXTRA_CHARACTERS)
        counts[round(RATIO_STEPS * math.log(ratio))] += 1
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])
    if not values:
        return 1.0
    median = values[int(np.searchsorted(ends, ends[-1] / 2))] / RATIO_STEPS
    return 1.0 if abs(median) <= math.log(max_length_ratio) / 2 else math.exp(median)


def broken_rule(
    source: str, target: str, uncertain: bool, max_length_ratio: float, typical: float = 1.0
) -> str | None:
    """The first rule that a pair breaks by itself; None if it breaks none.

    Args:
        source: the source text.
        target: the target text.
        uncertain: whether the translators marked it as uncertain.
        max_length_ratio: maximum ratio of the lengths; 0 turns the rule off.
        typical: the `typical_ratio`, relative to which lengths are compared.
    """
    if uncertain:
        return "uncertain"
    if not source or not target:
        return "empty"
    if not any(map(str.isalpha, source)) or not any(map(str.isalpha, target)):
        return "wordless"
    if source == target:
        return "identical"
    scaled = typical * (len(source) + EXTRA_CHARACTERS)
    short, long = sorted((scaled, len(target) + EXTRA_CHARACTERS))
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
