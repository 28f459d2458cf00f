"""The report on video classification."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ostinato.evaluation.classification import LOG_LOSS, TOP1, TOP5
from ostinato.evaluation.comparison import compare, metric_interval
from ostinato.task import PerExample, Reporting
from ostinato.video.metrics import SHUFFLING_DROP, TOP1_SHUFFLED, TOP1_VIDEO

REPORT = Reporting(
    metrics=(TOP1, TOP5, TOP1_VIDEO, LOG_LOSS, TOP1_SHUFFLED, SHUFFLING_DROP),
    examples="clips",
    baselines=("single_frame", "c3d"),
    networks="other network",
    figures={
        "confusion": "Confusion matrix",
        "mistakes": "The most confident mistakes",
        "correct": "Correctly classified clips",
        "grad_cam": "Evidence for the predicted class",
        "prefix_accuracy": "Accuracy on the first frames",
        "per_class": "F1 of each class",
        "learning_curves": "Learning curves",
    },
    legend="""\
Top-1, top-5: share of the test clips whose class is the most probable one, among the five most
probable ones. In brackets: 95% confidence interval, by a bootstrap over test videos. Top-1 of
videos: accuracy of whole videos, each predicted by the mean probabilities of its clips. Log loss in
nats. Frames shuffled: top-1 if the frames of each clip are in random order; drop by shuffling: the
difference, that is, how much a model uses time. Training: wall time of all epochs. Inference:
milliseconds for each clip, predicted one by one / in batches, on this machine.
""",
)


def further_section(
    results: Mapping[str, PerExample], models: Mapping[str, str], *, resamples: int, seed: int
) -> Iterator[str]:
    """Compare runs of all domains that were tested on the same drawings.

    A rendered drawing has the key of the drawing in a data set of strokes or bitmaps. A section
    has the video runs with one set of keys, and all runs of other data sets that share some.

    Args:
        results: of all runs, by name.
        models: domain and model of each run, such as "video/c3d".
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
    """
    keys = {
        name: frozenset(result.keys.tolist())
        for name, result in results.items()
        if TOP1.name in result.statistics
    }
    video_runs: dict[frozenset[str], list[str]] = {}
    for name, own in keys.items():
        if models[name].startswith("video/"):
            video_runs.setdefault(own, []).append(name)
    for own, names in video_runs.items():
        others = {name: own & of for name, of in keys.items() if name not in names and own & of}
        if others:
            shared = sorted(frozenset.intersection(*others.values()))
            chosen = {name: _select(results[name], shared) for name in (*others, *names)}
            yield from _side_by_side(chosen, models, resamples=resamples, seed=seed)


def _side_by_side(
    results: Mapping[str, PerExample], models: Mapping[str, str], *, resamples: int, seed: int
) -> Iterator[str]:
    """A table of runs on the same examples, with the difference of each from the best run."""
    order = sorted(results, key=lambda name: (-results[name].value(TOP1), name))
    best = results[order[0]]
    yield "## The same drawings as strokes, bitmaps and videos\n"
    yield (
        f"All runs were tested on these {len(best.keys):,} drawings; none was trained on them. "
        f"Differences from {order[0]}, the best run, are paired. In brackets: 95% confidence "
        "intervals.\n"
    )
    yield "| Run | Model | Top-1 accuracy | Difference |"
    yield "|---|---|---:|---:|"
    for name in order:
        result = results[name]
        low, high = metric_interval(result, TOP1, resamples=resamples, seed=seed)
        cells = [name, f"ostinato/{models[name].replace('/', '/models/')}.py"]
        cells.append(f"{result.value(TOP1):.3f} [{low:.3f}, {high:.3f}]")
        if name == order[0]:
            cells.append("")
        else:
            found = compare(result, best, TOP1, resamples=resamples, seed=seed)
            cells.append(f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
        yield f"| {' | '.join(cells)} |"
    yield ""


def _select(result: PerExample, keys: Sequence[str]) -> PerExample:
    """The results of some examples, in the order of ``keys``; the first of equal keys."""
    rows = {key: row for row, key in reversed(list(enumerate(result.keys.tolist())))}
    index = np.array([rows[key] for key in keys])
    statistics = {name: values[index] for name, values in result.statistics.items()}
    return PerExample(result.keys[index], result.clusters[index], statistics)
