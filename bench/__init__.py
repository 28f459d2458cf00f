"""Benchmarks: ``python -m bench.NAME``. They write to temporary folders, not to the checkout."""

import os
import tempfile

from sequences import store

os.environ.setdefault(store.FOLDERS, tempfile.gettempdir())
