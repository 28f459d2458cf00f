"""SentencePiece tokenizers (Kudo & Richardson 2018, arXiv 1808.06226).

The first ids are fixed: 0 pad, 1 unk, 2 bos, 3 eos. Characters outside the vocabulary are encoded
as bytes, so no text contains unk and the tokens always decode to the text.
"""

import io
from pathlib import Path
from typing import Any, Literal

from ostinato.errors import DataError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SIDES = ("source", "target")


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
            num_threads=1,  # the same vocabulary on any machine
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"vocab_size: {vocab_size} tokens ({model_type}) from {len(texts):,} texts: {reason}"
        ) from None
    return model.getvalue()


def load(folder: Path, side: str) -> Any:
    """The tokenizer of the source or of the target: a ``SentencePieceProcessor``."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
