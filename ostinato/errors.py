"""Errors of the project: each says what is wrong, where, and what to do.

Anything that is no `OstinatoError` is a bug and keeps its traceback.
"""

import re

INPUT_NUMBER = re.compile(r"(\w+ |inputs\[)(\d+)(?=\]|:)")
"""The start of the message of a `RequestError`."""


def masked(text: str) -> str:
    """``text`` without the user and password of any address in it."""
    return re.sub(r"//[^/\s]*@", "//***@", text)


class OstinatoError(Exception):
    """The base of all errors that a user can act on, which are printed without a traceback."""


class ParamsError(OstinatoError, ValueError):
    """A value of params.yaml does not fit the signature that receives it."""


class SettingError(OstinatoError, ValueError):
    """An environment variable has a value that cannot be used."""


class StoreError(OstinatoError, ValueError):
    """A path may not be written or removed, or a file is broken."""


class MissingFileError(OstinatoError, FileNotFoundError):
    """A file that another stage writes does not exist."""


class DownloadError(OstinatoError, RuntimeError):
    """A file cannot be downloaded."""


class UnreachableError(DownloadError):
    """The host does not answer: no network, no such host, or nothing listens on the port."""


class SourceError(OstinatoError, ValueError):
    """A data source cannot provide the requested data."""


class DataError(OstinatoError, ValueError):
    """Raw data cannot be prepared."""


class MalformedError(OstinatoError, ValueError):
    """A part of a raw file, such as a line, is malformed; the message is the reason."""


class ArchiveError(OstinatoError, ValueError):
    """An ``.npz`` archive does not have SketchRNN's layout; none of its code was run."""


class RejectedVideoError(OstinatoError, ValueError):
    """A video cannot be used.

    Args:
        reason: one of the reject reasons of `ostinato.video.formats.reading`.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class TrainingError(OstinatoError, RuntimeError):
    """Training cannot start or continue."""


class EnsembleError(OstinatoError, ValueError):
    """The members of an ensemble do not fit together."""


class EvaluationError(OstinatoError, ValueError):
    """A model cannot be evaluated."""


class RequestError(OstinatoError, ValueError):
    """A model cannot answer a request; a server replies with status 400 or 422.

    If one input is to blame, the message begins with its number, from 0: "drawing 3: no ink", or
    "inputs[3].text: Field required".
    """

    @property
    def item(self) -> int | None:
        """The number of the input; None where the message has none."""
        found = INPUT_NUMBER.match(str(self))
        return int(found[2]) if found else None

    def renumbered(self, item: int) -> "RequestError":
        """The same error of an input that has another number."""
        return RequestError(INPUT_NUMBER.sub(rf"\g<1>{item}", str(self), count=1))


class TrackingError(OstinatoError, RuntimeError):
    """MLflow's store accepts a record neither now nor later; the message says what to change."""


class DecodingError(OstinatoError, ValueError):
    """The options of a search do not fit each other or the model."""


class FlowError(OstinatoError, RuntimeError):
    """A flow, or a command that it runs, cannot start or continue."""


class RegistryError(OstinatoError, RuntimeError):
    """The model registry does not answer, or does not hold the requested version."""


class MissingFilesError(RegistryError):
    """The registry has a version whose files are gone."""
