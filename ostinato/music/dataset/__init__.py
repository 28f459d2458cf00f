"""Prepared data sets of pieces."""

from ostinato.music.dataset.loader import Dataset, load
from ostinato.music.dataset.prepare import prepare

__all__ = ["Dataset", "load", "prepare"]
