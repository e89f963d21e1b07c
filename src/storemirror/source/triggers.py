"""
The triggers: what an event on the bus says of a document's change, as one pure function.

`mirrorDmMessages`, `mirrorDmConversations`, `mirrorFollowEdges`, `mirrorUserBlocks` and those of
declared entities differ by name and path only.  Pure: no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from storemirror.bus.port import Message
from storemirror.errors import EntityUnknown
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import NO_DIGEST, digest_of
from storemirror.event.envelope import CONTENT_TYPE, encode_change
from storemirror.model.entity import Entity, Model
from storemirror.source.port import DocumentChange

#: Longest message id that Service Bus takes, in characters.
_MAX_MESSAGE_ID: Final = 128


class Unmirrored(enum.StrEnum):
    """Why a trigger's delivery makes no event.  Normal; counted, never an error."""

    #: The document is as it was: Google's emulator tells of it, Firestore does not.
    NOTHING_CHANGED = "nothing-changed"
    #: A delete of a document that was not there.
    NEVER_EXISTED = "never-existed"


def change_of(
    document_change: DocumentChange,
    *,
    origin: Origin = Origin.TRIGGER,
    traceparent: str | None = None,
) -> Change | Unmirrored:
    """
    Turn what a trigger was told into a change.

    The same delivery always gives the same change, so that a retry is a duplicate.

    Args:
        document_change: the document before and after; its fields are canonical.
        origin: where it was seen.
        traceparent: W3C trace context that came with it; None: one is made of the event id.

    Returns:
        The change; its version is that of the after-image, or of a delete the before-image's
        plus one.  `Unmirrored` when there is nothing to tell.

    Source:
        docs/adr/0001-versions-from-commit-times.md
    """
    before, after = document_change.before, document_change.after
    if after is None and before is None:
        return Unmirrored.NEVER_EXISTED
    if after is not None:
        if before is not None and before.update_time_us == after.update_time_us:
            return Unmirrored.NOTHING_CHANGED
        commit_time_us = after.update_time_us
    else:
        assert before is not None
        commit_time_us = before.update_time_us
    change = Change(
        path=document_change.path,
        version=version_of(commit_time_us, is_deleted=after is None),
        origin=origin,
        observed_at_us=commit_time_us,
        fields=None if after is None else after.fields,
        digest=NO_DIGEST if after is None else digest_of(after.fields),
        traceparent=traceparent,
    )
    return traced(change)


def traced(change: Change) -> Change:
    """Give the change a trace context made of its event id, where it has none."""
    if change.traceparent is not None:
        return change
    event_id = change.event_id
    return replace(change, traceparent=f"00-{event_id[:32]}-{event_id[32:48]}-01")


def message_of(change: Change, entity_name: str, source: str, *, run: str | None = None) -> Message:
    """
    Put a change into a message for the bus.

    Args:
        change: its fields are canonical.
        entity_name: the entity that its document is of.
        source: CloudEvents source; see `storemirror.event.envelope.source_of`.
        run: names one repair, re-read or reconcile, in at most 63 characters: the message id
            becomes `<event id>.<run>`, else the bus would take it for a duplicate.  None for what
            the source tells for the first time.

    Raises:
        ValueError: `run` is empty or too long.
    """
    event_id = change.event_id
    message_id = event_id if run is None else f"{event_id}.{run}"
    if run == "" or len(message_id) > _MAX_MESSAGE_ID:
        raise ValueError(f"run must have 1 to 63 characters, got {run!r}")
    properties = {
        "type": change.event_type.value,
        "entity": entity_name,
        "origin": change.origin.value,
        "version": str(change.version),
        "path": change.path,
    }
    if change.traceparent is not None:
        properties["traceparent"] = change.traceparent
    return Message(
        message_id=message_id,
        body=encode_change(change, source=source),
        content_type=CONTENT_TYPE,
        properties=properties,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The handler of one entity's documents."""

    #: Name under which it is deployed: "mirrorDmMessages".
    name: str
    entity: Entity

    def __call__(
        self, document_change: DocumentChange, *, traceparent: str | None = None
    ) -> Change | Unmirrored:
        """
        See `change_of`.

        Raises:
            EntityUnknown: the document is not of this trigger's entity: it was deployed on
                another path.
        """
        path = document_change.path
        if self.entity.match(path.split("/")) is None:
            raise EntityUnknown(f"{self.name} is for {self.entity.pattern}", path=path)
        return change_of(document_change, traceparent=traceparent)


def trigger_name_of(entity: Entity) -> str:
    """Give the name of an entity's trigger; part of the contract: "mirrorDmMessages"."""
    return f"mirror{entity.name}s"


def triggers_of(model: Model) -> Mapping[str, Trigger]:
    """Give every entity's trigger, by its name."""
    triggers = [Trigger(name=trigger_name_of(entity), entity=entity) for entity in model]
    return {trigger.name: trigger for trigger in triggers}
