"""The data set of clips: `prepare` writes it from raw videos, `load` opens it."""

from ostinato.video.dataset.loader import ClipDataset, Clips, load
from ostinato.video.dataset.prepare import prepare

__all__ = ["ClipDataset", "Clips", "load", "prepare"]
