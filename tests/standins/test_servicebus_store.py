"""The stand-in's topics and subscriptions by themselves: what the contract suite rests on."""

from __future__ import annotations

import pytest

from tests.standins.servicebus.codec import Described, encode
from tests.standins.servicebus.entities_http import seconds_of
from tests.standins.servicebus.management import Policy, rights_of
from tests.standins.servicebus.message import (
    APPLICATION_PROPERTIES,
    AmqpError,
    StoredMessage,
    parsed,
)
from tests.standins.servicebus.store import Queue, ShiftableClock, Topic, takes


def a_message(message_id: str = "e1", **properties: str) -> StoredMessage:
    application = encode(Described(APPLICATION_PROPERTIES, properties)) if properties else b""
    return StoredMessage(message_id=message_id, application=application)


@pytest.fixture
def topic() -> Topic:
    clock = ShiftableClock()
    clock.hold()
    topic = Topic("t", clock)
    topic.duplicate_window_s = 60.0
    return topic


def depths(*queues: Queue | None) -> list[int]:
    return [queue.depth for queue in queues if queue is not None]


def test_an_id_is_taken_once_in_the_window(topic: Topic) -> None:
    """Publishing again after an unknown outcome rests on it."""
    queue = topic.subscribe("s")
    topic.put([a_message(), a_message()])
    topic.clock.shift_s += 59.0
    topic.put([a_message()])
    assert depths(queue) == [1]
    topic.clock.shift_s += 2.0
    topic.put([a_message()])
    assert depths(queue) == [2]


def test_a_filter_leaves_out_what_is_addressed_to_another(topic: Topic) -> None:
    """Resubmission goes to one subscription."""
    rule = "NOT EXISTS(only_for) OR only_for = 'a'"
    assert takes(rule, a_message())
    assert takes(rule, a_message(only_for="a"))
    assert not takes(rule, a_message(only_for="b"))
    assert not takes("only_for = 'a'", a_message())
    assert takes("1=1", a_message(only_for="b"))


def test_an_unknown_filter_is_refused_and_nothing_is_taken(topic: Topic) -> None:
    """A filter taken for another would hide a fault."""
    queue = topic.subscribe("s")
    queue.rules["$Default"] = "x LIKE 'y%'"
    with pytest.raises(AmqpError, match="unknown filter"):
        topic.put([a_message()])
    assert depths(queue) == [0]


@pytest.mark.parametrize(("is_dead_lettered", "expected"), [(True, [0, 1]), (False, [0, 0])])
def test_what_expires_is_set_aside_or_dropped(
    topic: Topic, is_dead_lettered: bool, expected: list[int]
) -> None:
    """As the subscription says."""
    queue = topic.subscribe("s")
    queue.time_to_live_s, queue.is_expiry_dead_lettered = 10.0, is_dead_lettered
    topic.put([a_message()])
    topic.clock.shift_s += 11.0
    queue.sweep()
    assert depths(queue, queue.dead_letters) == expected


def test_a_message_keeps_its_parts_through_the_wire() -> None:
    """Properties and body are handed on as they came."""
    message = a_message(path="a/b")
    message.enqueued_at_s = 1.0
    message.body = encode(Described(0x75, b"body"))
    again = parsed(message.wire())
    assert (again.application_properties(), again.body) == ({"path": "a/b"}, message.body)


def test_a_token_made_with_another_key_gives_no_rights() -> None:
    """Else a wrong connection string would pass here, and fail in production."""
    policies = {"p": Policy(key="k", rights=frozenset({"Send"}))}
    with pytest.raises(AmqpError, match="invalid signature"):
        rights_of("SharedAccessSignature sr=x&sig=wrong&se=1&skn=p", policies)
    with pytest.raises(AmqpError, match="no policy"):
        rights_of("SharedAccessSignature sr=x&sig=wrong&se=1&skn=q", policies)


def test_durations_are_read() -> None:
    """Lock durations come so from the administration client."""
    assert [seconds_of(text) for text in ("PT30S", "PT5M", "P1DT1H")] == [30.0, 300.0, 90_000.0]
    with pytest.raises(AmqpError, match="no duration"):
        seconds_of("30 s")
