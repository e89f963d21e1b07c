"""What a write's token may ask, and what nobody learns from one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import CallRefused
from storemirror.gateway.port import ConversationPage, MessagePage, Position, WriteToken
from storemirror.gateway.shown import ShownWrites
from storemirror.model.entity import Entity
from storemirror.model.load import load_model

MODEL = load_model()
MESSAGE = "conversations/c1/messages/m1"


class Inbox:
    """SQL's reader: `viewer` takes part in c1."""

    async def conversations(
        self, viewer: str, *, older_than: Position | None, limit: int
    ) -> ConversationPage:
        raise NotImplementedError

    async def messages(
        self,
        viewer: str,
        conversation_id: str,
        *,
        older_than: Position | None = None,
        newer_than: Position | None = None,
        limit: int,
    ) -> MessagePage | None:
        if (viewer, conversation_id) != ("viewer", "c1"):
            return None
        return MessagePage(items=(), has_older=False, has_newer=False, as_of_us=None)


def shown(versions: Mapping[str, int]) -> ShownWrites:
    async def version_of(entity: Entity, key: tuple[str, ...]) -> int | None:
        return versions.get(entity.path_of(key))

    return ShownWrites(version_of, Inbox(), MODEL, SystemClock())


@pytest.mark.parametrize(("version", "is_shown"), [(18, False), (20, True), (22, True)])
async def test_a_write_is_shown_by_its_version_and_every_later_one(
    version: int, is_shown: bool
) -> None:
    """Somebody may have written again meanwhile."""
    asked = shown({MESSAGE: version}).in_conversation(
        WriteToken(path=MESSAGE, version=20), "viewer", "c1"
    )
    assert await asked() is is_shown


async def test_a_document_that_sql_has_not_got_is_not_shown() -> None:
    """It is on its way."""
    write = WriteToken(path=MESSAGE, version=20)
    assert not await shown({}).in_conversation(write, "viewer", "c1")()


async def test_a_token_of_anothers_conversation_is_as_one_of_none() -> None:
    """Else whoever guesses ids would learn which there are."""
    write = WriteToken(path=MESSAGE, version=20)
    assert await shown({MESSAGE: 20}).in_inbox(write, "viewer")()
    assert not await shown({MESSAGE: 20}).in_inbox(write, "stranger")()
    assert not await shown({MESSAGE: 20}).in_conversation(write, "stranger", "c1")()


@pytest.mark.parametrize(
    "path",
    ["conversations/c2/messages/m1", "users/a/following/b", "elsewhere/x", ""],
)
def test_a_token_of_something_else_is_refused(path: str) -> None:
    """A conversation's page cannot show it, and would wait for nothing."""
    with pytest.raises(CallRefused) as refused:
        shown({}).in_conversation(WriteToken(path=path, version=20), "viewer", "c1")
    assert refused.value.status == "INVALID_ARGUMENT"


def test_a_token_of_anothers_edge_is_refused() -> None:
    """Users see how they stand to others, and nobody else's edges."""
    for path in ("users/other/following/viewer", "users/other/blocks/viewer", MESSAGE):
        with pytest.raises(CallRefused):
            shown({}).of_user(WriteToken(path=path, version=20), "viewer")
    shown({}).of_user(WriteToken(path="users/viewer/blocks/b", version=20), "viewer")


def test_what_is_still_to_come_is_not_waited_for() -> None:
    """Whoever makes up such a token would have Firestore serve every read, and pay for it."""
    in_an_hour_us = SystemClock().now_us() + 3_600_000_000
    with pytest.raises(CallRefused):
        shown({}).in_inbox(WriteToken(path=MESSAGE, version=2 * in_an_hour_us), "viewer")
    shown({}).in_inbox(WriteToken(path=MESSAGE, version=2 * SystemClock().now_us()), "viewer")
