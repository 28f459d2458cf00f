"""What report.md shows of generated drawings."""

from ostinato.generation.metrics import (
    DIVERSITY,
    FRECHET,
    KL,
    NOVELTY,
    RECOGNISED_COMPLETIONS,
    RECOGNISED_RECONSTRUCTIONS,
    RECOGNISED_SAMPLES,
    RECONSTRUCTION_LOSS,
)
from ostinato.task import Reporting

REPORT = Reporting(
    metrics=(
        RECOGNISED_COMPLETIONS,
        RECOGNISED_SAMPLES,
        RECOGNISED_RECONSTRUCTIONS,
        RECONSTRUCTION_LOSS,
        KL,
        FRECHET,
        DIVERSITY,
        NOVELTY,
    ),
    examples="drawings",
    baselines=("nearest",),
    networks="network",
    figures={
        "samples": "Samples by class and temperature",
        "reconstructions": "Reconstructions beside test drawings",
        "interpolations": "Between two test drawings",
        "completions": "Test drawings completed from half of their points",
        "completion": "Recognition of completions",
        "temperature": "Recognition and diversity by temperature",
        "neighbours": "Samples and their nearest training drawings",
        "replay": "A sample, stroke by stroke",
        "learning_curves": "Learning curves",
    },
    legend="""\
Recognised: fraction whose class the data set's classifier ranks first; it has seen neither the
training drawings of the generators nor the test drawings. Completions: of test drawings, from half
of their points. Samples: drawn with a class and nothing else. Reconstructions: of test drawings,
from the mean of the latent vector. All at one temperature, chosen on the validation split. In
brackets: 95% confidence interval (bootstrap over test drawings). L_R in nats divided by N_max, L_KL
in nats for each dimension of the latent vector (Ha and Eck 2017). Fréchet distance between the
classifier's features of samples and of test drawings. Diversity: mean distance between two samples
of a class, divided by that between test drawings. Novelty: median distance of a sample to the
nearest training drawing, divided by that of test drawings; a copy has 0. Training: wall time of all
epochs. Inference: milliseconds per sample, one by one / in batches. Times are those of this
machine.
""",
)
