"""From raw series to a prepared data set, and from that to windows for training."""

from ostinato.forecasting.dataset.loader import SeriesDataset, load
from ostinato.forecasting.dataset.prepare import prepare
from ostinato.forecasting.dataset.windows import Windows

__all__ = ["SeriesDataset", "Windows", "load", "prepare"]
