"""The rules that every bus shares."""

from __future__ import annotations

import pytest

from storemirror.bus.port import RESUBMITTED_FROM, Message
from storemirror.bus.rules import MAX_REASON_LENGTH, refuse_bad_messages, replacement_of, storable
from storemirror.errors import BusRefused


def test_a_refusal_names_the_message_and_not_its_body() -> None:
    """Logs are read by people who may not read documents."""
    bad = Message(message_id="x" * 129, body=b"secret", content_type="")
    with pytest.raises(BusRefused, match="129") as refused:
        refuse_bad_messages([bad])
    assert "secret" not in str(refused.value)


def test_a_replacement_keeps_body_content_type_and_properties() -> None:
    """It is the same event; only its id is new."""
    dead = Message(message_id="e1", body=b"b", content_type="c", properties={"k": "v"})
    assert replacement_of(dead, run="r1") == Message(
        message_id="e1.r1",
        body=b"b",
        content_type="c",
        properties={"k": "v", RESUBMITTED_FROM: "e1"},
    )


def test_a_reason_is_cut_and_not_refused() -> None:
    """Words may get lost; a dead letter may not."""
    assert storable("x" * 10_000) == "x" * MAX_REASON_LENGTH
