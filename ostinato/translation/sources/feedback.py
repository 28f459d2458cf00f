"""Texts whose translation users have corrected, added to the pairs of another source."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from ostinato import store
from ostinato.data import served
from ostinato.data.files import expanded
from ostinato.translation.formats.parallel_text import FEEDBACK
from ostinato.units import Location

LOG = logging.getLogger(__name__)

Base = Annotated[dict[str, Any], AfterValidator(served.check_base("translation"))]
"""A fetch block of ostinato/translation/sources."""


def feedback(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    base: Base,
    log: Location,
    model: str,
    labels: Location | None,
) -> None:
    """Add the texts whose translation users have sent to the pairs of another source.

    They are served texts whose truth was sent (``POST /v1/feedback``) or is in a file. They are in
    the training or the validation split, never in the test split: `prepare` leaves those out whose
    source belongs to it (rule ``leak``). Left out and counted in the manifest: labels of no logged
    request, and repeated and contradicting ones.

    Args:
        folder: gets the files of the base, ``feedback.ndjson`` and the manifest.
        scratch: of the base.
        seed: of the base.
        base: a fetch block of ostinato/translation/sources: ``source``, and its parameters under
            its name.
        log: folder of the server's request log, with inputs (--log-inputs keep).
        model: its name in the log, such as translation.
        labels: a CSV or ndjson of further labels: request_id, item, truth.

    Raises:
        DataError: the log has no inputs, or a line of the labels is malformed.
    """
    served.fetch_base("translation", base, folder, scratch, seed)
    rows, counts = served.labelled_inputs(expanded(log), model, labels)
    pairs = zip((each["text"] for each in rows["input"]), rows["truth"], strict=True)
    kept = [[text, truth] for text, truth in pairs if isinstance(truth, str) and truth.strip()]
    counts |= {"unusable": len(rows) - len(kept), "added": len(kept)}
    LOG.info("feedback: %s", ", ".join(f"{n} {kind}" for kind, n in counts.items() if n) or "none")
    lines = "".join(f"{json.dumps(pair)}\n" for pair in kept)
    store.write_text(folder / FEEDBACK, lines)
    content = store.read_json(folder / "manifest.json")
    more = {"source": "feedback", "base": content["source"], "feedback": counts}
    store.write_json(folder / "manifest.json", {**content, **more})
