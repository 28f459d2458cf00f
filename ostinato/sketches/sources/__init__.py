"""Sources of drawings: a public function for each value of ``source`` in a fetch block.

Each is called as ``source(folder, scratch, seed, *, ...)``. It writes raw files and manifest.json
(`ostinato.sketches.formats.raw.RawManifest`) into the empty ``folder``. ``scratch`` keeps partial
downloads from one attempt to the next. ``seed`` determines all randomness.
"""

from ostinato.sketches.sources.doodles import doodles
from ostinato.sketches.sources.feedback import feedback
from ostinato.sketches.sources.folder import folder
from ostinato.sketches.sources.quickdraw import quickdraw
from ostinato.sketches.sources.sketchrnn import sketchrnn
from ostinato.sketches.sources.tfds import tfds

__all__ = ["doodles", "feedback", "folder", "quickdraw", "sketchrnn", "tfds"]
