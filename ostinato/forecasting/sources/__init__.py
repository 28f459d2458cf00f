"""Sources of series: one public function for each value of ``fetch.source``.

Each writes raw files, byte for byte as they were published, and a manifest.json that says how they
are read (`raw.write_manifest`). Cleaning is left to ``dataset.prepare``.

A column of a file is the target (forecast), a past covariate (known up to the origin, such as
another series), a future covariate (known for the horizon too, such as a timetable) or a static
covariate (one value for a series).
"""

from ostinato.forecasting.sources.dynamics import lorenz, mackey_glass, narma
from ostinato.forecasting.sources.embedded import seattle
from ostinato.forecasting.sources.files import csv, cta, m4
from ostinato.forecasting.sources.from_tfds import tfds

__all__ = ["csv", "cta", "lorenz", "m4", "mackey_glass", "narma", "seattle", "tfds"]
