"""SentencePiece tokenizers (Kudo & Richardson 2018, arXiv 1808.06226).

The first ids are fixed: 0 pad, 1 unk, 2 bos, 3 eos. Characters outside the vocabulary are encoded
as bytes, so no text contains unk and the tokens always decode to the text. Text that looks like a
special token, such as ``<s>``, is text.
"""

import io
import re
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import DataError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SIDES = ("source", "target")
SPECIAL = {"pad_piece": "<pad>", "unk_piece": "<unk>", "bos_piece": "<s>", "eos_piece": "</s>"}


def train(
    texts: list[str],
    symbols: list[str],
    model_type: Literal["unigram", "bpe"],
    vocab_size: int,
    character_coverage: float,
) -> bytes:
    """Train a tokenizer.

    Args:
        texts: to train on.
        symbols: placeholders and markup that are single tokens.
        model_type: unigram language model or byte-pair encoding.
        vocab_size: maximum number of tokens.
        character_coverage: share of the characters that are in the vocabulary.

    Returns:
        The serialised SentencePiece model.

    Raises:
        DataError: the texts are too few for the vocabulary, or the vocabulary is too small.
    """
    import sentencepiece

    model = io.BytesIO()
    # Another name where the texts use it; U+2581 is in no normalised text.
    renamed: dict[str, Any] = {
        option: f"\u2581{name}" for option, name in SPECIAL.items() if name in symbols
    }
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=model_type == "bpe",  # unigram stops early if there are no more
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=symbols,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            **renamed,
            num_threads=1,  # the same vocabulary on any machine
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"vocab_size: {vocab_size} tokens ({model_type}) from {len(texts):,} texts: "
            f"{_reason(str(error))}"
        ) from None
    return model.getvalue()


def _reason(message: str) -> str:
    """A message of SentencePiece in the words of params.yaml."""
    if high := re.search(r"too high.*value <= (\d+)", message, re.DOTALL):
        return f"the texts give {high[1]} tokens; set vocab_size to at most {high[1]}"
    if low := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return (
            f"the characters alone need {low[1]} tokens; set vocab_size to at least {low[1]}, or "
            "lower character_coverage"
        )
    return message.strip().splitlines()[-1]


def load(folder: Path, side: str) -> Any:
    """The tokenizer of the source or of the target: a ``SentencePieceProcessor``."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
