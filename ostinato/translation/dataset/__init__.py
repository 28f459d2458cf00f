"""Raw parallel text to a prepared data set of token pairs, and its batches."""

from ostinato.translation.dataset.loader import TranslationDataset, load
from ostinato.translation.dataset.prepare import prepare
from ostinato.translation.dataset.tokenizer import BOS, EOS, PAD, UNK

__all__ = ["BOS", "EOS", "PAD", "UNK", "TranslationDataset", "load", "prepare"]
