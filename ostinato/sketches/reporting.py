"""What report.md shows of classified drawings."""

from ostinato.evaluation.classification import CALIBRATION_ERROR, LOG_LOSS, MAP3, TOP1, TOP5
from ostinato.task import Reporting

REPORT = Reporting(
    metrics=(TOP1, TOP5, MAP3, LOG_LOSS, CALIBRATION_ERROR),
    examples="drawings",
    baselines=("bitmap_cnn", "nearest"),  # without recurrence
    networks="recurrent network",
    figures={
        "learning_curves": "Learning curves",
        "confusion": "Confusion matrix",
        "mistakes": "Most confident errors",
        "early_recognition": "Early recognition",
        "calibration": "Confidence and accuracy",
        "per_class": "Precision, recall and F1 of each class",
    },
    legend="""\
Top-k accuracy: fraction of the test drawings whose class is among the k most probable. In
brackets: 95% confidence interval (bootstrap over test drawings). MAP@3: mean of 1/rank, 0 beyond
3. Log loss in nats. Calibration error: mean difference of confidence and accuracy. Training: wall
time of all epochs. Inference: milliseconds per drawing, one by one / in batches. Times are those
of this machine.
""",
)
