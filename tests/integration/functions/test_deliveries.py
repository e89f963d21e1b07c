"""Each trigger function in the functions framework, called as Eventarc and the emulator call."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storemirror.bus.port import Delivery
from storemirror.event.change import Change
from storemirror.event.envelope import decode_change
from storemirror.source.eventarc import decode_delivery
from storemirror.source.port import DocumentChange
from storemirror.source.triggers import change_of
from tests.integration.functions.deployment import Deployment
from tests.integration.functions.framework import Function, running_functions
from tests.integration.receiver.hosted import A_MESSAGE, call
from tests.support.deliveries import HEADERS, SOURCE, fill_image, told

pytestmark = pytest.mark.postgres

NAMES = ("mirrorDmMessages", "mirrorDmConversations", "mirrorFollowEdges", "mirrorUserBlocks")
PATHS = {
    "mirrorDmMessages": "conversations/c1/messages/m1",
    "mirrorDmConversations": "conversations/c1",
    "mirrorFollowEdges": "users/u1/following/u2",
    "mirrorUserBlocks": "users/u1/blocks/u2",
}


@pytest.fixture
def message_function(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> Iterator[Function]:
    names = ("mirrorDmMessages",)
    with running_functions(functions_folder, names, deployment.environment, tmp_path) as started:
        yield started["mirrorDmMessages"]


async def taken(deployment: Deployment) -> list[Delivery]:
    """Give everything on the bus."""
    async with deployment.parts() as parts:
        consumer = await parts.consumer()
        found = await consumer.receive(1_000, max_wait_s=0.0)
        await consumer.abandon(found)
        return list(found)


async def test_each_function_takes_eventarcs_binary_form(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """Bit for bit: the event is the one that the trigger receiver makes of the same bytes."""
    expected: list[Change] = []
    with running_functions(functions_folder, NAMES, deployment.environment, tmp_path) as started:
        for name, function in started.items():
            body = delivery_of(PATHS[name])
            assert await function.post(body) == 204
            expected.append(event_of(body))
            assert await function.counts() == {"published_count": 1, "batch_count": 1}
    found = [decode_change(d.message.body, source=SOURCE) for d in await taken(deployment)]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


def event_of(body: bytes) -> Change:
    """Give what every other receiver makes of the same bytes."""
    delivery = decode_delivery(HEADERS, body, source=SOURCE)
    assert isinstance(delivery, DocumentChange)
    change = change_of(delivery)
    assert isinstance(change, Change)
    return change


def delivery_of(path: str) -> bytes:
    """A write of a document with values that Python alone would not tell apart."""
    data = told()
    document = {"whole": 2**63 - 1, "one": 1, "float": 1.0, "zero": -0.0, "bytes": b"\x00\xff"}
    fill_image(data.value, document, 20, f"projects/demo/databases/(default)/documents/{path}")
    written: bytes = data.SerializeToString()
    return written


async def test_the_emulators_form_is_taken(
    message_function: Function, deployment: Deployment
) -> None:
    """Base64, and `projects/` twice: what a developer's machine delivers."""
    body = base64.b64encode(told(A_MESSAGE).SerializeToString())
    doubled = SOURCE.replace("/projects/", "/projects/projects/")
    assert await message_function.post(body, {**HEADERS, "Ce-Source": doubled}) == 204
    assert await deployment.depth() == 1


async def test_a_repeated_delivery_is_one_event(
    message_function: Function, deployment: Deployment
) -> None:
    """Eventarc delivers at least once."""
    body = told(A_MESSAGE).SerializeToString()
    assert [await message_function.post(body) for _ in range(2)] == [204, 204]
    assert await deployment.depth() == 1
    assert (await message_function.counts())["duplicate_count"] == 1


async def test_what_tells_nothing_is_counted_and_let_go(
    message_function: Function, deployment: Deployment
) -> None:
    """Repeating it for 24 hours would tell nothing either."""
    unchanged = told(A_MESSAGE)
    unchanged.old_value.CopyFrom(unchanged.value)
    for body in (unchanged.SerializeToString(), b""):
        assert await message_function.post(body) == 204
    assert await deployment.depth() == 0
    counted = {"nothing_changed_count": 1, "never_existed_count": 1}
    assert await message_function.counts() == counted


async def test_nothing_is_acknowledged_while_the_bus_is_down(
    message_function: Function, deployment: Deployment
) -> None:
    """Eventarc keeps it for 24 hours; the next time it is taken."""
    body = told(A_MESSAGE).SerializeToString()
    other = told()
    fill_image(other.value, A_MESSAGE, 20, f"{told({}).value.name}2")
    assert await message_function.post(body) == 204
    async with deployment.bus_gone():
        statuses = [await message_function.post(other.SerializeToString()) for _ in range(2)]
        assert statuses == [503, 503]
        assert (await message_function.counts())["is_bus_failing"] is True
    assert await message_function.post(other.SerializeToString()) == 204
    assert await deployment.depth() == 2
    assert len(message_function.logged("receiver.bus_failed")) == 1
    assert message_function.logged("receiver.bus_failed")[0]["severity"] == "ERROR"
    assert len(message_function.logged("receiver.bus_recovered")) == 1


#: Headers and body of what no trigger delivers, or of what came apart on the way.
UNREADABLE = (
    (HEADERS, b"\x0a\xff\x00garbage"),
    ({n: t for n, t in HEADERS.items() if n not in ("Ce-Id", "Ce-Subject")}, b"\x0agarbage"),
    ({"Content-Type": "application/cloudevents+json"}, b'{"specversion": "1.0", "id": '),
    ({**HEADERS, "Ce-Id": "d2", "Content-Type": "text/plain"}, b"hello"),
)


async def test_an_unreadable_delivery_is_kept(
    message_function: Function, deployment: Deployment
) -> None:
    """The framework's own reader would answer 400 or 500, and Eventarc give up after a day."""
    for headers, body in UNREADABLE:
        assert await message_function.post(body, headers) == 204
    async with deployment.parts() as parts:
        await parts.drain(max_duration_s=30.0)
    letters = await deployment.dead_letters()
    assert {letter.reason for letter in letters} == {"EnvelopeInvalid"}
    kept = [json.loads(letter.message.body)["data"]["bodyBase64"] for letter in letters]
    assert sorted(map(base64.b64decode, kept)) == sorted(body for _, body in UNREADABLE)
    assert len(message_function.logged("receiver.delivery_unreadable")) == len(UNREADABLE)


async def test_a_page_in_a_browser_cannot_deliver(
    message_function: Function, deployment: Deployment
) -> None:
    """On a developer's machine any page may post to a port of this machine."""
    body = told(A_MESSAGE).SerializeToString()
    assert await message_function.post(body, {**HEADERS, "Origin": "https://example.com"}) == 403
    assert (await call(message_function.port, "PUT", "/", HEADERS, body)).status == 405
    assert await deployment.depth() == 0


async def test_a_function_without_its_secret_acknowledges_nothing(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """The setting is mended within the day that Eventarc repeats; nothing was lost."""
    deployment.variables["STOREMIRROR_BUS_DSN"] = ""
    names = ("mirrorDmMessages",)
    with running_functions(functions_folder, names, deployment.environment, tmp_path) as started:
        function = started["mirrorDmMessages"]
        assert await function.post(told(A_MESSAGE).SerializeToString()) == 500
        assert "STOREMIRROR_BUS_DSN" in function.log.read_text()
