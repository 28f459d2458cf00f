"""Drawings that users have labelled, added to those of another source."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from ostinato import store
from ostinato.data import served
from ostinato.data.files import expanded
from ostinato.errors import SourceError
from ostinato.sketches.formats import quickdraw, strokes
from ostinato.sketches.formats.raw import Form, RawManifest
from ostinato.sketches.sources.files import raw_file
from ostinato.task import Json
from ostinato.units import Location

LOG = logging.getLogger(__name__)
FILE = "feedback.ndjson"


Base = Annotated[dict[str, Any], AfterValidator(served.check_base("sketches"))]
"""A fetch block of ostinato/sketches/sources."""


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
    """Add the drawings that users have labelled to the drawings of another source.

    They are served drawings whose truth was sent (``POST /v1/feedback``) or is in a file. Labelled
    drawings are in the training or the validation split, never in the test split: no user can
    change what a model is judged by. Left out and counted in the manifest: labels of no logged
    request, repeated and contradicting labels, also of equal drawings, and names of no category of
    the base.

    Args:
        folder: gets the files of the base, ``feedback.ndjson`` and the manifest.
        scratch: of the base.
        seed: of the base.
        base: a fetch block of ostinato/sketches/sources: ``source``, and its parameters under its
            name. It must provide ndjson.
        log: folder of the server's request log, with inputs (--log-inputs keep).
        model: its name in the log, such as sketches.
        labels: a CSV or ndjson of further labels: request_id, item, truth.

    Raises:
        SourceError: the base provides no ndjson.
        DataError: the log has no inputs, or a line of the labels is malformed.
    """
    served.fetch_base("sketches", base, folder, scratch, seed)
    manifest = RawManifest.read(folder)
    if manifest.format != "ndjson" or manifest.form is None:
        raise SourceError(
            f"base: {manifest.source} provides {manifest.format}, to which drawings cannot be "
            "added; use a source of ndjson, such as folder or quickdraw"
        )
    rows, counts = served.labelled_inputs(expanded(log), model, labels)
    found: dict[str, set[str]] = defaultdict(set)  # categories by drawing
    drawings: dict[str, Mapping[str, Json]] = {}
    counts |= {"added": 0, "unknown category": 0, "equal drawings": 0}
    for drawing, truth in zip(rows["input"], rows["truth"], strict=True):
        if not isinstance(truth, str):
            counts["unusable"] += 1
        elif manifest.categories and truth not in manifest.categories:
            counts["unknown category"] += 1
        else:
            key = _key(drawing)
            counts["equal drawings"] += truth in found[key]
            found[key].add(truth)
            drawings[key] = drawing
    lines = []
    for key, names in found.items():
        if len(names) > 1:
            counts["contradicting"] += len(names)
            continue
        (name,) = names
        lines.append(quickdraw.dump_line(key, name, _strokes(drawings[key], manifest.form)))
    counts["added"] = len(lines)
    LOG.info("feedback: %s", ", ".join(f"{n} {kind}" for kind, n in counts.items() if n) or "none")
    files = list(manifest.files)
    if lines:
        store.write_bytes(folder / FILE, b"".join(lines))
        files.append(replace(raw_file(folder / FILE, None, None), tested=False))
    replace(manifest, source="feedback", files=files, feedback=counts).write(folder)


def _key(drawing: Mapping[str, Json]) -> str:
    """The key of a drawing: a digest of its strokes, without times."""
    ink = [[stroke[0], stroke[1]] for stroke in drawing["strokes"]]
    return f"feedback-{blake2b(repr(ink).encode(), digest_size=8).hexdigest()}"


def _strokes(drawing: Mapping[str, Json], form: Form) -> list[Json]:
    """The strokes in the form of the base's files."""
    if form == "raw" or drawing.get("simplified"):
        return list(drawing["strokes"])
    return [
        track.T.tolist() for track in strokes.simplify(quickdraw.read_strokes(drawing["strokes"]))
    ]
