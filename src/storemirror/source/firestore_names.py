"""
Paths of documents in Firestore, and which query reads the documents of a path pattern.

Firestore sorts names segment by segment as UTF-8 bytes, with one exception: ids of the form
`__id7__`, which only an import from Datastore makes, come first, by their number.  Pure: no I/O,
no vendor library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storemirror.errors import SourceRefused

#: The id that sorts before all others; Google's clients start ranges of names with it too.
LOWEST_ID: Final = "__id-9223372036854775808__"
#: Longest id, in UTF-8 bytes.
_MAX_ID_BYTES: Final = 1_500

_NUMERIC_ID: Final = re.compile(r"__id-?[0-9]+__")
_RESERVED_ID: Final = re.compile(r"\.\.?|__.*__", re.DOTALL)


def segments_of(path: str) -> list[str]:
    """
    Split a document's path.

    Raises:
        ValueError: it is no document's: an odd number of segments, an empty one, or one that
            cannot be stored.

    >>> segments_of("users/a")
    ['users', 'a']
    """
    segments = path.split("/")
    if len(segments) % 2:
        raise ValueError(f"{path!r} is no document's path: it has an odd number of segments")
    for segment in segments:
        if not 0 < len(segment.encode(errors="surrogatepass")) <= _MAX_ID_BYTES:
            raise ValueError(f"{path!r}: a segment has 1 to {_MAX_ID_BYTES} bytes")
        if not segment.isascii() and any("\ud800" <= c <= "\udfff" for c in segment):
            raise ValueError(f"{path!r}: half of a surrogate pair cannot be in a path's segment")
    return segments


def is_reserved(segments: Sequence[str]) -> bool:
    """
    Tell whether Firestore refuses every read and write of this path, so that nothing is there.

    >>> is_reserved(["users", ".."]), is_reserved(["users", "__id7__"]), is_reserved(["users", "a"])
    (True, False, False)
    """
    return any(_RESERVED_ID.fullmatch(s) and not _NUMERIC_ID.fullmatch(s) for s in segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """The query that reads a pattern's documents, by rising name, and perhaps others with them."""

    pattern: tuple[str, ...]
    #: Path of the document that the query starts below; empty for the database's root.
    parent: str
    collection_id: str
    #: Whether it is a collection group: every collection of this id, however deep below `parent`.
    is_group: bool
    #: Path prefix, a collection's, that all wanted documents have.
    root: tuple[str, ...]

    @property
    def lowest_path(self) -> str:
        """Give the lowest path that any wanted document can have."""
        return "/".join((*self.root, LOWEST_ID))

    def fits(self, segments: Sequence[str]) -> bool:
        """
        Tell whether a document is wanted.

        Raises:
            SourceRefused: it is, and Firestore sorts it by a number in its path.
        """
        if len(segments) != len(self.pattern):
            return False
        is_numbered = False
        for segment, wanted in zip(segments, self.pattern, strict=True):
            if segment != wanted and not wanted.startswith("{"):
                return False
            is_numbered = is_numbered or _NUMERIC_ID.fullmatch(segment) is not None
        if is_numbered:
            raise SourceRefused(
                f"{'/'.join(segments)}: an id of this form comes from Datastore, and Firestore"
                " sorts it by its number; its collection cannot be read by rising key"
            )
        return True

    def is_past(self, segments: Sequence[str]) -> bool:
        """Tell whether no wanted document can follow this one."""
        here = [segment.encode() for segment in segments[: len(self.root)]]
        return here > [segment.encode() for segment in self.root]


def plan_scan(pattern: Sequence[str]) -> ScanPlan:
    """
    Choose the query that reads the fewest documents beside those of a pattern.

    Args:
        pattern: segments of a path pattern; parameters are in braces, and are ids.

    Raises:
        ValueError: the pattern leaves a collection open, or ends in one.

    >>> plan_scan(["tenants", "acme", "users", "{userId}"]).parent
    'tenants/acme'
    >>> plan_scan(["conversations", "{c}", "messages", "{m}"]).is_group
    True
    """
    if not pattern or len(pattern) % 2 or any(s.startswith("{") for s in pattern[::2]):
        raise ValueError(f"{'/'.join(pattern)!r} is no pattern of documents' paths")
    fixed = 0
    while fixed < len(pattern) - 2 and not pattern[fixed + 1].startswith("{"):
        fixed += 2
    return ScanPlan(
        pattern=tuple(pattern),
        parent="/".join(pattern[:fixed]),
        collection_id=pattern[-2],
        is_group=len(pattern) - fixed > 2,
        root=tuple(pattern[: fixed + 1]),
    )
