"""
What docs/reference/callables.md and its OpenAPI document say, taken from the gateway's code.

Called through cog, as `reference` is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from reference import comments_of, first_line, table

from storemirror.gateway import wire
from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.openapi import openapi
from storemirror.gateway.protocol import CallStatus


def callables() -> str:
    """List the callables: what each does, takes and gives."""
    rows = [
        [f"`{spec.name}`", spec.what, _link(spec.request), _link(spec.result)]
        for spec in CALLABLES.values()
    ]
    return table(("callable", "what it does", "request", "answer"), rows)


def structs() -> str:
    """Describe every request and answer, and what is inside of them."""
    return "\n\n".join(_section(name, schema) for name, schema in _schemas().items())


def statuses() -> str:
    """List the codes of errors, with their HTTP status."""
    rows = [
        [f"`{status.value}`", status.http_status]
        for status in CallStatus
        if status is not CallStatus.OK
    ]
    return table(("code", "HTTP"), rows)


def openapi_text() -> str:
    """Give the OpenAPI document, as a file's whole text."""
    return json.dumps(openapi(descriptions_of), indent=2, ensure_ascii=False) + "\n"


def descriptions_of(struct: type[msgspec.Struct]) -> Mapping[str, str]:
    """Give the comment above each field of a struct, and of those it inherits from."""
    described: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if issubclass(kind, wire.Request | wire.Result):
            described |= {name: text for name, text in comments_of(kind).items() if text}
    return described


def _schemas() -> Mapping[str, Any]:
    schemas = openapi(descriptions_of)["components"]["schemas"]
    return {name: schema for name, schema in schemas.items() if "properties" in schema}


def _section(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        [f"`{field}`", _kind(kind), "yes" if field in required else "", _meaning(kind)]
        for field, kind in schema["properties"].items()
    ]
    struct = getattr(wire, name, None)
    what = schema.get("description", "") if struct is None else first_line(struct)
    return f"### {name}\n\n{what}\n\n{table(('name', 'type', 'always', 'meaning'), rows)}"


def _link(struct: type[msgspec.Struct]) -> str:
    return f"[{struct.__name__}](#{struct.__name__.lower()})"


def _meaning(schema: Mapping[str, Any]) -> str:
    described = schema.get("description")
    inside = (part.get("description", "") for part in schema.get("anyOf", ()))
    return str(described or next(filter(None, inside), ""))


def _kind(schema: Mapping[str, Any]) -> str:
    """Say a field's type in a few words."""
    return " or ".join(_kinds(schema))


def _kinds(schema: Mapping[str, Any]) -> Iterator[str]:
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _kinds(part)
    elif "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        is_listed = name in _schemas()
        yield f"[{name}](#{name.lower()})" if is_listed else " or ".join(_constants(name))
    elif "enum" in schema:
        yield "a code"
    elif schema.get("type") == "array":
        yield f"list of {_kind(schema['items'])}"
    elif schema.get("format") == "date-time":
        yield "time"
    else:
        yield str(schema.get("type", "any JSON")) + _bounds(schema)


def _constants(name: str) -> Iterator[str]:
    constants = openapi()["components"]["schemas"][name]["enum"]
    return (f'`"{constant}"`' for constant in constants)


def _bounds(schema: Mapping[str, Any]) -> str:
    least = schema.get("minimum", schema.get("minLength"))
    most = schema.get("maximum", schema.get("maxLength"))
    if most is None:
        return ""
    return f", {least} to {most}" if least is not None else f", at most {most}"
