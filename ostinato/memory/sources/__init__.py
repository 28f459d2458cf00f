"""Sources of the memory tasks: a public function for each value of ``source`` in a fetch block.

Each is called as ``source(folder, scratch, seed, *, ...)`` and writes manifest.json
(`ostinato.memory.formats.examples.RawManifest`). A task that is drawn without end has no other
file; the others write examples.npz. ``seed`` determines all randomness.
"""

from ostinato.memory.sources.endless import (
    adding,
    associative_recall,
    copy,
    parity,
    repeat_copy,
    temporal_order,
)
from ostinato.memory.sources.pictures import digits, mnist1d, mnist1d_file
from ostinato.memory.sources.series import lorenz, mackey_glass, narma

__all__ = [
    "adding",
    "associative_recall",
    "copy",
    "digits",
    "lorenz",
    "mackey_glass",
    "mnist1d",
    "mnist1d_file",
    "narma",
    "parity",
    "repeat_copy",
    "temporal_order",
]
