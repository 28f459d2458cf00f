"""Small parallel texts and a small untrained model, for the tests of translation."""

from typing import Any

import keras

from tests.test_translation_dataset import PREPARE, prepared, sentences

__all__ = ["EVALUATION", "PREPARE", "prepared", "sentences", "untrained_model"]

EVALUATION: dict[str, Any] = {
    "beam_size": 3,
    "length_penalty": 0.6,
    "coverage_penalty": 0.0,
    "no_repeat_ngram_size": 2,
    "max_length_ratio": 1.0,
    "batch_size": 16,
    "resamples": 20,
    "length_bins": 3,
    "rare_word_count": 30,
    "max_counted_pairs": 1000,
    "num_examples": 3,
    "num_plots": 2,
    "timed_requests": 1,
}


def untrained_model(data: Any) -> Any:
    """An untrained model, restored, whose large weights give distinct probabilities."""
    from ostinato.training.keras_model import KerasModel
    from ostinato.translation.models import attention

    keras.utils.set_random_seed(3)
    model = attention.build(
        data, units=8, num_layers=1, attention_score="general", dropout=0.0, word_dropout=0.0
    )
    for weight in model.trainable_weights:
        weight.assign(3 * weight)
    return KerasModel(model)
