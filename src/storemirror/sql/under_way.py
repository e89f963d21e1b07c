"""What of a `schema apply` is under way, or was left by one that ended halfway.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from storemirror.sql.catalogue import FoundIndex, FoundSchema, FoundTable, WantedSchema


def decide_under_way(
    wanted: WantedSchema, found: FoundSchema, builds: Mapping[str, str]
) -> Iterator[str]:
    """
    Say how far each index is that is built to take another one's place, a sentence each.

    Args:
        wanted: of this code's declarations.
        found: what is installed.
        builds: index that is being built now -> who does it, and what it is at, as a clause.
    """
    for table in wanted.tables:
        at = found.tables.get(table.name, FoundTable())
        for index, name in table.replacements.items():
            definition = table.indexes[index]
            if name in builds:
                yield f"index {name}, which is to replace {index}, is being built {builds[name]}"
            elif name in at.indexes:
                yield _left(index, name, definition, at)


def _left(index: str, name: str, definition: str, at: FoundTable) -> str:
    """Say what becomes of an index that nobody builds any more."""
    now = at.indexes.get(index, FoundIndex(definition=""))
    if now.definition == definition:
        return f"index {name} was left, and nothing needs it: drop it"
    if not at.indexes[name].is_whole or at.indexes[name].definition != definition:
        return (
            f"index {name} is not whole, or has other columns than {index} is to have: the next"
            " `storemirror schema apply` builds it anew"
        )
    return (
        f"index {name} is built: the next `storemirror schema apply` puts it in the place of"
        f" {index}"
    )
