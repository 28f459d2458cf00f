"""What a client must know of a model: the kind of its inputs, and what they consist of."""

from collections.abc import Mapping

from pydantic import BaseModel

from ostinato.task import Json, Manifest, Service

KINDS = {
    "bars": "music",
    "count": "generation",
    "strokes": "strokes",
    "values": "series",
    "text": "text",
    "video": "video",
}
"""Kinds of inputs, by a field that only such inputs, or those before, have."""
DETAILS = ("languages", "frequency", "window", "horizon", "series")
"""Keys of a manifest's details that clients get as they are."""


def kind_of(input_type: type[BaseModel]) -> str:
    """The kind of a model's inputs, one of `KINDS`; empty for any other."""
    return next((kind for name, kind in KINDS.items() if name in input_type.model_fields), "")


def reads(manifest: Manifest, service: Service | None = None) -> dict[str, Json]:
    """What inputs consist of: classes, languages, the window of a series and its covariates.

    Args:
        manifest: of the prepared data.
        service: the model; its ``reads``, if it has any, take precedence.
    """
    details: Mapping[str, Json] = manifest.details
    found: dict[str, Json] = {"classes": manifest.classes} if manifest.classes else {}
    found |= {name: details[name] for name in DETAILS if name in details}
    for kind, codings in details.get("codings", {}).items():
        found[f"{kind}_covariates"] = [coding["column"] for coding in codings]
    return found | getattr(service, "reads", {})
