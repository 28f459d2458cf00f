"""Raw drawings to a clean and split data set (`prepare`), and that data set (`load`)."""

from ostinato.sketches.dataset.loader import Bitmaps, Dataset, Drawings, load
from ostinato.sketches.dataset.prepare import prepare
from ostinato.sketches.dataset.splits import split_of

__all__ = ["Bitmaps", "Dataset", "Drawings", "load", "prepare", "split_of"]
