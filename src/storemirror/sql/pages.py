"""
What both dialects make of what they read for the gateway.  Pure.

A page is read with one row more than it may have: that one tells whether there are others behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from storemirror.clock import FIRST_US, LAST_US, datetime_from_us
from storemirror.event.change import RowState
from storemirror.model.types import DialectLimits
from storemirror.sql.reads import (
    EdgeRow,
    MessageRow,
    MessageRows,
    Place,
    RelationshipRows,
)

_NO_EDGE: Final = EdgeRow(is_live=False, version=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The place that a page of messages lies beside, and on which side."""

    place: Place
    is_newer: bool


def asked_of(older_than: Place | None, newer_than: Place | None) -> Asked | None:
    """
    Give the place that is asked for; None: the newest messages are.

    Raises:
        ValueError: both are given; the caller has a bug.
    """
    if older_than is not None and newer_than is not None:
        raise ValueError("a page lies behind a place or before one, and not between two")
    if older_than is not None:
        return Asked(place=older_than, is_newer=False)
    return None if newer_than is None else Asked(place=newer_than, is_newer=True)


def page_of(
    rows: Sequence[MessageRow],
    *,
    limit: int,
    asked: Asked | None,
    is_beyond: bool,
    is_at: bool,
) -> MessageRows:
    """
    Make a page of messages.

    Args:
        rows: as they lie from the asked place on, up to one more than `limit`: rising for a page
            of newer messages, else falling.
        limit: most rows.
        asked: the place.
        is_beyond: whether a message lies beyond the place, on the other side than the page.
        is_at: whether one lies at the place itself: to a row of the page it is beyond.

    >>> asked = Asked(place=(5, "a"), is_newer=False)
    >>> page_of([], limit=1, asked=asked, is_beyond=False, is_at=True).has_newer
    False
    """
    has_more = len(rows) > limit
    page = rows[:limit]
    is_behind = asked is not None and (is_beyond or (is_at and bool(page)))
    if asked is not None and asked.is_newer:
        return MessageRows(rows=tuple(reversed(page)), has_older=is_behind, has_newer=has_more)
    return MessageRows(rows=tuple(page), has_older=has_more, has_newer=is_behind)


def moment_of(place: Place) -> datetime:
    """Give the time of a place; one that no document has, as the nearest that one may have."""
    return datetime_from_us(max(FIRST_US, min(place[0], LAST_US)))


def id_of(place: Place) -> str:
    r"""
    Give the document id of a place, or where it is none that the database takes, one beside it.

    >>> id_of((0, "a\0b"))
    'a\x01b'
    """
    return place[1].replace("\0", "\x01").encode(errors="replace").decode()


def can_be_key(value: str, limits: DialectLimits) -> bool:
    r"""
    Tell whether rows can be asked for by this id; with another one nothing is found.

    Drivers fail on U+0000 and on a surrogate by itself; where spaces at the end are passed over,
    the row without them would be found.

    >>> from storemirror.sql.postgres.types import LIMITS
    >>> [can_be_key(value, LIMITS) for value in ("a ", "a\0", "\ud800")]
    [True, False, False]
    """
    if "\0" in value or (limits.ignores_trailing_space and value.endswith(" ")):
        return False
    return value.isascii() or value.encode(errors="replace").decode() == value


def others_of(found: Iterable[tuple[str, int | None]]) -> tuple[tuple[str, int | None], ...]:
    """Put participants in the order of their ids' UTF-8 bytes, whatever the database's is."""
    return tuple(sorted(found, key=_bytes_of_id))


def _bytes_of_id(other: tuple[str, int | None]) -> bytes:
    return other[0].encode()


def relationship_of(found: Iterable[tuple[int, str, int]]) -> RelationshipRows:
    """
    Make a relationship of the rows that are there.

    Args:
        found: which side (0 and 1 follow, 2 and 3 block; the even ones are the viewer's), the
            row's state and its version; without stubs.
    """
    sides = {
        side: EdgeRow(is_live=state == RowState.LIVE.value, version=version)
        for side, state, version in found
    }
    outgoing, incoming, outgoing_block, incoming_block = (sides.get(n, _NO_EDGE) for n in range(4))
    return RelationshipRows(
        outgoing=outgoing,
        incoming=incoming,
        outgoing_block=outgoing_block,
        incoming_block=incoming_block,
    )
