"""The metrics of classified drawings."""

from collections.abc import Mapping

from ostinato.evaluation.classification import LOG_LOSS, MAP3, TOP1, TOP5
from ostinato.task import Metric

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (TOP1, TOP5, MAP3, LOG_LOSS)}
"""Every metric with statistics per example, for gates, intervals and comparisons."""
