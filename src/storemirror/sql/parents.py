"""
Whether stubs are made before a batch is tried, or once it was seen to lack parents.

A batch whose parents are missing ends in `ParentMissing`, and all that the database did for it was
for nothing; stubs that were asked for, and were there, cost a transaction for nothing.  So parents
whose rows were seen are remembered, and of the others stubs are made first for as long as that
makes any.  What is remembered decides on cost alone: a purge may take a row that was seen, and the
procedures tell.  Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

from storemirror.model.entity import Model

#: Entity name -> keys of its rows.
Keys = Mapping[str, Set[tuple[str, ...]]]

#: Parents remembered of each entity, some 200 bytes each.
_MOST_KNOWN: Final = 20_000


class KnownParents:
    """The roll-up parents that one writer's batches have found in their tables."""

    def __init__(self, model: Model, *, most_known: int = _MOST_KNOWN) -> None:
        """Know none yet; of each entity at most `most_known` are remembered."""
        self._most_known = most_known
        self._known: dict[str, set[tuple[str, ...]]] = {
            e.rollup.into: set() for e in model if e.rollup is not None
        }
        self._are_new_usual = False

    def to_make_first(self, wanted: Keys) -> Keys:
        """Give the parents of a batch whose stubs are worth making before it is tried."""
        if not self._are_new_usual:
            return {}
        return {
            name: unknown
            for name, known in self._known.items()
            if (unknown := wanted.get(name, frozenset()) - known)
        }

    def note_made(self, stub_count: int) -> None:
        """Learn how many of the stubs that were asked for first were not there yet."""
        self._are_new_usual = stub_count > 0

    def note_missing(self) -> None:
        """Learn that a batch lacked a parent: one that came anew, or that a purge has taken."""
        self._are_new_usual = True
        for known in self._known.values():
            known.clear()

    def note_there(self, wanted: Keys) -> None:
        """Learn that all parents of a batch have rows: it was committed."""
        for name, known in self._known.items():
            seen = wanted.get(name, frozenset())
            if len(known) + len(seen) > self._most_known:
                known.clear()
            known.update(seen)
