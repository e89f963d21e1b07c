"""The OpenAPI document says what the gateway does: it is made of the structs it reads with."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from storemirror.errors import CallRefused
from storemirror.gateway import wire
from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.openapi import openapi
from storemirror.gateway.protocol import request_of


def allowed(name: str, data: object) -> bool:
    """Whether the document allows a callable's data."""
    document = openapi()
    operation = document["paths"][f"/{name}"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    schema = {**body, "components": document["components"]}
    return bool(Draft202012Validator(schema).is_valid({"data": data}))


def understood(name: str, data: object) -> bool:
    """Whether the gateway understands it."""
    try:
        request_of(data, CALLABLES[name].request)
    except CallRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sqlGatewayDmListConversations", None),
        ("sqlGatewayDmListConversations", {}),
        ("sqlGatewayDmListConversations", {"pageSize": 0}),
        ("sqlGatewayDmListConversations", {"pageSize": 1_001}),
        ("sqlGatewayDmListConversations", {"pageSize": None, "cursor": ""}),
        ("sqlGatewayDmListMessages", None),
        ("sqlGatewayDmListMessages", {"conversationId": ""}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "mode": "send"}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "mode": "other"}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "messageId": "a/b"}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "messageId": "__a__"}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "messageId": ".."}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "messageId": "..."}),
        ("sqlGatewayDmSend", {"conversationId": "c", "body": "x", "attachments": [1]}),
        ("sqlGatewayDmOpenConversation", {"participantIds": []}),
        ("sqlGatewayDmOpenConversation", {"participantIds": ["u"] * 101}),
        ("sqlGatewayBlockUpsert", {"target": "u", "more": 1}),
    ],
)
def test_what_the_document_allows_is_understood(name: str, data: object) -> None:
    """And nothing else is."""
    assert allowed(name, data) is understood(name, data)


def test_every_callable_and_every_struct_is_there() -> None:
    """What is missing would be used by nobody, and promised to nobody."""
    document = openapi()
    assert set(document["paths"]) == {f"/{name}" for name in CALLABLES}
    used = {spec.request.__name__ for spec in CALLABLES.values()}
    used |= {spec.result.__name__ for spec in CALLABLES.values()}
    assert used <= set(document["components"]["schemas"])


def test_fields_are_described_where_they_are() -> None:
    """Also those of what is inside, and those that are inherited."""

    def describe(struct: Any) -> dict[str, str]:
        return {name: f"{struct.__name__}.{name}" for name in struct.__struct_encode_fields__}

    schemas = openapi(describe)["components"]["schemas"]
    described = schemas["LastMessage"]["properties"]["preview"]["description"]
    assert described == "LastMessage.preview"
    assert schemas["MessagesResult"]["properties"]["asOf"]["description"] == "MessagesResult.asOf"
    assert wire.LastMessage.__name__ in schemas
