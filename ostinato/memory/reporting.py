"""What report.md shows of memory tasks."""

from ostinato.memory.metrics import ACCURACY, BIT_ERROR, NRMSE, RMSE, SQUARED_ERROR
from ostinato.task import Reporting

REPORT = Reporting(
    metrics=(ACCURACY, BIT_ERROR, SQUARED_ERROR, RMSE, NRMSE),
    examples="examples",
    baselines=("constant", "mlp"),
    networks="network with a memory",
    figures={
        "error_by_delay": "Error by length and delay",
        "gradient_norms": "Norm of the gradient by the steps that it reaches back",
        "traces": "Gates, states or head weights while a sequence is read",
        "reservoir": "Spectrum and memory capacity of the reservoir",
        "learning_curves": "Learning curves",
    },
    legend="""\
A task has the metrics of its target: accuracy of classes; fraction of wrong bits; mean squared
error of numbers, its root, and the root divided by the range of the test targets. In brackets: 95%
confidence interval (bootstrap over test examples). The baseline `constant` gives the best constant
answer of the training split: chance. Training: wall time of all epochs. Inference: milliseconds per
example, one by one / in batches. Times are those of this machine.
""",
)
