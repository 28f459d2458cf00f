"""Entry points that DVC runs: each reads files, calls sequences, and writes files."""

import os
import sys
import tempfile
from collections.abc import Callable


def command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's arguments.

    An error that the project raises itself (a wrong parameter, a broken file, no network) says
    what to do, so it is printed without a traceback; any other keeps its traceback.
    """
    try:
        main(*sys.argv[1:])
    except Exception as error:
        if not type(error).__module__.startswith("sequences."):
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def start_tensorflow() -> None:
    """Import TensorFlow, and hold back what its libraries print then, unless it fails.

    They write to the file descriptor before any setting of theirs counts. Where the environment
    sets TF_CPP_MIN_LOG_LEVEL, somebody wants to read it.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices("GPU")  # the search for drivers
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
