"""
Ids of documents, as clients name them.

Pure: no I/O.
"""

from __future__ import annotations

from storemirror.errors import CallRefused
from storemirror.model.entity import KeyPart
from storemirror.source.firestore_names import is_reserved, segments_of


def is_document_id(text: str) -> bool:
    """
    Tell whether Firestore can have a document of this id.

    >>> [is_document_id(t) for t in ("m1", "", "a/b", ".", "__x__", "__")]
    [True, False, False, False, False, True]
    """
    try:
        return "/" not in text and "\0" not in text and not is_reserved(segments_of(f"any/{text}"))
    except ValueError:
        return False


def is_key(text: str, part: KeyPart) -> bool:
    """Tell whether an id can be this part of a row's key as well."""
    return len(text) <= part.max_length and is_document_id(text)


def checked_id(text: str, part: KeyPart, what: str) -> str:
    """
    Give an id of something that may be there.

    Raises:
        CallRefused: it can be none; INVALID_ARGUMENT.
    """
    if not is_key(text, part):
        raise CallRefused(
            "INVALID_ARGUMENT", f"{what} has 1 to {part.max_length} characters, and no slash"
        )
    return text


def checked_new_id(text: str, part: KeyPart, what: str) -> str:
    """
    Give an id for what is to be made.

    None is made that another database could not have as a key: SQL Server takes "m" and "m " for
    one, and what it cannot have is a dead letter.

    Raises:
        CallRefused: INVALID_ARGUMENT.
    """
    if text.endswith(" ") or not text.isprintable():
        raise CallRefused(
            "INVALID_ARGUMENT", f"{what} does not end in a space, and has no control characters"
        )
    return checked_id(text, part, what)
