"""Benchmarks: ``python -m bench.NAME``. They write to temporary folders, not to the checkout."""

import os
import tempfile

from ostinato import store

others = os.environ.get(store.FOLDERS, "")
os.environ[store.FOLDERS] = os.pathsep.join(filter(None, [others, tempfile.gettempdir()]))
