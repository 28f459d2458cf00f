"""What the stages share: the command line, the study, and the start of TensorFlow."""

import inspect
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ostinato
from ostinato import params, store
from ostinato.errors import OstinatoError
from ostinato.study import Study, check

PASSED = Path("scratch", "checked")  # an empty file for each params.yaml and code that passed


def command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's arguments.

    An error of the project (a wrong parameter, a broken file, no network) says what to do, so it is
    printed without a traceback. Any other error is a bug and keeps its traceback.
    """
    arguments = sys.argv[1:]
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError:
        words = [
            name.upper() if parameter.default is parameter.empty else f"[{name.upper()}]"
            for name, parameter in inspect.signature(main).parameters.items()
        ]
        module = Path(sys.argv[0]).with_suffix("")
        sys.exit(" ".join([f"usage: python -m {module.parent.name}.{module.name}", *words]))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("ostinato").setLevel(logging.INFO)
    try:
        main(*arguments)
    except OstinatoError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def key_of(stage: str) -> str:
    """The name of the data set, run or ensemble in DVC's name of a stage: ``train@NAME``.

    DVC runs a stage with this name in the variable DVC_STAGE, so no name is part of a shell
    command. By hand, the name of the data set, run or ensemble is enough.

    Raises:
        ParamsError: it is not a valid name.
    """
    return params.check_name(stage.rpartition("@")[2])


def load_study(path: str) -> Study:
    """Load a study and check all of it.

    The check imports every model, which takes seconds, so it is skipped where the same file has
    passed it with the same code.

    Args:
        path: of its params.yaml.

    Raises:
        ParamsError: lists all that is wrong.
    """
    study = Study.load(path)
    code = Path(str(ostinato.__file__)).parent
    files = sorted(code.rglob("*.py"))
    names = [file.relative_to(code).as_posix() for file in files]
    passed = PASSED / store.digest(repr(study.params), names, *files)
    if not passed.exists():
        start_tensorflow()
        check(study.params)
        PASSED.mkdir(parents=True, exist_ok=True)
        passed.touch()
    return study


def start_tensorflow() -> None:
    """Import TensorFlow, and hide what its libraries print during the import, unless it fails.

    They write to the file descriptor before any of their settings is read. Nothing is hidden where
    the environment sets TF_CPP_MIN_LOG_LEVEL.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices("GPU")  # the search for drivers
        except BaseException:
            output.seek(0)
            os.write(stderr, output.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
