"""
The callables as OpenAPI 3.1: for client teams, for tools, and for tests that try every request.

Made from the same structs that requests are read with, so that both cannot differ.  What no schema
says, as that mode "mirror" takes no body, stands in the descriptions.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from storemirror.gateway.callables import CALLABLES, CallableSpec
from storemirror.gateway.protocol import CallStatus

#: Counted up when what is installed in apps would no longer work; never so far.
API_VERSION: Final = "1.0.0"

_TEMPLATE: Final = "#/components/schemas/{name}"
_ERROR: Final = "Error"

#: Gives the description of each field of a struct, by its name on the wire.
Describe = Callable[[type[msgspec.Struct]], Mapping[str, str]]


def openapi(describe: Describe | None = None) -> dict[str, Any]:
    """
    Describe all callables.

    Args:
        describe: see `Describe`; None leaves fields undescribed.

    Returns:
        An OpenAPI 3.1 document, as plain JSON.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "StoreMirror gateway",
            "version": API_VERSION,
            "description": "Firebase callables: POST, JSON, `data` in, `result` or `error` out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"idToken": []}],
        "paths": {f"/{name}": {"post": _operation(spec)} for name, spec in CALLABLES.items()},
        "components": {
            "schemas": {**_schemas(describe), _ERROR: _error_schema()},
            "securitySchemes": {
                "idToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The user's Firebase ID token; of a service, Google's.",
                }
            },
        },
    }


def _operation(spec: CallableSpec[Any, Any]) -> dict[str, Any]:
    data: dict[str, Any] = _reference(spec.request)
    if not any(field.required for field in msgspec.structs.fields(spec.request)):
        data = {"anyOf": [data, {"type": "null"}]}
    return {
        "operationId": spec.name,
        "summary": spec.what,
        "tags": [spec.feature.value],
        "requestBody": {"required": True, "content": _json("data", data)},
        "responses": {
            "200": {
                "description": "The result.",
                "content": _json("result", _reference(spec.result)),
            },
            "default": {
                "description": "Why there is no result; the HTTP status follows from `status`.",
                "content": _json("error", {"$ref": _TEMPLATE.format(name=_ERROR)}),
            },
        },
    }


def _reference(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _TEMPLATE.format(name=struct.__name__)}


def _json(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give the content of a body that is an object of one name."""
    return {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {name: schema},
                "required": [name],
                "additionalProperties": False,
            }
        }
    }


def _error_schema() -> dict[str, Any]:
    return {
        "title": _ERROR,
        "description": "Why there is no result.",
        "type": "object",
        "properties": {
            "status": {
                "enum": [status.value for status in CallStatus if status is not CallStatus.OK]
            },
            "message": {"type": "string"},
            "details": {"description": "Only where there is more to say."},
        },
        "required": ["status", "message"],
        "additionalProperties": False,
    }


def _schemas(describe: Describe | None) -> Mapping[str, Any]:
    """Give the schema of every struct that a callable takes or gives, by its name."""
    kinds = [kind for spec in CALLABLES.values() for kind in (spec.request, spec.result)]
    _, components = msgspec.json.schema_components(dict.fromkeys(kinds), ref_template=_TEMPLATE)
    schemas: dict[str, Any] = dict(sorted(components.items()))
    if describe is not None:
        for struct in _structs(kinds):
            for name, text in describe(struct).items():
                if text:
                    schemas[struct.__name__]["properties"][name].setdefault("description", text)
    return schemas


def _structs(kinds: list[type[msgspec.Struct]]) -> Iterator[type[msgspec.Struct]]:
    """Walk the structs, and those inside of them, each once."""
    seen: set[type[msgspec.Struct]] = set()
    waiting = list(kinds)
    while waiting:
        struct = waiting.pop()
        if struct in seen:
            continue
        seen.add(struct)
        yield struct
        for field in msgspec.structs.fields(struct):
            waiting += _inside(field.type)


def _inside(kind: Any) -> list[type[msgspec.Struct]]:
    """Give the structs that a field's type names: itself, of a list, or of an alternative."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [struct for part in getattr(kind, "__args__", ()) for struct in _inside(part)]
