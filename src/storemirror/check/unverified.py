"""
Which documents, marked unverified when their dead letters were purged, a check has shown right.

Pure: the check tells what it saw, and acts on what is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from storemirror.sql.port import UnverifiedDocument


class Watch:
    """What a check saw of the documents that are marked."""

    def __init__(self, marks: Sequence[UnverifiedDocument]) -> None:
        """Take the marks that were there before the check pinned its view."""
        self._marks = marks
        self._paths = {mark.path for mark in marks}
        self._seen: set[str] = set()
        self._doubtful: set[str] = set()

    def __bool__(self) -> bool:
        """Tell whether there is anything to watch for."""
        return bool(self._marks)

    def saw(self, path: str) -> None:
        """Note that both sides of a document were compared."""
        if path in self._paths:
            self._seen.add(path)

    def doubted(self, paths: Iterable[str]) -> None:
        """Note documents that differ, or were not shown to be equal."""
        self._doubtful.update(paths)

    def decide_verified(
        self, *, compared: Collection[str], declared: Collection[str], is_limited: bool
    ) -> list[UnverifiedDocument]:
        """
        Give the marks of documents that were shown to be right.

        A mark that names no document that can be compared, because its message did not tell, or
        because no entity is declared for it, goes once every document of the mirror was compared
        and none is in doubt: whichever it was about, its loss has left no trace.

        Args:
            compared: names of the entities that were compared.
            declared: names of all entities.
            is_limited: whether only the first documents of each entity were compared.
        """
        is_whole = not is_limited and set(compared) >= set(declared) and not self._doubtful

        def is_verified(mark: UnverifiedDocument) -> bool:
            if mark.path is None or mark.entity not in declared:
                return is_whole
            is_covered = mark.path in self._seen if is_limited else mark.entity in compared
            return is_covered and mark.path not in self._doubtful

        return [mark for mark in self._marks if is_verified(mark)]
