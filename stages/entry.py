"""What the stages share: the command line and the study."""

import errno
import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import ostinato
from ostinato import params, store
from ostinato.errors import OstinatoError
from ostinato.study import Study, check
from ostinato.training.imports import import_keras_quietly

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)  # a folder of another user, or read-only
PASSED = Path("scratch", "checked")  # an empty file for each params.yaml and code that passed


def command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's arguments.

    An error of the project (a wrong parameter, a broken file, no network) says what to do, so it is
    printed without a traceback. So is a full disk, and a file that this user has no right to. Any
    other error is a bug and keeps its traceback.
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
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in NOT_ALLOWED:
            sys.exit(f"{where}{error.strerror}: user {os.getuid()} needs the right to it")
        if error.errno not in DISK_IS_FULL:
            raise
        sys.exit(f"{where}{error.strerror}: free some space in {Path.cwd()}, and run again")


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
        import_keras_quietly()
        check(study.params, study.path)
        PASSED.mkdir(parents=True, exist_ok=True)
        passed.touch()
    return study
