"""The metrics of video classification."""

from collections.abc import Mapping

from ostinato.evaluation.classification import LOG_LOSS, TOP1, TOP5
from ostinato.task import Metric

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (TOP1, TOP5, LOG_LOSS)}
"""The metrics of single clips."""

TOP1_VIDEO = Metric("top1_video", "Top-1 of videos")
"""Top-1 accuracy of whole videos, each predicted by the mean probabilities of its clips."""

TOP1_SHUFFLED = Metric("top1_shuffled", "Top-1, frames shuffled")
"""Top-1 accuracy of clips whose frames are in random order."""

SHUFFLING_DROP = Metric("shuffling_drop", "Drop by shuffling")
"""Top-1 accuracy minus `TOP1_SHUFFLED`: how much a model uses the order of the frames."""
