"""Mirrors as earlier releases left them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from storemirror.model.load import load_model
from tests.support.mirrors import MirrorUnderTest, installed_mirror

#: The index of messages, before it had the sender.
_EARLIER: Final = (
    "DROP INDEX storemirror.dm_message_latest",
    "CREATE INDEX dm_message_latest ON storemirror.dm_message"
    " (conversation_id, sent_at DESC, message_id DESC) WHERE row_state = 'live'",
)


@pytest.fixture
async def earlier(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[MirrorUnderTest]:
    """A mirror as an earlier release installed it."""
    async with installed_mirror(load_model(), await new_database()) as made:
        for statement in _EARLIER:
            await made.execute(statement)
        yield made
