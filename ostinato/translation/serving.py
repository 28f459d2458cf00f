"""Serve translation models: text in, ranked translations with their alignment out.

Texts may have any length. A text that is longer than the training texts is split at sentence ends
(a sentence that is too long at spaces); the parts are translated independently, and the response
says so. Placeholders and markup are not split, as in the training data.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.decoding.batch_search import BatchSearch, Hypothesis, SearchOptions
from ostinato.errors import RequestError
from ostinato.task import Json, Serving
from ostinato.translation import dataset, metrics
from ostinato.translation.dataset import TranslationDataset, cleaning
from ostinato.translation.evaluation import pair_key, translator
from ostinato.translation.formats.parallel_text import RawManifest, read_pairs

BATCH_SIZE = 64  # parts translated at once
MAX_CHARACTERS = 100_000  # of a text
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
        description="attention of each word of the translation to each source word; null if the "
        "model has no attention"
    )


class Response(BaseModel):
    """The best translation of a text, and the ranked translations."""

    translation: str
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
            RequestError: a text has more than 100,000 characters.
        """
        parts = []
        for number, item in enumerate(inputs):
            if len(item.text) > MAX_CHARACTERS:
                raise RequestError(
                    f"text {number}: {len(item.text):,} characters, more than "
                    f"{MAX_CHARACTERS:,}; send it in parts"
                )
            parts.append(split(cleaning.normalise(item.text), self.data))
        rows = self.data.encode([part for text in parts for part in text])
        hypotheses = iter(self.translate(rows, attention=True))
        top_k = int(options.get("top_k", SERVING.options["top_k"]))
        return [
            _response(text, [next(hypotheses) for _ in text], top_k, self.data) for text in parts
        ]


def split(text: str, data: TranslationDataset) -> list[str]:
    """Split a normalised text into parts that are no longer, in tokens, than the training texts.

    The text is split at the sentence end nearest to its middle, and so are both halves. A sentence
    that is too long is split at a space, and a word anywhere; a placeholder is split only if there
    is no other way.
    """
    if len(data.encode([text])[0]) <= data.max_length or len(text) == 1:
        return [text] if text else []
    inside = {
        index for match in cleaning.PLACEHOLDER.finditer(text) for index in range(*match.span())[1:]
    }
    for pattern in SPLIT_PATTERNS:
        positions = {match.end() for match in pattern.finditer(text)} - {len(text)}
        if pattern is not SPLIT_PATTERNS[-1]:
            positions -= inside
        if positions:
            break
    middle = min(positions, key=lambda position: (abs(2 * position - len(text)), position))
    return split(text[:middle].strip(), data) + split(text[middle:].strip(), data)


def _response(
    parts: list[str], hypotheses: list[list[Hypothesis]], top_k: int, data: TranslationDataset
) -> Response:
    source = [words(row, data, "source") for row in data.encode(parts)]
    count = min(map(len, hypotheses), default=0)
    ranked = [_join([part[rank] for part in hypotheses], source, data) for rank in range(count)]
    best = ranked[0] if ranked else _join([], [], data)
    return Response(
        translation=best.text,
        log_probability=best.log_probability,
        score=best.score,
        split=len(parts) > 1,
        source_words=[word for names, _ in source for word in names],
        translations=ranked[: top_k or None],
    )


def _join(
    parts: list[Hypothesis],
    source: list[tuple[list[str], Float64[np.ndarray, "_word _token"]]],
    data: TranslationDataset,
) -> Translation:
    """Join the translations of a text's parts; the alignment is block diagonal."""
    target = [words(part.tokens, data, "target") for part in parts]
    blocks = [
        rows @ part.attention[:-1, :-1] @ columns.T / rows.sum(axis=1, keepdims=True)
        for part, (_, rows), (_, columns) in zip(parts, target, source, strict=True)
        if part.attention is not None
    ]
    alignment = None
    if blocks:
        heights, widths = np.cumsum([(0, 0), *(block.shape for block in blocks)], axis=0).T
        whole = np.zeros((heights[-1], widths[-1]))
        for block, i, j in zip(blocks, heights, widths, strict=False):
            whole[i : i + len(block), j : j + block.shape[1]] = block
        alignment = whole.round(4).tolist()
    return Translation(
        text=" ".join(data.decode([part.tokens for part in parts])),
        log_probability=sum(part.log_probability for part in parts),
        score=sum(part.score for part in parts),
        words=[word for names, _ in target for word in names],
        alignment=alignment,
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

    Texts that serving would split are left out: the evaluation translates them whole.
    """
    data, wanted = dataset.load(prepared), set(keys)
    requests: dict[str, dict[str, Json]] = {}
    for pair in read_pairs(raw, RawManifest.read(raw)):
        source, target = cleaning.normalise(pair.source), cleaning.normalise(pair.target)
        key = pair_key(source, target)
        if key in wanted and len(split(source, data)) == 1:
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
    return {
        "truth": np.array(truth),
        "text": np.array(texts),
        "log_probability": np.array([response["log_probability"] for response in responses]),
        **metrics.sentence_statistics(texts, truth),
    }
