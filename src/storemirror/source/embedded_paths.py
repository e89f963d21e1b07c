"""
Paths of documents in the embedded store, and where in its index the documents of a pattern lie.

Pure: no I/O, no vendor library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from storemirror.source.key_ranges import path_of_key
from storemirror.source.port import KeyRange

#: Longest id, in UTF-8 bytes, as in Firestore.
_MAX_ID_BYTES: Final = 1_500
#: Behind every id that can be: what follows a collection's last document.
_LAST: Final = "\U0010ffff"


def segments_of(path: str) -> list[str]:
    """
    Split a document's path.

    Raises:
        ValueError: it is no document's: an odd number of segments, an empty one, or one that
            cannot be stored.
    """
    segments = path.split("/")
    if len(segments) % 2:
        raise ValueError(f"{path!r} is no document's path: it has an odd number of segments")
    for segment in segments:
        if not 0 < len(segment.encode(errors="surrogatepass")) <= _MAX_ID_BYTES:
            raise ValueError(f"{path!r}: a segment has 1 to {_MAX_ID_BYTES} bytes")
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in segment):
            raise ValueError(f"{path!r}: NUL or half of a surrogate pair cannot be in a path")
    return segments


def collection_of(segments: Sequence[str]) -> str:
    """
    Give a document's collection without ids.

    >>> collection_of(["conversations", "c1", "messages", "m1"])
    'conversations/*/messages'
    """
    return "/".join("*" if place % 2 else s for place, s in enumerate(segments[:-1]))


def wanted_segments(pattern: Sequence[str]) -> list[str | None] | None:
    """
    Give the pattern's fixed segments, None for parameters; None when every id is a parameter.

    >>> wanted_segments(["tenants", "acme", "users", "{userId}"])
    ['tenants', 'acme', 'users', None]
    """
    if not pattern or len(pattern) % 2 or any(s.startswith("{") for s in pattern[::2]):
        raise ValueError(f"{'/'.join(pattern)!r} is no pattern of documents' paths")
    if all(s.startswith("{") for s in pattern[1::2]):
        return None
    return [None if s.startswith("{") else s for s in pattern]


def bounds_of_scan(pattern: Sequence[str], within: KeyRange) -> dict[str, Any]:
    """Give where a scan begins and ends.

    An end always: one that may be absent would be a filter and no bound of the index in a plan
    that is used again, and the last page of a range would read to the end of the collection.
    """
    up_to = [f"{pattern[0]}{_LAST}"]
    if within.up_to is not None:
        up_to = path_of_key(pattern, within.up_to).split("/")
    after = [] if within.after is None else path_of_key(pattern, within.after).split("/")
    return {"collection": collection_of(pattern), "after": after, "up_to": up_to}


def bounds_of_collection(segments: Sequence[str]) -> dict[str, Any]:
    """
    Give where one collection's documents begin and end.

    >>> bounds_of_collection(["users", "u", "blocks"])["collection"]
    'users/*/blocks'
    """
    return {
        "collection": collection_of([*segments, ""]),
        "above": list(segments),
        "up_to": [*segments[:-1], f"{segments[-1]}{_LAST}"],
    }
