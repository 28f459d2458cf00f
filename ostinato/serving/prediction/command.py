"""The command ``ostinato predict``."""

import argparse
import logging
import sys
import time

from ostinato.serving.loading import source
from ostinato.serving.prediction.parts import Reject, rejects_of
from ostinato.serving.prediction.predict import predict
from ostinato.serving.settings import read_options

NOTHING_ANSWERED = 1
INTERRUPTED = 130


def run(parsed: argparse.Namespace) -> int:
    """Predict the inputs of files; return the exit code: 1 if OUTPUT has no row.

    Args:
        parsed: of `ostinato.serving.settings.add_predict_arguments`.

    Raises:
        OstinatoError: nothing was written.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    started = time.monotonic()
    try:
        summary = predict(
            source(parsed.model),
            parsed.input,
            parsed.output,
            options=read_options(parsed.set),
            overwrite=parsed.overwrite,
        )
    except KeyboardInterrupt:
        print("ostinato: interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    total = summary.answered + summary.rejected
    seconds = time.monotonic() - started
    print(
        f"{parsed.output}: answered {summary.answered:,} of {total:,} {summary.noun}, "
        f"{summary.rows:,} rows, in {seconds:,.1f} s"
    )
    if summary.rejected:
        listed = "".join(f"\n  {shown(reject)}" for reject in summary.rejects)
        more = "\n  ..." if summary.rejected > len(summary.rejects) else ""
        print(
            f"ostinato: {summary.rejected:,} were rejected, see {rejects_of(parsed.output)}:"
            f"{listed}{more}",
            file=sys.stderr,
        )
    if summary.answered:
        return 0
    reason = "nothing could be answered" if total else f"found no {summary.noun}"
    print(f"ostinato: {parsed.input}: {reason}", file=sys.stderr)
    return NOTHING_ANSWERED


def shown(reject: Reject) -> str:
    """A reject in one line."""
    return ": ".join([", ".join(filter(None, (reject.file, reject.place))), reject.reason])
