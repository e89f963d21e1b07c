"""
The digest of a document: two documents have the same contents exactly if their digests are equal.

Pure: no I/O.
"""

from __future__ import annotations

import hashlib

import msgspec

from storemirror.event.change import Fields

#: Digest of a deleted document: it has no contents.
NO_DIGEST = ""

_ENCODER = msgspec.json.Encoder(order="sorted")


def digest_of(fields: Fields | None) -> str:
    """
    Give SHA-256, hex, of the document's canonical JSON with sorted names.

    Args:
        fields: canonical fields (`storemirror.event.value`); None for a deleted document.

    >>> digest_of({"a": {"nullValue": None}, "b": {"nullValue": None}}) == digest_of(
    ...     {"b": {"nullValue": None}, "a": {"nullValue": None}})
    True
    >>> digest_of({"x": {"doubleValue": 0.0}}) == digest_of({"x": {"doubleValue": -0.0}})
    False
    """
    if fields is None:
        return NO_DIGEST
    return hashlib.sha256(_ENCODER.encode(fields)).hexdigest()
