"""Translates texts: text in, text out, with its score and what each word was taken from.

A text of any length will do. One that is longer than what the model was trained on is cut at the
ends of sentences (a sentence that is too long by itself at spaces), its parts are translated one
by one, and the answer says so. Placeholders and markup are kept whole, as in the training data.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ostinato import params, store
from ostinato.errors import RequestError
from ostinato.translation import dataset
from ostinato.translation.dataset import cleaning
from ostinato.translation.dataset.reading import pairs
from ostinato.translation.evaluation import Search, Told, key, likeness, translator

Array = NDArray[Any]

BATCH = 64  # parts translated at once
LONGEST = 100_000  # characters of a text
# Where a text may be cut, the best first: at the end of a sentence, at a space, anywhere.
CUTS = [
    re.compile(p)
    for p in (r"[.!?\u2026][\"'\u2019\u201d\u00bb)\]]* |[\u3002\uff01\uff1f]", " ", ".")
]

EXAMPLE = {"text": "Enter a valid value."}

LIMITS = """\
- It knows the kind of text that it was trained on; of another it makes what it knows.
- Each sentence is translated for itself: nothing is known of those before it.
- What a word was taken from is the network's attention, which is a hint and no proof.
"""

FILES = ("results/tables/search.csv", "data/source.model", "data/target.model")
PACKAGES = ("sentencepiece",)


class Text(BaseModel):
    """A text to be translated."""

    text: str = Field(description="one or more sentences; line breaks count as spaces")


class Translation(BaseModel):
    """One way to say it."""

    text: str
    log_probability: float  # of the tokens, in nats
    score: float  # by which translations are ordered: with the penalties for length and coverage
    words: list[str]
    # For each word, the share of attention that each word of the source had; of some models only.
    alignment: list[list[float]] | None


class Answer(BaseModel):
    """A translation, and others that were nearly as good."""

    translation: str
    log_probability: float
    score: float
    cut: bool  # the text was too long to be translated at once
    source: list[str]  # its words, as they were read
    best: list[Translation]  # the best first


Input = Text


def load(folder: Path) -> Callable[[Sequence[Text], int], list[Answer]]:
    """The model whose files are in ``folder``, ready to answer.

    Returns:
        A function of texts, and of how many of the best translations are told (0: all).
    """
    about, data = store.read_json(folder / "about.json"), dataset.load(folder)
    params.model_module(about["domain"], about["model"])  # registers the model's layers
    model = store.read_model(folder / "model.keras")
    (found,) = pd.read_csv(folder / "search.csv").to_dict("records")
    search = Search(**{str(name): value for name, value in found.items()})
    translate = translator(model, data, search, search.width, BATCH, aligned=True)

    def answer(texts: Sequence[Text], best: int) -> list[Answer]:
        parts = []
        for number, given in enumerate(texts):
            if len(given.text) > LONGEST:
                raise RequestError(
                    f"text {number}: {len(given.text):,} characters, more than {LONGEST:,}; "
                    "ask in parts"
                )
            parts.append(split(cleaning.uniform(given.text), data))
        told = iter(translate(data.encode([part for own in parts for part in own])))
        return [_answer(own, [next(told) for _ in own], best, data) for own in parts]

    # Makes the graph, which a first question would wait for.
    answer([Text.model_validate(EXAMPLE)], 1)
    return answer


def split(text: str, data: Any) -> list[str]:
    """A uniform text in parts that are no longer than the training data's, in tokens.

    It is cut at the end of a sentence, the one nearest to the middle, and so are both halves. A
    sentence that is too long is cut at a space, and a word anywhere; within a placeholder only
    where there is no other place.
    """
    if len(data.encode([text])[0]) <= data.longest or len(text) == 1:
        return [text] if text else []
    inside = {i for found in cleaning.PLACEHOLDER.finditer(text) for i in range(*found.span())[1:]}
    for pattern in CUTS:
        cuts = {found.end() for found in pattern.finditer(text)} - {len(text)}
        if pattern is not CUTS[-1]:
            cuts -= inside
        if cuts:
            break
    cut = min(cuts, key=lambda place: (abs(2 * place - len(text)), place))
    return split(text[:cut].strip(), data) + split(text[cut:].strip(), data)


def _answer(parts: list[str], told: list[list[Told]], best: int, data: Any) -> Answer:
    source = [words(row, data, "source") for row in data.encode(parts)]
    count = min(map(len, told), default=0)  # of what was found of each part
    ways = [_joined([part[n] for part in told], source, data) for n in range(count)]
    first = ways[0] if ways else _joined([], [], data)
    return Answer(
        translation=first.text,
        log_probability=first.log_probability,
        score=first.score,
        cut=len(parts) > 1,
        source=[word for names, _ in source for word in names],
        best=ways[: best or None],
    )


def _joined(told: list[Told], source: list[tuple[list[str], Array]], data: Any) -> Translation:
    """The translations of a text's parts as one; the alignment of each part stays in it."""
    target = [words(part.tokens, data, "target") for part in told]
    blocks = [
        own @ part.attention[:-1, :-1] @ other.T / own.sum(axis=1, keepdims=True)
        for part, (_, own), (_, other) in zip(told, target, source, strict=True)
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
        text=" ".join(data.decode([part.tokens for part in told])),
        log_probability=sum(part.log_probability for part in told),
        score=sum(part.score for part in told),
        words=[word for names, _ in target for word in names],
        alignment=alignment,
    )


def words(row: list[int], data: Any, side: str) -> tuple[list[str], Array]:
    """The words that tokens make, and which tokens each consists of: 0 or 1 (word, token)."""
    begins = np.array([piece.startswith("\u2581") for piece in data.pieces(row, side)], bool)
    place = np.cumsum(begins) - begins[:1].sum()
    of = (np.arange(place.max(initial=-1) + 1)[:, None] == place).astype(np.float64)
    names = data.decode([np.array(row, int)[one > 0].tolist() for one in of], side)
    some = np.array([bool(name) for name in names], bool)
    return [name for name in names if name], of[some]


def questions(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Pairs of the test split as somebody would ask them, by key, from the raw files.

    What would be cut is left out: evaluation translates it whole.
    """
    data, wanted = dataset.load(prepared), set(keys)
    found = {}
    for pair in pairs(raw, store.read_json(raw / "manifest.json")):
        source, target = cleaning.uniform(pair.source), cleaning.uniform(pair.target)
        name = key(source, target)
        if name in wanted and len(split(source, data)) == 1:
            found[name] = {"text": pair.source}
    return found


def arrays(
    answers: Sequence[Mapping[str, Any]], truth: Sequence[str], classes: Sequence[str]
) -> dict[str, Array]:
    """Answers as evaluation keeps them: truth, text, log probability, and likeness of the two.

    Args:
        answers: of ``load``'s function.
        truth: the reference of each.
        classes: nothing here: translations have none.
    """
    texts = [answer["translation"] for answer in answers]
    return {
        "truth": np.array(truth),
        "text": np.array(texts),
        "log_probability": np.array([answer["log_probability"] for answer in answers]),
        **likeness(texts, truth),
    }
