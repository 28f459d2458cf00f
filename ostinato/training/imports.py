"""Import Keras and TensorFlow without their log lines and without packages that are not used."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from ostinato.errors import TrainingError
from ostinato.training import machine

OPTIONAL = ("matplotlib", "sklearn")
"""Packages that Keras imports where they are installed, for functions that Ostinato does not use:
``keras.wrappers`` (scikit-learn) and ``keras.visualization`` (matplotlib)."""

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LOG_PREFIX = re.compile(r"^(?:[IWEF]\d{4} |\d{4}-\d\d-\d\d )[\d:.]+:?\s+(?:\d+ |[IWEF] )?")  # time
ON_GPUS = re.compile(r"gpu|cuinit|cuda|cudnn|nvidia|rocm|driver", re.IGNORECASE)


def import_keras_quietly() -> None:
    """Import Keras and TensorFlow; print their log lines only if the import fails.

    Call it before the first ``import keras``; afterwards it does nothing. While Keras is imported,
    `OPTIONAL` packages count as not installed, which takes about 30 % off the import time.
    Later they can be imported as usual, but ``keras.wrappers`` and ``keras.visualization`` raise
    an error that names the package. A package that is imported already stays available to Keras.

    Other threads must not import `OPTIONAL` packages during the call. If the environment sets
    TF_CPP_MIN_LOG_LEVEL to 0 or 1, the log lines are printed.

    Raises:
        TrainingError: the variable OSTINATO_GPU requires a GPU, and TensorFlow sees none; with its
            log lines on GPUs.
    """
    if "keras" in sys.modules:
        return
    required = machine.gpu_required()
    with _not_installed(*OPTIONAL), _stderr_on_error():
        import tensorflow

        gpus = tensorflow.config.list_physical_devices("GPU")  # logs the search for drivers
        import keras  # noqa: F401
    if required and not gpus:
        raise TrainingError(
            "TensorFlow sees no GPU, and this process needs one "
            f"({machine.GPU}={machine.REQUIRED}). TensorFlow's log:\n{gpu_log()}\n"
            "Install the driver and `pip install 'tensorflow[and-cuda]'`, or allow the CPU: "
            "set `gpu: preferred` for the stage in flows.stages of params.yaml"
        )


def gpu_log() -> str:
    """What TensorFlow logs on GPUs when it is imported with all of its log lines.

    Another process imports it: the log level of this one cannot be changed any more.
    """
    code = "import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, LOG_LEVEL: "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [LOG_PREFIX.sub("", line).strip() for line in done.stderr.splitlines()]
    on_gpus = [line for line in lines if ON_GPUS.search(line)]
    return "\n".join(f"  {line}" for line in dict.fromkeys(on_gpus)) or "  (no line on GPUs)"


@contextlib.contextmanager
def _not_installed(*packages: str) -> Iterator[None]:
    """Make imports of packages fail that are not imported yet, as if they were not installed."""
    hidden = [package for package in packages if package not in sys.modules]
    # None in sys.modules is Python's documented way to make an import fail.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            if sys.modules[package] is None:
                del sys.modules[package]


@contextlib.contextmanager
def _stderr_on_error() -> Iterator[None]:
    """Drop the block's output on standard error, unless the block raises.

    TensorFlow's C++ code writes to the file descriptor before any of its settings apply, so the
    descriptor is redirected. If the environment asks for warnings or more, nothing is dropped.
    """
    if os.environ.setdefault(LOG_LEVEL, "2") in ("0", "1"):  # 2: errors only, from here on
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            yield
        except BaseException:
            output.seek(0)
            os.write(stderr, output.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
