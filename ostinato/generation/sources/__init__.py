"""Sources of drawings for generators: those of `ostinato.sketches.sources` that have strokes."""

from ostinato.sketches.sources.doodles import doodles
from ostinato.sketches.sources.folder import folder
from ostinato.sketches.sources.quickdraw import quickdraw
from ostinato.sketches.sources.sketchrnn import sketchrnn

__all__ = ["doodles", "folder", "quickdraw", "sketchrnn"]
