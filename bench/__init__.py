"""Benchmarks: ``python -m bench list``, ``python -m bench run NAME``.

They write to temporary folders, not to the checkout. The library writes only into the checkout
unless `store.FOLDERS` allows another folder.
"""

import os
import tempfile

from ostinato import store

allowed = os.environ.get(store.FOLDERS, "")
os.environ[store.FOLDERS] = os.pathsep.join(filter(None, [allowed, tempfile.gettempdir()]))
