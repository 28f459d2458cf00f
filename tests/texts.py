"""Small parallel texts and a small untrained model, for the tests of translation's ends."""

from typing import Any

import keras

from tests.test_translation_dataset import prepared, sentences

__all__ = ["SCORES", "model_of", "prepared", "sentences"]

SCORES: dict[str, Any] = {
    "width": 3,
    "length": 0.6,
    "coverage": 0.0,
    "ngram": 2,
    "longer": 1.0,
    "batch_size": 16,
    "resamples": 20,
    "bands": 3,
    "rare": 30,
    "future_covariates": 1000,
    "listed": 3,
    "shown": 2,
    "timed_requests": 1,
}


def model_of(data: Any) -> Any:
    """An untrained translator, whose weights are large enough to make it decided."""
    from ostinato.translation.models import attention

    keras.utils.set_random_seed(3)
    model = attention.build(
        data, units=8, num_layers=1, attention_score="general", dropout=0.0, word_dropout=0.0
    )
    for weight in model.trainable_weights:
        weight.assign(3 * weight)
    return model
