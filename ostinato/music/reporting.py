"""What report.md shows of models of pieces."""

from ostinato.music.metrics import ACCURACY, NATS, WRITTEN
from ostinato.task import Reporting

REPORT = Reporting(
    metrics=(NATS, ACCURACY, *WRITTEN),
    examples="pieces",
    baselines=("markov",),
    networks="network",
    figures={
        "pieces": "Test pieces and written pieces",
        "statistics": "Pitch classes and intervals of test pieces and of written pieces",
        "positions": "Nats by position in the piece",
        "spectrogram": "A written piece as it sounds",
        "learning_curves": "Learning curves",
    },
    legend="""\
Nats per frame: negative log-likelihood of a frame given those before, the sum over its 88 notes;
the first frame of a piece is not counted (Bai et al. 2018). Of a variational autoencoder an upper
bound; a conditional model is told the style and the key of the whole piece. Accuracy: notes of the
most likely frame that are right, divided by the notes of either frame (Bay et al. 2009). In
brackets: 95% confidence interval (bootstrap over test pieces). All other columns are of pieces that
the model has written, at one temperature, chosen on the validation split: pitch classes and
intervals: distance of their distributions to those of test pieces, 0 to 1; parallel fifths and
octaves per 100 changes of the chord; notes outside the range that their voice has in training;
passages that occur in the training pieces, in any key. Training: wall time of all epochs.
Inference: milliseconds per written piece, one by one / in batches. Times are those of this machine.
""",
)
