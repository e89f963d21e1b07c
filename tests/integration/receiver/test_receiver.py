"""The receiver on a port of its own, before a real bus: success is said when the bus has it."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import BusRefused, BusUnavailable, ConfigError
from storemirror.event.change import Change
from storemirror.event.envelope import decode_change
from storemirror.model.load import load_model
from storemirror.source.deliveries import BODY_MAX_BYTES
from storemirror.source.eventarc import decode_delivery
from storemirror.source.port import DocumentChange
from storemirror.source.receiver import create_trigger_receiver, serve
from storemirror.source.triggers import change_of
from tests.integration.apply.pipe import Pipe
from tests.integration.receiver.hosted import A_MESSAGE, HOST, Hosted, call, hosted
from tests.support.deliveries import HEADERS, PATH, SOURCE, fill_image, told

pytestmark = pytest.mark.postgres


async def taken(pipe: Pipe) -> list[bytes]:
    """Give the bodies of everything on the bus."""
    consumer = pipe.new_consumer()
    return [d.message.body for d in await consumer.receive(1_000, max_wait_s=0.0)]


async def test_a_delivery_is_on_the_bus_when_it_is_answered(receiver: Hosted) -> None:
    """The event is the one that every other source would make of the document."""
    body = told(A_MESSAGE).SerializeToString()
    assert (await receiver.post(body, path="/functions/projects/p/triggers/t")).status == 204
    delivery = decode_delivery(HEADERS, body, source=SOURCE)
    assert isinstance(delivery, DocumentChange)
    assert [decode_change(b, source=SOURCE) for b in await taken(receiver.pipe)] == [
        change_of(delivery)
    ]
    assert await receiver.counts() == {"published_count": 1, "batch_count": 1}


async def test_the_callers_trace_goes_on(receiver: Hosted) -> None:
    """A slow row is found from the request that wrote the document."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert await receiver.write(traceparent=trace) == 204
    change: Change = decode_change((await taken(receiver.pipe))[0], source=SOURCE)
    assert change.traceparent == trace


async def test_a_repeated_delivery_is_one_event(receiver: Hosted) -> None:
    """Eventarc delivers at least once."""
    assert [await receiver.write(), await receiver.write()] == [204, 204]
    assert await receiver.depth() == 1
    assert (await receiver.counts())["duplicate_count"] == 1


async def test_what_tells_nothing_is_counted_and_let_go(receiver: Hosted) -> None:
    """Repeating it for 24 hours would tell nothing either."""
    unchanged = told(A_MESSAGE)
    unchanged.old_value.CopyFrom(unchanged.value)
    undeclared = told()
    fill_image(undeclared.value, {}, 20, "projects/demo/databases/(default)/documents/others/o1")
    for body in (unchanged.SerializeToString(), b"", undeclared.SerializeToString()):
        assert (await receiver.post(body)).status == 204
    assert await receiver.depth() == 0
    assert await receiver.counts() == {
        "nothing_changed_count": 1,
        "never_existed_count": 1,
        "undeclared_count": 1,
    }


async def test_an_unreadable_delivery_becomes_a_dead_letter(receiver: Hosted) -> None:
    """Refused, it would come again for 24 hours and then be lost."""
    garbage = b"\x0a\xff\x00garbage"
    assert [(await receiver.post(garbage)).status for _ in range(2)] == [204, 204]
    await receiver.pipe.run_until_empty(receiver.pipe.processor())
    (letter,) = await receiver.pipe.dead_letters()
    assert letter.reason == "EnvelopeInvalid"
    assert "could not read this delivery" in letter.description
    assert letter.message.properties["path"] == PATH
    assert base64.b64decode(json.loads(letter.message.body)["data"]["bodyBase64"]) == garbage
    assert (await receiver.counts())["unreadable_count"] == 2


async def test_a_delivery_without_end_is_cut_and_kept(receiver: Hosted) -> None:
    """No document makes a body that large; it must not fill the memory, nor come for a day."""
    body = b"\x0a" * (BODY_MAX_BYTES + 1)
    assert (await receiver.post(body)).status == 204
    event = json.loads((await taken(receiver.pipe))[0])
    assert f"{len(body)} bytes" in event["data"]["reason"]
    assert len(event["data"]["bodyBase64"]) < 200_000


async def test_an_event_that_the_bus_refuses_becomes_a_dead_letter(receiver: Hosted) -> None:
    """A path that no bus can store, a document too large for it: repeated, it is refused again."""
    data = told()
    name = "projects/demo/databases/(default)/documents/conversations/c\0/messages/m"
    fill_image(data.value, A_MESSAGE, 20, name)
    assert (await receiver.post(data.SerializeToString())).status == 204
    event = json.loads((await taken(receiver.pipe))[0])
    assert "NUL" in event["data"]["reason"]


@pytest.mark.parametrize("error", [BusUnavailable("gone"), BusRefused("no such topic")])
async def test_nothing_is_acknowledged_while_the_bus_is_down(
    receiver: Hosted, error: Exception
) -> None:
    """Eventarc keeps it for 24 hours: the next time it is taken.  No dead letter comes of it."""
    receiver.publisher.faults_before.append(error)
    assert await receiver.write() == 503
    assert not receiver.publisher.faults_before
    assert await receiver.depth() == 0
    assert (await receiver.counts())["is_bus_failing"] is True
    assert await receiver.write() == 204
    assert await receiver.depth() == 1
    assert await receiver.counts() == {
        "published_count": 1,
        "bus_failed_count": 1,
        "batch_count": 1,
    }


async def test_an_event_whose_answer_was_lost_is_a_duplicate(receiver: Hosted) -> None:
    """The receiver died, or lost the bus, between the commit and its answer."""
    receiver.publisher.faults_after.append(BusUnavailable("connection lost during commit"))
    assert await receiver.write() == 503
    assert await receiver.depth() == 1
    assert await receiver.write() == 204
    assert await receiver.depth() == 1


async def test_a_caller_that_goes_away_loses_nothing(receiver: Hosted) -> None:
    """A time-out at the caller's end: the event is published, the repetition a duplicate."""
    receiver.publisher.gate.clear()
    gone = asyncio.create_task(receiver.write())
    await receiver.publisher.called.wait()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    receiver.publisher.gate.set()
    assert await receiver.write() == 204
    assert await receiver.depth() == 1


async def test_a_caller_that_breaks_off_publishes_nothing(receiver: Hosted) -> None:
    """Half a body might parse as another document."""
    reader, writer = await asyncio.open_connection(HOST, receiver.port)
    body = told(A_MESSAGE).SerializeToString()
    head = "".join(f"{name}: {text}\r\n" for name, text in HEADERS.items())
    request = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 9}\r\n{head}\r\n"
    writer.write(request.encode() + body)
    await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert await receiver.write() == 204
    assert receiver.publisher.sizes == [1]


async def test_deliveries_that_come_together_are_published_together(receiver: Hosted) -> None:
    """A commit each would hold the bus to a thousand events a second."""
    receiver.publisher.gate.clear()
    bodies = []
    for number in range(40):
        data = told()
        fill_image(data.value, A_MESSAGE, 20, f"{told({}).value.name}{number}")
        bodies.append(data.SerializeToString())
    answers = [asyncio.create_task(receiver.post(body)) for body in bodies]
    await receiver.publisher.called.wait()
    receiver.publisher.gate.set()
    assert {answer.status for answer in await asyncio.gather(*answers)} == {204}
    assert await receiver.depth() == 40
    assert len(receiver.publisher.sizes) < 40


async def test_deliveries_under_way_are_answered_before_it_stops(pipe: Pipe) -> None:
    """A deployment replaces the receiver while the app writes."""
    async with hosted(pipe) as receiver:
        receiver.publisher.gate.clear()
        answer = asyncio.create_task(receiver.write())
        await receiver.publisher.called.wait()
        receiver.stop.set()
        receiver.publisher.gate.set()
        assert await answer == 204
        await receiver.serving


async def test_a_page_in_a_browser_cannot_deliver(receiver: Hosted) -> None:
    """On a developer's machine any page may post to a port of this machine."""
    assert await receiver.write(Origin="https://example.com") == 403
    assert await receiver.depth() == 0


async def test_only_posts_deliver(receiver: Hosted) -> None:
    """A health probe of another path is no delivery."""
    assert (await call(receiver.port, "GET", "/", {}, b"")).status == 405
    assert (await call(receiver.port, "GET", "/health", {}, b"")).status == 200


async def test_a_port_that_is_taken_is_said(receiver: Hosted) -> None:
    """One message that says where, and no traceback."""
    other = create_trigger_receiver(
        publisher=receiver.publisher,
        model=load_model(),
        source=SOURCE,
        clock=SystemClock(),
        callers=None,
    )
    with pytest.raises(ConfigError, match=f"cannot listen on {HOST} port {receiver.port}"):
        await serve(other, HOST, receiver.port, asyncio.Event())
