"""Short ways to write down events of the built-in entities."""

from __future__ import annotations

from collections.abc import Mapping

from storemirror.event.change import Origin
from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent
from tests.support.events import deleted, written


class Documents:
    """Events at `base_us` plus some microseconds, with all that a row must have."""

    def __init__(self, model: Model, base_us: int) -> None:
        self.model = model
        self.base_us = base_us

    def message(
        self,
        conversation: str,
        message: str,
        at: int,
        *,
        sent: int | None = None,
        sender: str = "u1",
        body: str | None = "hello",
        edited: int | None = None,
        attachments: str | None = None,
        origin: Origin = Origin.TRIGGER,
        expected_version: int | None = None,
        observed: int | None = None,
    ) -> RowEvent:
        """A message was written, by default sent when it was written."""
        return written(
            self.model,
            "DmMessage",
            (conversation, message),
            self.base_us + at,
            origin=origin,
            expected_version=expected_version,
            observed_at_us=self._observed(observed),
            senderId=sender,
            body=body,
            sentAt=self.base_us + (at if sent is None else sent),
            editedAt=self._observed(edited),
            attachments=attachments,
        )

    def conversation(
        self,
        conversation: str,
        at: int,
        *,
        title: str | None = "title",
        created: int = 0,
        participants: Mapping[str, int | None] | None = None,
        origin: Origin = Origin.TRIGGER,
        expected_version: int | None = None,
        observed: int | None = None,
    ) -> RowEvent:
        """A conversation was written; `participants` says when each of them last read."""
        return written(
            self.model,
            "DmConversation",
            (conversation,),
            self.base_us + at,
            origin=origin,
            expected_version=expected_version,
            observed_at_us=self._observed(observed),
            participants=participants,
            title=title,
            createdAt=self.base_us + created,
        )

    def follow(
        self,
        follower: str,
        followee: str,
        at: int,
        *,
        created: int | None = None,
        origin: Origin = Origin.TRIGGER,
        expected_version: int | None = None,
        observed: int | None = None,
    ) -> RowEvent:
        """A follow edge was written."""
        return written(
            self.model,
            "FollowEdge",
            (follower, followee),
            self.base_us + at,
            origin=origin,
            expected_version=expected_version,
            observed_at_us=self._observed(observed),
            createdAt=self.base_us + (at if created is None else created),
        )

    def block(self, blocker: str, blocked: str, at: int) -> RowEvent:
        """A block was written."""
        key = (blocker, blocked)
        return written(self.model, "UserBlock", key, self.base_us + at, createdAt=self.base_us)

    def gone(
        self,
        entity: str,
        key: tuple[str, ...],
        at: int,
        *,
        origin: Origin = Origin.TRIGGER,
        expected_version: int | None = None,
        observed: int | None = None,
    ) -> RowEvent:
        """A document was deleted; `at` is the time of the write that was removed."""
        return deleted(
            self.model,
            entity,
            key,
            self.base_us + at,
            origin=origin,
            expected_version=expected_version,
            observed_at_us=self._observed(observed),
        )

    def _observed(self, at: int | None) -> int | None:
        return None if at is None else self.base_us + at
