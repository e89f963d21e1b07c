"""What an app writes with Google's client stands in SQL, and what is damaged there is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
from google.cloud.firestore_v1 import SERVER_TIMESTAMP

from storemirror.check.compare import MismatchKind
from storemirror.check.result import CheckResult
from storemirror.event.change import Origin
from tests.integration.firestore.app import App

pytestmark = pytest.mark.postgres

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def social_documents() -> dict[str, dict[str, Any]]:
    """Conversations with messages, a follow graph, blocks; and collections that nobody mirrors."""
    documents: dict[str, dict[str, Any]] = {
        f"conversations/c{c}": {
            "createdAt": START,
            "participantIds": ["ann", "bob", f"u{c}"],
            "lastReadAt": {"ann": START + timedelta(microseconds=1)},
        }
        for c in range(5)
    }
    for number in range(40):
        documents[f"conversations/c{number % 6}/messages/m{number}"] = {
            "senderId": "ann",
            "body": f"hello {number} \U0001f600",
            "sentAt": START + timedelta(seconds=number),
            "attachments": [{"size": 2**53 + 1, "scale": 0.1}],
        }
    for number in range(10):
        documents[f"users/ann/following/u{number}"] = {"createdAt": SERVER_TIMESTAMP}
        documents[f"users/u{number}/blocks/ann"] = {"createdAt": START}
    documents["albums/a1/messages/m1"] = {"title": "of another app"}
    documents["users/ann"] = {"name": "Ann"}
    return documents


MIRRORED_COUNT = 5 + 40 + 20


async def mirrored(app: App) -> None:
    """Write the app's documents and bring them into SQL."""
    await app.write(social_documents())
    assert await app.backfill() == MIRRORED_COUNT
    await app.settle()


def row_counts(found: CheckResult) -> dict[str, int]:
    """Give the live rows of each check."""
    return {name: counts.row_count for name, counts in found.counts.items()}


async def test_what_an_app_writes_stands_in_sql(app: App) -> None:
    """The whole way: Google's client, Firestore, our adapter, a bus, the writer, the check."""
    await mirrored(app)
    found = await app.check()
    assert found.mismatches == ()
    assert found.is_clean
    assert row_counts(found) == {"conversations": 5, "messages": 40, "follow": 10, "blocks": 10}
    assert await app.pipe.dead_letters() == []


async def test_deletes_and_recreations_reach_sql_in_any_order(app: App) -> None:
    """A document deleted and written anew is alive, though its delete arrives last."""
    await mirrored(app)
    gone, reborn = "users/u1/blocks/ann", "conversations/c1/messages/m1"
    edited = "conversations/c2/messages/m2"
    await app.delete(gone, reborn)
    deletes = await app.observed(gone, reborn)
    await app.write(
        {
            reborn: {"senderId": "bob", "body": "again", "sentAt": START},
            edited: {"senderId": "ann", "body": "edited", "sentAt": START},
        }
    )
    assert await app.backfill() == MIRRORED_COUNT - 1
    await app.settle()
    await app.publish(deletes, Origin.RECONCILE)
    await app.settle()
    found = await app.check()
    assert found.mismatches == ()
    assert row_counts(found) == {"conversations": 5, "messages": 40, "follow": 10, "blocks": 9}


async def test_a_backfill_repeated_changes_nothing(app: App) -> None:
    """Its events carry Firestore's own commit times, so the second time they are duplicates."""
    await mirrored(app)
    before = await app.pipe.under_test.audit_ids(app.pipe.model["DmMessage"])
    await app.backfill()
    await app.settle()
    assert await app.pipe.under_test.audit_ids(app.pipe.model["DmMessage"]) == before
    assert (await app.check()).is_clean


DAMAGES: list[tuple[LiteralString, MismatchKind, str, str]] = [
    (
        "UPDATE storemirror.dm_message SET body = 'forged' WHERE message_id = 'm7'",
        MismatchKind.FIELD_DIFFERS,
        "conversations/c1/messages/m7",
        "body",
    ),
    (
        "DELETE FROM storemirror.follow_edge WHERE followee_id = 'u3'",
        MismatchKind.MISSING_ROW,
        "users/ann/following/u3",
        "",
    ),
    (
        "UPDATE storemirror.user_block SET created_at = created_at + interval '1 microsecond'"
        " WHERE blocker_id = 'u5'",
        MismatchKind.FIELD_DIFFERS,
        "users/u5/blocks/ann",
        "createdAt",
    ),
]


@pytest.mark.parametrize(("damage", "kind", "path", "field"), DAMAGES)
async def test_damage_in_sql_is_found_and_named(
    app: App, damage: LiteralString, kind: MismatchKind, path: str, field: str
) -> None:
    """A check that is clean on a damaged mirror would be worse than none."""
    await mirrored(app)
    assert await app.pipe.under_test.execute(damage) == 1
    found = await app.check()
    assert [(m.kind, m.path, m.field) for m in found.mismatches] == [(kind, path, field)]


async def test_a_document_that_sql_never_heard_of_is_found(app: App) -> None:
    """A lost trigger delivery looks like this."""
    await mirrored(app)
    await app.write({"users/bob/following/ann": {"createdAt": START}})
    await app.delete("users/ann/following/u0")
    found = await app.check()
    assert {(m.kind, m.path) for m in found.mismatches} == {
        (MismatchKind.ROW_OF_GONE_DOCUMENT, "users/ann/following/u0"),
        (MismatchKind.MISSING_ROW, "users/bob/following/ann"),
    }
