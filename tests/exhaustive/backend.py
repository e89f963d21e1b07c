"""The mirror that a schedule runs on: in memory, or a real database beside the same in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from storemirror.event.change import Outcome
from storemirror.sql.port import RowEvent
from tests.exhaustive.documents import Document, built_in_model, contents_of
from tests.exhaustive.store import MINUTE_US, PureMirror

#: Gives the database's time, microseconds since the Unix epoch.
NowUs = Callable[[], int]


class ScheduleFailed(AssertionError):
    """A schedule ended otherwise than it must; the message says how."""


class Backend(Protocol):
    """The mirror that a schedule runs on, and what a schedule may do to it."""

    #: What the mirror must hold.  A real database is compared with it.
    model: PureMirror

    def apply(self, events: Sequence[RowEvent]) -> list[Outcome]:
        """See `SqlMirror.apply`."""
        ...

    def abort(self, events: Sequence[RowEvent]) -> None:
        """Die inside the transaction that would have applied them."""
        ...

    def race(
        self, first: Sequence[RowEvent], second: Sequence[RowEvent], *, point: int, is_killed: bool
    ) -> tuple[list[Outcome] | None, list[Outcome]]:
        """Hold a transaction open at a point, run another beside it, then end the first."""
        ...

    def purge(self, entity_name: str, *, dies_between: bool) -> None:
        """See `SqlMirror.purge`."""
        ...

    def damage(self, document: Document, kind: int) -> None:
        """Write past the procedures: 0 the version, 1 the contents, else the aggregates."""
        ...

    def recompute(self) -> None:
        """See `SqlMirror.recompute_rollups`."""
        ...

    def check(self) -> None:
        """Compare the database with the model; ScheduleFailed when they differ."""
        ...


class PureBackend:
    """See `Backend`: the model is the mirror."""

    def __init__(self, now_us: NowUs, kind: type[PureMirror] = PureMirror) -> None:
        """Start without rows.  `kind`: the model, or one with a fault planted."""
        self.model = kind(built_in_model(), now_us)

    def apply(self, events: Sequence[RowEvent]) -> list[Outcome]:
        """See `Backend.apply`."""
        return self.model.apply(events)

    def abort(self, events: Sequence[RowEvent]) -> None:
        """See `Backend.abort`."""
        self.model.abort(events)

    def race(
        self, first: Sequence[RowEvent], second: Sequence[RowEvent], *, point: int, is_killed: bool
    ) -> tuple[list[Outcome] | None, list[Outcome]]:
        """See `Backend.race`: the second waits for the first one's locks."""
        del point
        began = self.model.snapshot()
        outcomes = None
        if is_killed:
            self.model.abort(first)
        else:
            outcomes = self.model.apply(first)
        return outcomes, self.model.apply(second, began=began)

    def purge(self, entity_name: str, *, dies_between: bool) -> None:
        """See `Backend.purge`."""
        self.model.purge(self.model.model[entity_name], dies_between=dies_between)

    def damage(self, document: Document, kind: int) -> None:
        """See `Backend.damage`."""
        damage(self.model, document, kind)

    def recompute(self) -> None:
        """See `Backend.recompute`."""
        self.model.recompute(self.model.model["DmMessage"])

    def check(self) -> None:
        """See `Backend.check`: there is nothing to compare."""


def damage(mirror: PureMirror, document: Document, kind: int) -> None:
    """Damage a live row in the model."""
    row = mirror.rows[document.entity.name][document.key]
    if kind == 0:
        row.version += 20 * MINUTE_US
    elif kind == 1 or row.aggregates is None:
        row.mapped = contents_of(document.entity.name, 0).row
    else:
        row.aggregates.count += 5
