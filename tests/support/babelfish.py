"""What Babelfish for PostgreSQL does otherwise than SQL Server."""

from __future__ import annotations

import hashlib

#: Characters of a name in PostgreSQL, and those that are kept of a longer one.
_LONGEST = 63
_KEPT = 31


def kept_name(name: str, table: str) -> str:
    """
    Write the name of an index or a constraint as it is kept.

    Source:
        construct_unique_index_name in babelfish-for-postgresql/babelfish_extensions
    """
    whole = f"{name.lower()}{table.lower()}{_digest(name.lower())}"
    return whole if len(whole) <= _LONGEST else whole[:_KEPT] + _digest(whole)


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
