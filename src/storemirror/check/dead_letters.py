"""Which versions of documents are dead letters, by the bodies that the writer refused."""

from __future__ import annotations

from storemirror.apply.dead_letters import all_dead_letters, document_told_by
from storemirror.bus.port import BusAdmin


class DeadLetters:
    """The dead letters of a subscription; read when first asked."""

    def __init__(self, bus_admin: BusAdmin, subscription: str, *, is_acknowledged: bool) -> None:
        """
        Say which.

        Args:
            bus_admin: peeks; not closed here.
            subscription: the writer's.
            is_acknowledged: only those that a person acknowledged; else all.
        """
        self._bus_admin = bus_admin
        self._subscription = subscription
        self._is_acknowledged = is_acknowledged
        self._known: frozenset[tuple[str | None, int | None]] | None = None

    async def has(self, path: str, version: int) -> bool:
        """Tell whether one of them is of this version of a document."""
        if self._known is None:
            self._known = await self._read()
        return (path, version) in self._known

    async def _read(self) -> frozenset[tuple[str | None, int | None]]:
        return frozenset(
            [
                document_told_by(letter.message)
                async for letter in all_dead_letters(self._bus_admin, self._subscription)
                if letter.acknowledged_reason is not None or not self._is_acknowledged
            ]
        )
