"""Whether direct messages are declared as the gateway reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import storemirror.model
from storemirror.errors import ConfigError
from storemirror.model.load import load_model
from storemirror.model.social import messaging_of
from tests.unit.model.declarations import model_of

BUILTIN = (Path(storemirror.model.__file__).parent / "social.toml").read_text()
#: What is written instead -> what is said of it.
MISTAKES: Sequence[tuple[str, str, str]] = (
    ('name     = "DmConversation"', 'name     = "Talk"', "lack them"),
    ('name     = "DmMessage"', 'name     = "Line"', "lack them"),
    ('name = "DmParticipant"', 'name = "Member"', "no child table DmParticipant"),
    ('lastReadAt = { type = "timestamp"', 'lastReadAt = { type = "string"', "lastReadAt must be"),
    ("lastReadAt = {", "seenAt = {", "lastReadAt must be"),
    (
        'createdAt = { type = "timestamp", required = true }',
        'createdAt = { type = "timestamp" }',
        "DmConversation.createdAt must be declared, and required",
    ),
    (
        'senderId    = { type = "string", required = true }',
        'senderId    = { type = "reference", required = true }',
        "DmMessage.senderId is reference, and string is wanted",
    ),
    ('attachments = { type = "json" }', 'attachments = { type = "text" }', "json is wanted"),
    ('lastMessageId = "messageId", ', "", "must set lastMessageId to messageId"),
    ('"body:140"', '"senderId"', "must set lastMessagePreview to body"),
    (
        'first_of = ["lastMessageAt", "createdAt"]',
        'first_of = ["createdAt", "lastMessageAt"]',
        "lastActivityAt must be derived",
    ),
    ("conversations/{", "tenants/{tenantId}/conversations/{", "has 2 key parts"),
)


def test_the_built_in_entities_are_read_with_all_they_have() -> None:
    """What may be left out is there."""
    found = messaging_of(load_model())
    assert (found.conversation.name, found.message.name) == ("DmConversation", "DmMessage")
    assert found.participant.name == "DmParticipant"
    assert found.optional == {"title", "lastMessagePreview", "body", "editedAt", "attachments"}


@pytest.mark.parametrize(("right", "wrong", "words"), MISTAKES, ids=lambda text: text[:30])
def test_what_cannot_be_read_is_named(right: str, wrong: str, words: str, tmp_path: Path) -> None:
    """An app may replace the declarations; before anything is opened it is told what is missed."""
    assert right in BUILTIN
    text = BUILTIN.replace(right, wrong)
    for name in ("DmConversation", "DmMessage"):
        # The roll-up goes into whatever the conversation is called.
        text = text if f'name     = "{name}"' in text else text.replace(f'= "{name}"', '= "Talk"')
    with pytest.raises(ConfigError, match=re.escape(words)):
        messaging_of(model_of(tmp_path, text))


def test_columns_may_be_left_out(tmp_path: Path) -> None:
    """Nobody then has a title, or attachments."""
    text = BUILTIN.replace('title     = { type = "string" }\n', "")
    text = text.replace('attachments = { type = "json" }\n', "")
    text = text.replace(', lastMessagePreview = "body:140"', "")
    assert messaging_of(model_of(tmp_path, text)).optional == {"body", "editedAt"}
