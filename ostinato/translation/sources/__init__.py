"""Sources of parallel text: one function for each value of ``source``.

``source(folder, scratch, seed, *, ...)`` fills the empty ``folder`` with raw files and a
``manifest.json``. ``scratch`` keeps partial downloads between attempts; no source uses ``seed``.
"""

from ostinato.translation.sources.feedback import feedback
from ostinato.translation.sources.gettext import gettext
from ostinato.translation.sources.moses import moses, multi30k
from ostinato.translation.sources.single_file import tmx, tsv
from ostinato.translation.sources.tfds import tfds

__all__ = ["feedback", "gettext", "moses", "multi30k", "tfds", "tmx", "tsv"]
