"""The accuracy of a classifier without labels, estimated from its calibrated confidence.

The expected accuracy is the mean probability that the predicted class is the true one. A model's
own probability is not calibrated, so it is mapped to the frequency of right answers at the same
confidence on the validation split, by logistic regression on its logit (Platt 1999). Unlike a
histogram or isotonic regression, that also holds for confidences that are rare there and frequent
after a shift. The estimate is known as confidence-based performance estimation; Garg et al. 2022
(arXiv 2201.04234) compare it, as "average confidence", with others. It assumes that answers of
equal confidence are right equally often as on the validation split. Where inputs shift so far that
the model is confidently wrong, it is too optimistic: only labels show that.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ostinato.evaluation.comparison import interval

RESAMPLES = 200
MAX_EXAMPLES = 5000  # of each side, that the interval is resampled from
EPSILON = 1e-4  # the least distance of a confidence from 0 and 1
MAX_STEPS, TOLERANCE = 30, 1e-6  # of Newton's method


@dataclass(frozen=True)
class Calibrator:
    """A map from confidence to the probability of a right answer.

    Args:
        offset: of the logit.
        slope: of the logit.
    """

    offset: float
    slope: float

    @classmethod
    def fit(
        cls, confidence: Float[np.ndarray, " example"], correct: Bool[np.ndarray, " example"]
    ) -> "Calibrator":
        """Fit on answers whose truth is known, by Newton's method.

        Targets are Platt's, a little above 0 and below 1: the fit exists where all are right.
        """
        right = int(correct.sum())
        wrong = len(correct) - right
        target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
        columns = np.stack([np.ones(len(correct)), _logit(confidence)], axis=1)
        weights = np.array([0.0, 1.0])
        for _ in range(MAX_STEPS):
            p = _sigmoid(columns @ weights)
            curvature = columns.T @ (columns * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
            step = np.linalg.solve(curvature, columns.T @ (target - p))
            weights = weights + np.clip(step, -2, 2)
            if np.abs(step).max() < TOLERANCE:
                break
        return cls(float(weights[0]), float(weights[1]))

    def __call__(self, confidence: Float[np.ndarray, " answer"]) -> Float[np.ndarray, " answer"]:
        """The probability that each answer is right."""
        return _sigmoid(self.offset + self.slope * _logit(confidence))


def estimate_accuracy(
    confidence: Float[np.ndarray, " answer"],
    validation_confidence: Float[np.ndarray, " example"],
    validation_correct: Bool[np.ndarray, " example"],
    *,
    seed: int,
) -> tuple[float, float, float]:
    """The estimated accuracy with its 95% interval: value, low, high.

    The interval is that of a bootstrap of both sides: the answers, and the examples that calibrate.

    Args:
        confidence: of the served answers.
        validation_confidence: on the validation split.
        validation_correct: whether these answers are right.
        seed: of the bootstrap.
    """
    random = np.random.default_rng(seed)
    value = float(Calibrator.fit(validation_confidence, validation_correct)(confidence).mean())
    size, answers = (min(len(side), MAX_EXAMPLES) for side in (validation_confidence, confidence))
    values = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = random.integers(len(validation_confidence), size=size)
        calibrator = Calibrator.fit(validation_confidence[drawn], validation_correct[drawn])
        again = confidence[random.integers(len(confidence), size=answers)]
        # The truth of an answer is drawn too: an accuracy varies more than its expectation.
        values[number] = (random.random(answers) < calibrator(again)).mean()
    return value, *interval(values)


def _logit(confidence: Float[np.ndarray, " answer"]) -> Float[np.ndarray, " answer"]:
    p = np.clip(np.asarray(confidence, np.float64), EPSILON, 1 - EPSILON)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(logit: Float[np.ndarray, " answer"]) -> Float[np.ndarray, " answer"]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))
