"""Requests and answers as clients were once promised them are good for ever."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from storemirror.errors import CallRefused
from storemirror.gateway.callables import CALLABLES
from storemirror.gateway.openapi import openapi
from storemirror.gateway.protocol import CallStatus, data_of, error_answer, request_of

GOLDEN = Path(__file__).parents[2] / "golden" / "callables-v1"
JSON = {"content-type": "application/json"}
#: SHA-256 of every exchange.  Lines are added, and never changed or taken out.
FROZEN = {
    "sqlGatewayDmListConversations": (
        "461412f2b94de60c68b9e1f73d85bd2b35e36700bf2523804af69dc5dcf524dd"
    ),
    "sqlGatewayDmListConversations.next-page": (
        "69be36ea70036726c7f9f08215cc14eb2e37912be11cb739d4e21551a04a0cdc"
    ),
    "sqlGatewayDmListConversations.without-data": (
        "b7bcae024e767fa3eeb4fbbfeb762ae37568f9597f46bd4c6db8a69a1bc20ddc"
    ),
    "sqlGatewayDmListMessages": "0f346a822624dd7b78ff29c218f62f5c0aa31918da74567480b2506a766ef104",
    "sqlGatewayDmListMessages.newer": (
        "bb2443d35371f0d832bf37e323281f91fa8b9852b7dbc14e01f0de822d77a389"
    ),
    "sqlGatewayDmOpenConversation": (
        "a81152c5eb479ae535947fd2741a5c47555fe741af647c5f6f08ea55e4177719"
    ),
    "sqlGatewayDmSend": "e4201eba09a333b27949ea05cfab9906d148a56790c7808f8cfba74d3c412f58",
    "sqlGatewayDmSend.int64": "dc4630346e8af8daf12c35c23c741518aa893acc280a69cce02d06401f248426",
    "sqlGatewayDmSend.mirror": "1e6fe6bca677c9ac4b1ebfa814702f38f8f8ce447526409ca16bfbcc88364ca6",
    "sqlGatewayDmEdit": "d496061c16510d9631d2c8f73ccd2cc704e575d58c1634eedd1ad28d14b6b03f",
    "sqlGatewayDmDelete": "4634d78a1d51d4eedc10bc2a0a1b5b7dac55ca6bd593099a97ad68ff476decbb",
    "sqlGatewayDmMarkRead": "05a194cb056c191106a2ad719c87782ce99dc405f6ab2421504955e4ebea99b8",
    "sqlGatewayFollowGetRelationship": (
        "9d2ab1ec76e3090d46fd8a1d3e94eb42e621f75577d6ea0f6034e8145b3639d0"
    ),
    "sqlGatewayFollowGetRelationship.of-a-service": (
        "1bbdd7fae30b97e58144b0729ad7764dba4d792df450f245494bfc21e8e48c76"
    ),
    "sqlGatewayFollowEdgeUpsert": (
        "8a2b6f76850f6d651244a853e6d36740cd3a2ab42681e2ffa2726c83fbddbda3"
    ),
    "sqlGatewayFollowEdgeUpsert.mirror": (
        "f942acf4b72b9eb2ca92f8fcb45c4f8cf7751fd95363adc0247cc3cc4cd75903"
    ),
    "sqlGatewayFollowEdgeDelete": (
        "a9a27ecef8734a69ecd91b485684fea00f452fe73ef74e57a285406b24c809c7"
    ),
    "sqlGatewayBlockUpsert": "00bb51cc03afaa33734f42fa628e69a9c03cf68a52a13a4c2b0a99c4a746f5a6",
    "sqlGatewayBlockDelete": "e74ecd59a88d9f18e075530f58152097fa070ec5a11d83ee10db6e9bd56d6a0f",
    "error.unauthenticated": "dc6de8bedeb8484ab594c46397eaa96fab66eb044863a0d78227accaa6fdb130",
    "error.not-found": "e5f2bde9f4dab6c756d4f7a6cb0164e46155729089a0e2f04722b802457d6899",
    "error.permission-denied": "97cfbdb2c82ddda77a15a80396051c24c9abcae72e9e9bc712e358385e1bcd5e",
    "error.resource-exhausted": "5717f33a7823b272323058fbe2bca97443f0fa16ba78432ddb0ee37aeeffa505",
    "error.unavailable": "13119d43fc5fe4967e5e91de7dab431369ae5f772789639dbf39261eb203e30b",
    "error.with-details": "d2591e7675a91a18aa8f876287912e6f020f4ce8c652f3d806a729db295b0d7a",
}
RESULTS = [name for name in FROZEN if not name.startswith("error.")]
ERRORS = [name for name in FROZEN if name.startswith("error.")]


def exchange(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_bytes())


def loosened(schema: Any) -> Any:
    """A schema that demands no field, and allows none but those it names."""
    if isinstance(schema, list):
        return [loosened(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {name: loosened(part) for name, part in schema.items() if name != "required"}
    return loose | {"additionalProperties": False} if "properties" in schema else loose


@pytest.mark.parametrize("name", FROZEN)
def test_a_golden_exchange_is_as_it_was(name: str) -> None:
    """Who mends the file instead of the gateway breaks every app that is installed."""
    body = (GOLDEN / f"{name}.json").read_bytes()
    assert hashlib.sha256(body).hexdigest() == FROZEN[name]


def test_every_golden_exchange_is_frozen() -> None:
    """A file that is in no list is read by no test; a callable without one has no promise."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(FROZEN)
    assert set(CALLABLES) <= set(FROZEN)


@pytest.mark.parametrize("name", FROZEN)
def test_a_golden_request_is_understood(name: str) -> None:
    """As the app sends it that was installed years ago."""
    spec = CALLABLES[exchange(name)["callable"]]
    body = json.dumps(exchange(name)["request"]).encode()
    assert isinstance(request_of(data_of(body), spec.request), spec.request)


@pytest.mark.parametrize("name", RESULTS)
def test_a_golden_answer_could_be_given(name: str) -> None:
    """Every field that it has is there still, and of the type that it had."""
    assert problems_of(exchange(name)) == []


def problems_of(golden: Any) -> list[str]:
    """What of an exchange's answer the gateway would not say."""
    document = openapi()
    spec = CALLABLES[golden["callable"]]
    schema = {
        "$ref": f"#/components/schemas/{spec.result.__name__}",
        "components": loosened(document["components"]),
    }
    errors = Draft202012Validator(schema).iter_errors(golden["answer"]["result"])
    return [error.message for error in errors]


@pytest.mark.parametrize(
    "change", [{"renamed": 1}, {"items": None}, {"source": "cache"}, {"older": 3}], ids=str
)
def test_an_answer_that_could_not_be_given_is_noticed(change: dict[str, object]) -> None:
    """A guard that nobody has seen fail is no guard."""
    golden = exchange("sqlGatewayDmListConversations")
    golden["answer"]["result"] |= change
    assert problems_of(golden) != []


@pytest.mark.parametrize("name", RESULTS)
def test_a_golden_answer_is_written_as_it_was(name: str) -> None:
    """Read as what the gateway gives, and written again, it is the same."""
    golden = exchange(name)
    spec = CALLABLES[golden["callable"]]
    result = msgspec.convert(golden["answer"]["result"], spec.result)
    written = msgspec.to_builtins(result)
    assert {key: written[key] for key in golden["answer"]["result"]} == golden["answer"]["result"]


@pytest.mark.parametrize("name", ERRORS)
def test_a_golden_error_is_written_as_it_was(name: str) -> None:
    """With the HTTP status of its code."""
    golden = exchange(name)
    error = golden["answer"]["error"]
    refused = CallRefused(error["status"], error["message"], details=error.get("details"))
    answer = error_answer(refused, as_stream=False)
    assert (answer.status, json.loads(answer.body)) == (golden["status"], golden["answer"])
    assert error["status"] in CallStatus.__members__
