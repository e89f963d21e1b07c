"""What callables take and give: requests are refused early, answers have all of their fields."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from storemirror.errors import CallRefused
from storemirror.gateway import wire
from storemirror.gateway.protocol import request_of

SEND = {"conversationId": "c1", "messageId": "m1"}


def refused(sent: Mapping[str, object], kind: type[wire.Request]) -> str:
    with pytest.raises(CallRefused) as caught:
        request_of(sent, kind)
    assert caught.value.status == "INVALID_ARGUMENT"
    return str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["", ".", "..", "a/b", "__x__", "____", "a\nb", "\x00", "\x7f", "x" * 1_501]
)
def test_an_id_that_firestore_refuses_is_refused_first(wrong: str) -> None:
    """Else the write would fail halfway, and the client be told of our trouble."""
    refused({**SEND, "messageId": wrong, "body": "x"}, wire.SendMessage)
    refused({"target": wrong}, wire.ChangeEdge)
    refused({"participantIds": [wrong]}, wire.OpenConversation)


def test_a_users_id_is_at_most_as_long_as_firebases() -> None:
    """How long other ids may be is declared, and seen to where the declaration is known."""
    refused({"target": "x" * 129}, wire.ChangeEdge)
    refused({"participantIds": ["x" * 129]}, wire.OpenConversation)
    sent = {**SEND, "messageId": "x" * 1_500, "body": "x"}
    assert request_of(sent, wire.SendMessage).message_id == "x" * 1_500


@pytest.mark.parametrize("good", ["a", "...", "__x", "x__", "_", "é", "💬", "a b", "x" * 128])
def test_every_other_id_is_taken(good: str) -> None:
    """Apps choose their own."""
    assert request_of({"target": good}, wire.ChangeEdge).target == good


def test_an_id_of_what_may_be_there_is_not_judged() -> None:
    """What cannot be is not there, which is the same answer as "not yours"."""
    for odd in ("", "a/b", ".."):
        asked = request_of({"conversationId": odd}, wire.ListMessages)
        assert asked.conversation_id == odd


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, 'mode "send" takes a body'),
        ({"mode": "mirror", "body": "x"}, 'mode "mirror" takes a messageId, and neither'),
        ({"mode": "mirror", "attachments": []}, 'mode "mirror" takes a messageId, and neither'),
        ({"mode": "mirror", "messageId": None}, 'mode "mirror" takes a messageId'),
        ({"mode": "other"}, "Invalid enum value"),
        ({"body": "x" * (wire.BODY_MAX_LENGTH + 1)}, "length <= 32768"),
        ({"senderId": "u2", "body": "x"}, "unknown field `senderId`"),
    ],
)
def test_a_send_that_contradicts_itself_is_refused(more: dict[str, object], said: str) -> None:
    """Whoever mirrors has written the contents already; nobody names the sender."""
    assert said in refused({**SEND, **more}, wire.SendMessage)


def test_an_edit_changes_something() -> None:
    """An edit of nothing would only count the version up."""
    assert "an edit takes" in refused(SEND, wire.EditMessage)


@pytest.mark.parametrize(
    "attachment",
    [
        {"a": [[1]]},
        {"": 1},
        {"__a__": 1},
        {"x" * 1_501: 1},
        {"a": 2**63},
        {"a": -(2**63) - 1},
        {"a": {"b": [{"c": {"__d__": 1}}]}},
    ],
    ids=lambda attachment: str(attachment)[:30],
)
def test_what_firestore_does_not_keep_is_refused(attachment: dict[str, object]) -> None:
    """Before anything is written, and with a reason."""
    refused({**SEND, "attachments": [attachment]}, wire.SendMessage)
    refused({**SEND, "attachments": [attachment]}, wire.EditMessage)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"])
def test_nobody_has_read_anything_before_1970(moment: str) -> None:
    """The year 0 cannot be written down, and ended the call as our own fault."""
    said = refused({"conversationId": "c1", "readAt": moment}, wire.MarkRead)
    assert "before 1970" in said


@pytest.mark.parametrize(
    ("kind", "contents"), [(wire.SendMessage, {}), (wire.EditMessage, {"body": "x"})]
)
def test_attachments_have_few_values(kind: type[wire.Request], contents: dict[str, object]) -> None:
    """Two bytes of a request are a value that every reader pays for (issue 7)."""
    # The list's element, its field, and the numbers.
    most = [1] * (wire.ATTACHMENT_VALUES_MAX_COUNT - 2)
    request_of({**SEND, **contents, "attachments": [{"a": most}]}, kind)
    said = refused({**SEND, **contents, "attachments": [{"a": [*most, 1]}]}, kind)
    assert "more than 500 values" in said


def test_attachments_may_be_nested_as_firestore_has_it() -> None:
    """And no deeper."""
    nested: object = 1
    for _ in range(wire.ATTACHMENT_DEPTH_MAX - 1):
        nested = {"a": nested}
    assert request_of({**SEND, "attachments": [nested]}, wire.SendMessage).attachments == [nested]
    assert "nested" in refused({**SEND, "attachments": [{"a": nested}]}, wire.SendMessage)


def test_times_are_read_as_microseconds() -> None:
    """Of any offset."""
    asked = {"conversationId": "c1", "readAt": "1970-01-01T01:00:00.000001+01:00"}
    assert request_of(asked, wire.MarkRead).read_us == 1
    assert request_of({"conversationId": "c1"}, wire.MarkRead).read_us is None


def test_an_answer_has_all_of_its_fields() -> None:
    """A client that meets a missing field cannot tell an old gateway from a null."""
    answer = wire.MessageResult(
        mirrored=False, token=None, conversation_id="c1", message_id="m1", message=None
    )
    assert msgspec.to_builtins(answer) == {
        "mirrored": False,
        "token": None,
        "conversationId": "c1",
        "messageId": "m1",
        "message": None,
    }
