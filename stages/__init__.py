"""Entry points that DVC runs: each reads files, calls ostinato, and writes files."""

import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ostinato
from ostinato import params, store

PASSED = Path("scratch", "checked")  # an empty file for each params.yaml and code that passed


def command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's arguments.

    An error that the project raises itself (a wrong parameter, a broken file, no network) says
    what to do, so it is printed without a traceback; any other keeps its traceback.
    """
    arguments = sys.argv[1:]
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError:
        module = Path(sys.argv[0]).stem
        words = [
            name.upper() if parameter.default is parameter.empty else f"[{name.upper()}]"
            for name, parameter in inspect.signature(main).parameters.items()
        ]
        sys.exit(" ".join(["usage: python -m", f"stages.{module}", *words]))
    try:
        main(*arguments)
    except Exception as error:
        if not type(error).__module__.startswith("ostinato."):
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def key_of(stage: str) -> str:
    """The name of the data set, run or ensemble in DVC's name of a stage: ``train@NAME``.

    DVC runs a stage with this name in the variable DVC_STAGE, so no name is ever part of a shell
    command. By hand, the name of the data set, run or ensemble alone will do.

    Raises:
        ParamsError: it cannot be a name.
    """
    return params.check_name(stage.rpartition("@")[2])


def load_study() -> dict[str, Any]:
    """The content of params.yaml, after a check of all of it (ostinato/study.py).

    The check imports every model, which takes seconds, so it is left out where the same file has
    passed it with the same code.

    Raises:
        ParamsError: lists all that is wrong.
    """
    values = params.load()
    code = Path(str(ostinato.__file__)).parent
    files = sorted(code.rglob("*.py"))
    names = [file.relative_to(code).as_posix() for file in files]
    passed = PASSED / store.digest(repr(values), names, *files)
    if not passed.exists():
        start_tensorflow()
        from ostinato import study

        study.check(values)
        PASSED.mkdir(parents=True, exist_ok=True)
        passed.touch()
    return values


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
