"""Events as the procedures take them."""

from __future__ import annotations

import json

from storemirror.model.load import load_model
from storemirror.sql.postgres.batch import BatchEncoder
from tests.contract.sql.documents import Documents

BASE_US = 1_700_000_000_000_000
MODEL = load_model()
DOCS = Documents(MODEL, BASE_US)
ENCODER = BatchEncoder(MODEL, {entity.name: 3 for entity in MODEL})


def test_a_write_carries_every_column() -> None:
    """A column that is left out would be NULL, whatever the document says."""
    [event] = json.loads(ENCODER.events_json([DOCS.message("c", "m", 1, body=None)]))
    change = DOCS.message("c", "m", 1, body=None).change
    assert event == {
        "conversation_id": "c",
        "message_id": "m",
        "last_event_id": change.event_id,
        "last_event_type": "storemirror.document.written.v1",
        "last_event_time": "2023-11-14T22:13:20.000001Z",
        "last_event_version": str(2 * BASE_US + 2),
        "last_event_origin": "trigger",
        "last_event_digest": change.digest,
        "mapping_revision": 3,
        "observed_at": "2023-11-14T22:13:20.000001Z",
        "sender_id": "u1",
        "body": None,
        "sent_at": "2023-11-14T22:13:20.000001Z",
        "edited_at": None,
        "attachments": None,
    }


def test_a_delete_carries_no_contents() -> None:
    """There are none, and NULL is what a tombstone's columns are."""
    [event] = json.loads(ENCODER.events_json([DOCS.gone("DmMessage", ("c", "m"), 1)]))
    assert event["last_event_version"] == str(2 * BASE_US + 3)
    assert "body" not in event
    assert "children" not in event


def test_child_rows_go_by_table() -> None:
    """With the names that the table has."""
    conversation = DOCS.conversation("c", 1, participants={"a": None})
    [event] = json.loads(ENCODER.events_json([conversation]))
    assert event["children"] == {"dm_participant": [{"user_id": "a", "last_read_at": None}]}


def test_a_version_of_64_bits_keeps_its_last_digit() -> None:
    """A JSON number has only 53 bits in many readers."""
    repair = DOCS.message("c", "m", 1, expected_version=2**63 - 1)
    [event] = json.loads(ENCODER.events_json([repair]))
    assert event["expected_version"] == "9223372036854775807"


def test_keys_are_sorted_and_go_by_table() -> None:
    """Sorted or not, the procedures lock in key order; the same text for the same keys."""
    keys: dict[str, set[tuple[str, ...]]] = {
        "FollowEdge": {("b", "x"), ("a", "y")},
        "DmConversation": {("c",)},
    }
    assert json.loads(ENCODER.keys_json(keys)) == {
        "follow_edge": [
            {"follower_id": "a", "followee_id": "y"},
            {"follower_id": "b", "followee_id": "x"},
        ],
        "dm_conversation": [{"conversation_id": "c"}],
    }
