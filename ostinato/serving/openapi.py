"""The types of requests to a model, and the document that describes them: /openapi.json."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from ostinato.serving.loading import Interface
from ostinato.serving.requests import MAX_OPTION

PLACE = "#/components/schemas/{model}"
ERRORS = {
    "401": "no API key, where the server has some",
    "413": "the body is too large",
    "415": "the body is not JSON, or is compressed",
    "422": "an input is wrong; the details name item and field",
    "429": "too many inputs wait; Retry-After says when to try again",
    "503": "the model is being loaded, or there was no answer in time",
}


def predict_path(name: str) -> str:
    """The path of a model."""
    return f"/v1/models/{name}:predict"


def request_type(name: str, interface: Interface, max_items: int) -> type[BaseModel]:
    """The type of the body of a request to a model.

    Args:
        name: of the model.
        interface: of the model.
        max_items: inputs of a request, at most.
    """
    title = "".join(part.capitalize() for part in re.split(r"\W+", name))
    options: dict[str, Any] = {
        key: (bool, Field(default, strict=True))
        if isinstance(default, bool)
        else (type(default), Field(default, strict=True, ge=0, le=MAX_OPTION))
        for key, default in interface.options.items()
    }
    strict = ConfigDict(extra="forbid")
    option_type = create_model(f"{title}Params", __config__=strict, **options)
    inputs = Field(min_length=1, max_length=max_items, description="one or many")
    return create_model(
        f"{title}Request",
        __config__=strict,
        inputs=(list[interface.Input], inputs),  # type: ignore[name-defined]
        params=(option_type | None, Field(None, description="options")),
    )


def document(
    app: FastAPI, endpoints: Mapping[str, Any], feedback: type[BaseModel]
) -> dict[str, Any]:
    """The OpenAPI document of the server.

    Args:
        app: with the routes.
        endpoints: the models by name, each with ``request_type``, ``interface`` and ``model``.
        feedback: type of the body of a feedback.
    """
    content = get_openapi(title=app.title, version="1", summary=app.summary, routes=app.routes)
    types: list[Any] = [(feedback, "validation")]
    for each in endpoints.values():
        types += [(each.request_type, "validation"), (each.interface.Response, "serialization")]
    places, definitions = models_json_schema(types, ref_template=PLACE)
    content.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    error = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {"type": "array", "items": {"type": "object"}},
                },
            }
        },
    }
    content["components"]["schemas"]["Error"] = error
    wrong = {
        status: {"description": text, "content": _json({"$ref": PLACE.format(model="Error")})}
        for status, text in ERRORS.items()
    }
    first = next(iter(endpoints))
    for name, each in endpoints.items():
        example = each.model.loaded.example if each.model.loaded else each.interface.example
        body = _json(places[each.request_type, "validation"])
        if example is not None:
            body["application/json"]["example"] = {"inputs": [example]}
        responses = {"type": "array", "items": places[each.interface.Response, "serialization"]}
        named = {key: {"type": "string"} for key in ("model", "version", "request_id")}
        answer = {"type": "object", "properties": {**named, "responses": responses}}
        paths = {predict_path(name): (f"Ask the model {name}", answer)}
        if name == first:
            predictions = {"type": "object", "properties": {"predictions": responses}}
            paths["/invocations"] = (f"Ask the model {name} as MLflow's server", predictions)
        for path, (summary, schema) in paths.items():
            right = {"description": "a response for each input", "content": _json(schema)}
            content["paths"][path] = {
                "post": {
                    "summary": summary,
                    "description": each.interface.about,
                    "requestBody": {"required": True, "content": body},
                    "responses": {"200": right, **wrong},
                }
            }
    operation = content["paths"]["/v1/feedback"]["post"]
    body = _json(places[feedback, "validation"])
    operation["requestBody"] = {"required": True, "content": body}
    operation["responses"] = {"202": {"description": "it will be kept"}, **wrong}
    return content


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
