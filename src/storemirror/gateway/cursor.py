"""
Cursors: a place in a list, as opaque text that means the same on both sources.

Pure: no I/O.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from storemirror.clock import FIRST_US, LAST_US
from storemirror.errors import CallRefused
from storemirror.gateway.ids import is_document_id
from storemirror.gateway.port import Position, WriteToken

#: Longest cursor or token that is looked at: an id has at most 1,500 bytes, a path a few.
_MAX_LENGTH: Final = 8_192

_ENCODER: Final = msgspec.json.Encoder()
_PLACE: Final = msgspec.json.Decoder(tuple[str, int, str])
_WRITE: Final = msgspec.json.Decoder(tuple[str, int])


def cursor_of(position: Position, *, direction: str) -> str:
    """
    Write a place down.

    Args:
        position: the last item seen.
        direction: "older" or "newer": what is asked for with it.

    >>> position_of(cursor_of(Position(time_us=7, id="c1"), direction="older"))
    ('older', Position(time_us=7, id='c1'))
    """
    return _text(_ENCODER.encode((direction, position.time_us, position.id)))


def position_of(cursor: str) -> tuple[str, Position]:
    """
    Read a cursor: "older" or "newer", and the place.

    Raises:
        CallRefused: it is none of ours; INVALID_ARGUMENT.
    """
    try:
        direction, time_us, name = _PLACE.decode(_bytes(cursor))
    except (msgspec.DecodeError, ValueError):
        raise _refused("cursor") from None
    is_ours = (
        direction in ("older", "newer") and FIRST_US <= time_us <= LAST_US and is_document_id(name)
    )
    if not is_ours:
        raise _refused("cursor")
    return direction, Position(time_us=time_us, id=name)


def token_of(write: WriteToken) -> str:
    """
    Write down what a later read must show.

    >>> write_of(token_of(WriteToken(path="users/a/following/b", version=20))).version
    20
    """
    return _text(_ENCODER.encode((write.path, write.version)))


def write_of(token: str) -> WriteToken:
    """
    Read a write's token.

    Raises:
        CallRefused: it is none of ours; INVALID_ARGUMENT.
    """
    try:
        path, version = _WRITE.decode(_bytes(token))
    except (msgspec.DecodeError, ValueError):
        raise _refused("token") from None
    if not 0 <= version < 2**63:
        raise _refused("token")
    return WriteToken(path=path, version=version)


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if len(text) > _MAX_LENGTH or not text.isascii():
        raise ValueError("not a cursor")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError("not a cursor") from exc


def _refused(what: str) -> CallRefused:
    return CallRefused("INVALID_ARGUMENT", f"this {what} is none that the gateway gave")
