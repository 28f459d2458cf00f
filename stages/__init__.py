"""Entry points that DVC runs: each reads files, calls sequences, and writes files."""

import os
import sys
from collections.abc import Callable


def command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's arguments.

    An error that the project raises itself (a wrong parameter, a broken file, no network) says
    what to do, so it is printed without a traceback; any other keeps its traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up chatter
    try:
        main(*sys.argv[1:])
    except Exception as error:
        if not type(error).__module__.startswith("sequences."):
            raise
        sys.exit(f"{type(error).__name__}: {error}")
