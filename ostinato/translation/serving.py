"""Serve translation models: text in, ranked translations with their alignment out.

Texts may have any length. A text that is longer than the training texts is split at sentence ends
(a sentence that is too long at spaces); the parts are translated independently, and the response
says so. Placeholders and markup are not split, as in the training data. What has no word (a dash, a
number, a placeholder) is copied: the training data have no such pairs. Time and memory are
proportional to the number of characters, which is limited.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.decoding.batch_search import BatchSearch, Hypothesis, SearchOptions
from ostinato.errors import RequestError
from ostinato.serving.classification import read_top_k
from ostinato.task import Json, Serving
from ostinato.translation import dataset, metrics
from ostinato.translation.dataset import TranslationDataset, cleaning
from ostinato.translation.evaluation import pair_key, translator
from ostinato.translation.formats.parallel_text import read_pairs
from ostinato.translation.formats.placeholders import PLACEHOLDER
from ostinato.translation.formats.raw import RawManifest, Reject

BATCH_SIZE = 64  # parts translated at once
INPUTS_AT_ONCE = 64  # texts whose attention is in memory
MAX_CHARACTERS = 20_000  # of a text
MAX_REQUEST_CHARACTERS = 500_000  # of all texts of a request
# Where a text may be split, in order of preference: sentence ends, spaces, anywhere.
SPLIT_PATTERNS = [
    re.compile(p)
    for p in (r"[.!?\u2026][\"'\u2019\u201d\u00bb)\]]* |[\u3002\uff01\uff1f]", " ", ".")
]

EXAMPLE = {"text": "Enter a valid value."}

SERVING = Serving(
    limits="""\
- The model translates the kind of text that it was trained on; other text is translated poorly.
- Sentences are translated independently, without context.
- A text has at most 20,000 characters, all texts of a request 500,000.
- Text without letters, such as a number or a placeholder, is copied.
- The alignment is the network's attention: an indication, not an explanation.
""",
    example=EXAMPLE,
    options={"top_k": 0},
    files=("results/serving.npz", "data/source.model", "data/target.model"),
    packages=("sentencepiece",),
)


class Input(BaseModel):
    """A text to be translated."""

    text: str = Field(description="one or more sentences; line breaks count as spaces")


class Translation(BaseModel):
    """One of the ranked translations of a text."""

    text: str
    log_probability: float = Field(description="of the tokens, in nats")
    score: float = Field(description="ranks translations: with length and coverage penalty")
    words: list[str] = Field(description="of the translation")
    alignment: list[list[float]] | None = Field(
        description="for each word of the translation its attention to consecutive source words: "
        "to all, or to those of the word's part if the text was split; null if the model has no "
        "attention or the text was copied"
    )
    alignment_starts: list[int] | None = Field(
        description="for each row of `alignment` the index of its first source word, from 0"
    )


class Response(BaseModel):
    """The best translation of a text, and the ranked translations."""

    translation: str
    language: str = Field(description="code of the language of the translation")
    log_probability: float = Field(description="of the tokens, in nats")
    score: float
    split: bool = Field(description="whether the text was too long and was translated in parts")
    source_words: list[str]
    translations: list[Translation] = Field(
        description="the `top_k` best translations, the best first"
    )


def load(folder: Path) -> "TranslationService":
    """Load a packaged model: see `ostinato.task.Serving`."""
    about = store.read_json(folder / "about.json")
    predictor = models.load("translation", about["model"]).restore(folder / "model")
    data = dataset.load(folder)
    arrays = store.read_arrays(folder / "serving.npz")
    options = SearchOptions(**{name: array.item() for name, array in arrays.items()})
    translate = translator(
        predictor, data, options, nbest_size=options.beam_size, batch_size=BATCH_SIZE
    )
    service = TranslationService(translate, data)
    service.predict([Input.model_validate(EXAMPLE)], {})  # compiles the graphs
    return service


class TranslationService:
    """Translates texts with a trained model."""

    def __init__(self, translate: BatchSearch, data: TranslationDataset) -> None:
        self.translate, self.data = translate, data

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Json]) -> list[Response]:
        """Translate each text.

        Args:
            inputs: the texts.
            options: ``top_k``: number of ranked translations to return; 0 returns all.

        Raises:
            RequestError: a text or the request is too long, or an option is invalid.
        """
        top_k = read_top_k(options)
        _check_lengths(inputs)
        responses = []
        for start in range(0, len(inputs), INPUTS_AT_ONCE):  # frees the attention of each group
            texts = [
                _parts(cleaning.normalise(item.text), self.data)
                for item in inputs[start : start + INPUTS_AT_ONCE]
            ]
            translated = [part.text for text in texts for part in text if not part.copied]
            hypotheses = iter(self.translate(self.data.encode(translated), attention=True))
            responses += [
                _response(
                    text, [None if p.copied else next(hypotheses) for p in text], top_k, self.data
                )
                for text in texts
            ]
        return responses


class Part(NamedTuple):
    """A part of a text.

    Attributes:
        text: normalised.
        copied: whether it has no words, and is its own translation.
    """

    text: str
    copied: bool


def _check_lengths(inputs: Sequence[Input]) -> None:
    """Check the limits of a request.

    Raises:
        RequestError: there are too many characters.
    """
    for number, item in enumerate(inputs):
        if len(item.text) > MAX_CHARACTERS:
            raise RequestError(
                f"text {number}: found {len(item.text):,} characters; expected at most "
                f"{MAX_CHARACTERS:,}; send it in parts"
            )
    total = sum(len(item.text) for item in inputs)
    if total > MAX_REQUEST_CHARACTERS:
        raise RequestError(
            f"inputs: found {total:,} characters in {len(inputs):,} texts; expected at most "
            f"{MAX_REQUEST_CHARACTERS:,}; send them in several requests"
        )


def _parts(text: str, data: TranslationDataset) -> list[Part]:
    """The parts of a normalised text, none for an empty one."""
    if not cleaning.has_words(text):
        return [Part(text, copied=True)] if text else []
    return [Part(part, copied=not cleaning.has_words(part)) for part in split(text, data)]


def split(text: str, data: TranslationDataset) -> list[str]:
    """Split a normalised text into parts that are no longer, in tokens, than the training texts.

    The text is split at the sentence end nearest to its middle, and so are both halves. A sentence
    that is too long is split at a space, and a word anywhere; a placeholder is split only if there
    is no other way.
    """
    if len(data.encode([text])[0]) <= data.max_length or len(text) == 1:
        return [text] if text else []
    inside = {index for match in PLACEHOLDER.finditer(text) for index in range(*match.span())[1:]}
    for pattern in SPLIT_PATTERNS:
        positions = {match.end() for match in pattern.finditer(text)} - {len(text)}
        if pattern is not SPLIT_PATTERNS[-1]:
            positions -= inside
        if positions:
            break
    middle = min(positions, key=lambda position: (abs(2 * position - len(text)), position))
    return split(text[:middle].strip(), data) + split(text[middle:].strip(), data)


def _response(
    parts: list[Part],
    hypotheses: list[list[Hypothesis] | None],
    top_k: int,
    data: TranslationDataset,
) -> Response:
    """The response to a text.

    Args:
        parts: of the text.
        hypotheses: of each part; None for a copied one.
        top_k: number of ranked translations to return; 0 returns all.
        data: the data set.
    """
    if [part.copied for part in parts] == [True]:
        return _copy(parts[0].text, data)
    texts = [part.text for part in parts]
    source = [words(row, data, "source") for row in data.encode(texts)]
    copies = data.encode(texts, "target")
    ranked = [
        _join(
            [
                Hypothesis(copy, 0.0, 0.0, None) if options is None else options[rank]
                for copy, options in zip(copies, hypotheses, strict=True)
            ],
            source,
            data,
        )
        for rank in range(_count(hypotheses, top_k))
    ]
    best = ranked[0] if ranked else _join([], [], data)
    return Response(
        translation=best.text,
        language=data.languages[1],
        log_probability=best.log_probability,
        score=best.score,
        split=len(parts) > 1,
        source_words=[word for names, _ in source for word in names],
        translations=ranked,
    )


def _copy(text: str, data: TranslationDataset) -> Response:
    """The response to a text without words, which may be long: it is not cut into tokens."""
    copy = Translation(
        text=text,
        log_probability=0.0,
        score=0.0,
        words=text.split(),
        alignment=None,
        alignment_starts=None,
    )
    return Response(
        translation=text,
        language=data.languages[1],
        log_probability=0.0,
        score=0.0,
        split=False,
        source_words=text.split(),
        translations=[copy],
    )


def _count(hypotheses: list[list[Hypothesis] | None], top_k: int) -> int:
    """The number of ranked translations: of the part that has the fewest, at most ``top_k``."""
    counts = [len(options) for options in hypotheses if options is not None]
    count = min(counts, default=min(1, len(hypotheses)))
    return min(count, top_k or count)


def _join(
    parts: list[Hypothesis],
    source: list[tuple[list[str], Float64[np.ndarray, "_word _token"]]],
    data: TranslationDataset,
) -> Translation:
    """Join the translations of a text's parts."""
    target = [words(part.tokens, data, "target") for part in parts]
    alignment: list[list[float]] = []
    starts: list[int] = []
    first = 0  # of the part's source words
    for part, (names, rows), (source_names, columns) in zip(parts, target, source, strict=True):
        if part.attention is None:  # a copy
            block = np.eye(len(names), len(source_names))
        else:
            block = rows @ part.attention[:-1, :-1] @ columns.T / rows.sum(axis=1, keepdims=True)
        alignment += block.round(4).tolist()
        starts += [first] * len(names)
        first += len(source_names)
    has_attention = any(part.attention is not None for part in parts)
    return Translation(
        text=" ".join(data.decode([part.tokens for part in parts])),
        log_probability=sum(part.log_probability for part in parts),
        score=sum(part.score for part in parts),
        words=[word for names, _ in target for word in names],
        alignment=alignment if has_attention else None,
        alignment_starts=starts if has_attention else None,
    )


def words(
    row: list[int], data: TranslationDataset, side: str
) -> tuple[list[str], Float64[np.ndarray, "word token"]]:
    """The words that tokens form, and which tokens each word consists of (0 or 1)."""
    starts = np.array([piece.startswith("\u2581") for piece in data.pieces(row, side)], bool)
    index = np.cumsum(starts) - starts[:1].sum()
    members = (np.arange(index.max(initial=-1) + 1)[:, None] == index).astype(np.float64)
    names = data.decode([np.array(row, int)[member > 0].tolist() for member in members], side)
    nonempty = np.array([bool(name) for name in names], bool)
    return [name for name in names if name], members[nonempty]


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test pairs as requests, by key, from the raw files.

    Texts that serving would split or copy are left out: the evaluation translates all of them,
    whole.
    """
    data, wanted = dataset.load(prepared), set(keys)
    requests: dict[str, dict[str, Json]] = {}
    for pair in read_pairs(raw, RawManifest.read(raw)):
        if isinstance(pair, Reject):
            continue
        source, target = cleaning.normalise(pair.source), cleaning.normalise(pair.target)
        key = pair_key(source, target)
        if key in wanted and [part.copied for part in _parts(source, data)] == [False]:
            requests[key] = {"text": pair.source}
    return requests


def from_responses(
    responses: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses as the arrays of an evaluation, without keys.

    Args:
        responses: as JSON.
        truth: the reference of each.
        classes: not used: translations have none.
    """
    texts = [response["translation"] for response in responses]
    # Versions that were registered before responses had a language are scored as with spaces.
    language = next((response.get("language", "") for response in responses), "")
    return {
        "truth": np.array(truth),
        "text": np.array(texts),
        "log_probability": np.array([response["log_probability"] for response in responses]),
        **metrics.sentence_statistics(texts, truth, language),
    }
