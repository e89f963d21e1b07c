"""A document that was read, as a change."""

from __future__ import annotations

import pytest

from storemirror.event.change import Origin, version_of
from storemirror.event.digest import NO_DIGEST, digest_of
from storemirror.event.value import encode_fields
from storemirror.source.port import Document, DocumentRead
from storemirror.source.reread import observed_change

PATH = "users/a/following/b"


def test_a_document_that_is_there_has_its_update_time_as_version() -> None:
    """The trigger's number: an event that was seen already is a duplicate."""
    fields = encode_fields({"createdAt": None})
    document = Document(path=PATH, fields=fields, create_time_us=10, update_time_us=20)
    change = observed_change(
        DocumentRead(path=PATH, document=document, read_time_us=30), Origin.REREAD
    )
    assert change.version == version_of(20, is_deleted=False)
    assert change.observed_at_us == 30
    assert change.fields == fields
    assert change.digest == digest_of(fields)


def test_a_document_that_is_gone_is_a_delete_at_the_read_time() -> None:
    """Later than whatever was deleted, earlier than any re-creation."""
    read = DocumentRead(path=PATH, document=None, read_time_us=30)
    change = observed_change(read, Origin.REREAD)
    assert change.version == version_of(30, is_deleted=True)
    assert change.observed_at_us == 30
    assert change.fields is None
    assert change.digest == NO_DIGEST


@pytest.mark.parametrize("expected_version", [None, 41])
def test_a_repair_says_which_version_it_saw_damaged(expected_version: int | None) -> None:
    """Only then may it lower a version that was damaged upwards."""
    read = DocumentRead(path=PATH, document=None, read_time_us=30)
    change = observed_change(read, Origin.REPAIR, expected_version=expected_version)
    assert change.origin is Origin.REPAIR
    assert change.expected_version == expected_version
