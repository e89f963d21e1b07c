"""Bad events of every kind among good ones: the good ones never wait for them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, Message
from storemirror.event.change import Change
from storemirror.event.envelope import CONTENT_TYPE
from storemirror.model.load import load_model
from tests.integration.apply.faulty import FaultyConsumer, FaultyMirror
from tests.integration.apply.pipe import (
    FUTURE_US,
    START_US,
    Pipe,
    a_change,
    a_chat_message,
    a_follow,
    message_of,
)
from tests.support.mirrors import installed_mirror

pytestmark = pytest.mark.postgres

#: Events of a batch.
COUNT = 500


def of_the_future(number: int) -> Message:
    """An envelope of a format that this version does not know."""
    envelope = msgspec.json.decode(message_of(a_follow(number)).body)
    envelope["specversion"] = "9.0"
    return bad_message(f"future-{number}", msgspec.json.encode(envelope))


def bad_message(message_id: str, body: bytes) -> Message:
    return Message(message_id=message_id, body=body, content_type=CONTENT_TYPE)


def bad_messages(each: int) -> dict[str, str]:
    """Give message id -> reason, of every kind of bad event."""
    return {message.message_id: reason for reason, message in _bad(each)}


def _bad(each: int) -> list[tuple[str, Message]]:
    kinds: list[tuple[str, Message]] = []
    for n in range(each):
        undeclared = a_change(f"invoices/i{n}", {}, START_US)
        misfit = a_change(f"users/a/following/b{n}", {"createdAt": "no time"}, START_US)
        too_late: Change = a_chat_message(10_000 + n, at_us=FUTURE_US + n)
        kinds += [
            ("EntityUnknown", message_of(undeclared)),
            ("MappingFailed", message_of(misfit)),
            ("EnvelopeInvalid", bad_message(f"no-json-{n}", b"no event")),
            ("EnvelopeInvalid", of_the_future(n)),
            ("EventRefused", message_of(too_late)),
        ]
    return kinds


@pytest.mark.parametrize("each", [1, 10])
async def test_good_neighbours_are_applied_at_once(pipe: Pipe, each: int) -> None:
    """No retry, no second delivery, and no more calls than it takes to find the bad ones."""
    bad = _bad(each)
    good = [a_chat_message(n, conversation=f"c{n % 9}") for n in range(COUNT - len(bad))]
    mixed = [message for _, message in bad] + [message_of(change) for change in good]
    random.shuffle(mixed)
    await pipe.publisher.publish(mixed)
    mirror, consumer = FaultyMirror(pipe), FaultyConsumer(pipe.new_consumer())
    writer = pipe.processor(mirror=mirror, consumer=consumer, lane_count=1)
    await pipe.run_until_empty(writer)
    assert set(Counter(d.message.message_id for d in consumer.received).values()) == {1}
    assert (writer.stats.applied, writer.stats.dead_lettered) == (len(good), len(bad))
    # Each refused event halves its batch at most nine times, two calls each.
    assert len(mirror.sizes) <= 2 * 9 * each + 5
    letters = await pipe.dead_letters()
    assert {letter.message.message_id: letter.reason for letter in letters} == bad_messages(each)
    assert all(letter.description for letter in letters)
    await pipe.assert_mirrors(good)


ORDER = """
[[entity]]
name = "Order"
check = "orders"
path = "orders/{orderId}"
category = "sqlMirror"
[entity.columns]
state = { type = "string" }
"""


async def test_cured_dead_letters_are_applied_and_older_ones_are_stale(
    pipe: Pipe, tmp_path: Path
) -> None:
    """The newest wins here as everywhere, in whatever order a person sends them again."""
    orders = [a_change("orders/o1", {"state": f"step {n}"}, START_US + n) for n in range(3)]
    await pipe.publish(orders)
    await pipe.run_until_empty(pipe.processor())
    letters = await pipe.dead_letters()
    assert [letter.reason for letter in letters] == ["EntityUnknown"] * 3
    assert all("orders/o1" in letter.description for letter in letters)
    declared = tmp_path / "orders.toml"
    declared.write_text(ORDER)
    async with installed_mirror(load_model([declared]), pipe.under_test.dsn) as cured_mirror:
        cured = replace(pipe, model=cured_mirror.model, under_test=cured_mirror)
        for number, outcome in ((1, "applied"), (0, "stale"), (2, "applied")):
            await cured.admin.resubmit(
                SUBSCRIPTION_SQL_WRITER, letters[number].sequence_number, run="cured"
            )
            writer = cured.processor()
            await cured.run_until_empty(writer)
            assert writer.stats.counters()[outcome] == 1
        await cured.assert_mirrors(orders)
    assert await pipe.dead_letters() == []
