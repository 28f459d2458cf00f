"""Training drawings of generators, and the classifier of generated drawings."""

from ostinato.generation.dataset.loader import Dataset, Drawings, load
from ostinato.generation.dataset.prepare import prepare

__all__ = ["Dataset", "Drawings", "load", "prepare"]
