"""The arguments of `ostinato serve`, with types and bounds, and those of `ostinato predict`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ostinato.errors import ParamsError
from ostinato.task import Json

API_KEYS = "OSTINATO_API_KEYS"
"""Environment variable: keys that clients must send, separated by commas; unset: none is needed."""

LOG_KEY = "OSTINATO_LOG_KEY"
"""Environment variable: the key of the hashes in the request log."""

Privacy = Literal["keep", "hash", "omit"]
Milliseconds = Annotated[float, Field(ge=0, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Megabytes = Annotated[float, Field(gt=0, le=1_000_000)]
Items = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """How models are served. The defaults suit two cores and one person on the same machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] = Field(
        min_length=1,
        description="registered models as NAME@ALIAS (NAME is NAME@champion), or folders of "
        "results such as results/RUN",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0: a free one")
    workers: int = Field(1, ge=1, le=256, description="processes; each loads all models")
    batch_size: Items = Field(64, description="inputs that a model answers at once, at most")
    batch_wait_ms: Milliseconds = Field(
        0.0,
        description="time that a request waits for others to share its batch, while several ask",
    )
    max_body_mb: Megabytes = Field(8.0, description="size of a request's body, at most")
    max_items: Items = Field(256, description="inputs of one request, at most")
    max_queue: Items = Field(1024, description="inputs that wait for a model, at most")
    timeout_s: Seconds = Field(30.0, description="time from a request's start to its answer")
    poll_s: Seconds = Field(10.0, description="interval at which the aliases are read again")
    cors_origins: tuple[str, ...] = Field(
        (), description="origins whose pages may call the server, such as https://example.org"
    )
    log_folder: Path | None = Field(
        None, description="folder of the request log and of feedback; without it nothing is kept"
    )
    log_share: float = Field(1.0, ge=0, le=1, description="share of the requests that is logged")
    log_inputs: Privacy = Field("keep", description="what the log has of inputs")
    log_outputs: Privacy = Field("keep", description="what the log has of answers")
    log_interval_s: Seconds = Field(
        5.0, description="interval at which the log is written: what a kill loses, at most"
    )
    log_max_mb: Megabytes = Field(1000.0, description="size of the log, at most")

    monitoring: Path = Field(
        Path("monitoring"), description="folder of the monitor's reports, if there is one"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_items > self.max_queue:
            raise ValueError(
                f"max_items {self.max_items} is more than max_queue {self.max_queue}: such a "
                "request would never be accepted"
            )
        return self


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting; ``models`` are the positional arguments."""
    for name, field in Settings.model_fields.items():
        text = str(field.description)
        if name == "models":
            parser.add_argument(name, nargs="+", metavar="MODEL", help=text)
            continue
        options: dict[str, Any] = {"default": argparse.SUPPRESS}
        if get_origin(field.annotation) is Literal:
            options["choices"] = get_args(field.annotation)
        elif isinstance(field.default, tuple):
            options |= {"action": "append", "metavar": "ORIGIN"}
        else:
            options["metavar"] = name.rpartition("_")[2].upper()
        shown = "" if field.default in (None, ()) else f" (default: {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=text + shown, **options)


def from_arguments(parsed: argparse.Namespace) -> Settings:
    """The settings of a command line.

    Raises:
        ParamsError: a value is out of its bounds; names the option.
    """
    values = {name: value for name, value in vars(parsed).items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        (first, *_) = error.errors()
        option = "".join(f"--{str(part).replace('_', '-')}: " for part in first["loc"][:1])
        raise ParamsError(f"serve: {option}{first['msg']}, found {first['input']!r}") from None


PREDICT = """\
Predict the inputs of files, without a server, and write the responses as a table. The same command
continues after a kill. Beside OUTPUT it writes OUTPUT.json (model, input with digests, counts)
and OUTPUT.rejects.ndjson (rejected inputs with reasons). More: docs/prediction.md."""

PREDICT_OPTIONS = """\
options for -S:
  drawings  top_k=3           classes in the response; 0: all
            simplified=true   coordinates are in 0 to 255 and simplified, as Google's
  series    date=day          column of the dates (default: date); several: '["day", "hour"]'
            date_format=...   as for strftime (default: ISO 8601)
            series=store      column of the series' names (default: the file is one series)
            target=units      column of the values (default: value)
  texts     top_k=3           translations in the response; 0: all
            column=2          of a tab-separated table, from 1 (default: 1 for .tsv, else the line)
  videos    top_k=3           classes in the response; 0: all
  requests  svg=true          each drawing of a generator as a picture, too
            midi=false        no MIDI file beside the notes of a written piece

exit code: 0: OUTPUT has rows, perhaps not for all inputs; 1: OUTPUT has none; 2: an error, and no
OUTPUT was written; 130: interrupted.

examples:
  python -m ostinato predict sketches drawings/ predictions.parquet -S top_k=3
  python -m ostinato predict results/weather-linear sales.csv forecasts.csv -S target=units
  python -m ostinato predict translation@challenger messages/ translations.ndjson"""


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ostinato predict`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = PREDICT, PREDICT_OPTIONS
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a registered model as NAME@ALIAS (NAME is NAME@champion), or a folder of results "
        "such as results/RUN",
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        type=Path,
        help="a file, or a folder with its subfolders: .ndjson (drawings, or requests to a "
        "generator), .csv or .parquet (series), .txt or .tsv (texts, a line each), or videos",
    )
    parser.add_argument(
        "output", metavar="OUTPUT", type=Path, help="a file: .parquet, .csv or .ndjson"
    )
    parser.add_argument(
        "-S",
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of the model or of the reader of the files, see below",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace OUTPUT if it exists, and what another, unfinished run has left",
    )


def read_options(texts: Sequence[str]) -> dict[str, Json]:
    """The options of a command line, each ``NAME=VALUE``: JSON, else the text itself.

    Raises:
        ParamsError: one has another form, or is given twice.
    """
    options: dict[str, Json] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ParamsError(f"predict: --set: found {text!r}; expected NAME=VALUE")
        if name in options:
            raise ParamsError(f"predict: --set: found {name!r} twice; expected one value")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
