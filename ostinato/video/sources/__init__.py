"""Sources of videos, one function for each value of ``source``.

A source writes one folder of videos per class, and `manifest`'s manifest.json.
"""

from ostinato.video.sources.drawings import animated_sketches, order
from ostinato.video.sources.own_videos import folder
from ostinato.video.sources.tfds_videos import tfds

__all__ = ["animated_sketches", "folder", "order", "tfds"]
