"""
Documents that are StoreMirror's own, and so are never mirrored.

Whatever StoreMirror writes into Firestore by itself, beside the application's documents, or
relies on there, has its pattern here, and nowhere else: a declaration that watched it would have
each write call for the next one.  Today that is one document, which is read and never written.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Collection of a document that is never there; reading it tells Firestore's time of now.
PROBE_COLLECTION: Final = "storemirror-probe"

#: Path pattern -> what StoreMirror has it for.
OWN_PATTERNS: Final[Mapping[str, str]] = {
    f"{PROBE_COLLECTION}/{{probe}}": "it is asked for Firestore's time, and must never be there"
}


def own_pattern_watched(path: str, own: Mapping[str, str] = OWN_PATTERNS) -> str | None:
    """
    Give the pattern of our own that a declared path would watch; None when there is none.

    Args:
        path: a path pattern, such as "users/{userId}/blocks/{blockedId}".
        own: the patterns of our own; what lies below their documents is ours too.

    >>> own_pattern_watched("storemirror-probe/{any}/more/{thing}")
    'storemirror-probe/{probe}'
    >>> own_pattern_watched("probes/{storemirror}") is None
    True
    """
    # Collections are at the same places in all patterns, and ids are parameters.
    collections = path.split("/")[::2]
    for pattern in own:
        ours = pattern.split("/")[::2]
        if collections[: len(ours)] == ours:
            return pattern
    return None
