"""Marks conversations before their events are set aside: SQL must not serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from storemirror.apply.dead_letters import document_told_by
from storemirror.bus.port import Rejection
from storemirror.errors import PoisonEventError
from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import check_key
from storemirror.model.types import DialectLimits
from storemirror.sql.port import SqlMirror, UnverifiedDocument
from storemirror.sql.unfit import CONVERSATION, newest_of, unfit_mark


class UnfitMarker:
    """See `storemirror.apply.settler.Marker`.  Asks the mirror of conversations alone."""

    def __init__(
        self, mirror: SqlMirror, model: Model, *, on_refusal: Callable[[Exception], None]
    ) -> None:
        """Name the mirror, its declarations, and who learns that it took no mark."""
        self._mirror = mirror
        self._model = model
        self.note_refusal = on_refusal

    async def mark(self, rejections: Sequence[Rejection]) -> None:
        """See `Marker.mark`."""
        marks = unfit_marks(rejections, self._model, self._mirror.limits)
        if marks:
            await self._mirror.mark_unverified(marks)


def unfit_marks(
    rejections: Iterable[Rejection], model: Model, limits: DialectLimits
) -> list[UnverifiedDocument]:
    """
    Give one mark for each conversation among the documents of what is set aside.

    A message that does not tell its document, or contradicts itself, marks none: it comes from no
    app's user.  Neither does a document whose ids no row can have.
    """
    marks: dict[str, UnverifiedDocument] = {}
    for rejection in rejections:
        mark = _mark_of(rejection, model, limits)
        if mark is not None:
            before = marks.get(mark.message_id)
            marks[mark.message_id] = mark if before is None else newest_of(before, mark)
    return list(marks.values())


def _mark_of(
    rejection: Rejection, model: Model, limits: DialectLimits
) -> UnverifiedDocument | None:
    path, version = document_told_by(rejection.delivery.message)
    if path is None:
        return None
    for conversation in (entity for entity in model if entity.name == CONVERSATION):
        # By its own pattern: what decoding has stumbled over must not be asked again.
        key = conversation.match(path.split("/"))
        if key is not None and _can_be_row(conversation, key, limits):
            reason = rejection.reason
            return unfit_mark(conversation, key, path=path, version=version, reason=reason)
    return None


def _can_be_row(entity: Entity, key: tuple[str, ...], limits: DialectLimits) -> bool:
    try:
        check_key(entity, key, limits)
    except PoisonEventError:
        return False
    return True
