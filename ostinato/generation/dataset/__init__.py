"""Drawings that generators learn from, and the classifier that judges what they draw."""

from ostinato.generation.dataset.loader import Dataset, Drawings, load
from ostinato.generation.dataset.prepare import prepare

__all__ = ["Dataset", "Drawings", "load", "prepare"]
