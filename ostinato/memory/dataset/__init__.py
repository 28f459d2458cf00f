"""Memory tasks: `prepare` splits them, `load` reads a prepared data set."""

from ostinato.memory.dataset.loader import Dataset, load
from ostinato.memory.dataset.prepare import prepare

__all__ = ["Dataset", "load", "prepare"]
