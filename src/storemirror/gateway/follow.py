"""Follows and blocks: documents that say with their being there."""

from __future__ import annotations

from typing import Final

from storemirror.clock import Clock, datetime_from_us
from storemirror.errors import CallRefused
from storemirror.event.change import Fields
from storemirror.event.value import encode_value
from storemirror.gateway.dual_write import DualWrite, Intent, Written
from storemirror.gateway.fields import field_of, with_value
from storemirror.gateway.ids import checked_id, checked_new_id
from storemirror.gateway.port import Caller, Feature
from storemirror.gateway.rights import Rights
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.model.entity import Entity
from storemirror.source.port import TransactionReads

_FEATURE: Final = Feature.FOLLOW


class FollowService:
    """Writes the caller's own edges into Firestore, and by the same envelope into SQL."""

    def __init__(
        self, declared: DirectMessages, graph: FollowGraph, writes: DualWrite, clock: Clock
    ) -> None:
        """
        Name the parts.

        Args:
            declared: conversations and messages.
            graph: follows and blocks.
            writes: the way to both sides.
            clock: gives `createdAt`.
        """
        self._writes = writes
        self._clock = clock
        self._follow = graph.follow
        self._block = graph.block
        self._rights = Rights(declared, graph)

    async def follow(self, caller: Caller, target: str) -> Written:
        """
        Follow a user; once more changes nothing.

        Raises:
            CallRefused: INVALID_ARGUMENT; PERMISSION_DENIED, the target blocked the caller.
        """
        path = _path(self._follow, caller, checked_new_id(target, self._follow.keys[1], "target"))

        async def decide(reads: TransactionReads) -> Intent:
            there = await reads.get(path)
            if there is not None:
                return Intent(path=path, before=there, fields=there.fields)
            await self._rights.refuse_blocked(reads, caller.uid, [target])
            return Intent(path=path, before=None, fields=self._edge(self._follow))

        return await self._writes.write(caller, _FEATURE, decide)

    async def unfollow(self, caller: Caller, target: str) -> Written:
        """Follow a user no longer; of one not followed it changes nothing."""
        return await self._remove(self._follow, caller, target)

    async def block(self, caller: Caller, target: str) -> Written:
        """Block a user; follows stay as they are."""
        path = _path(self._block, caller, checked_new_id(target, self._block.keys[1], "target"))

        async def decide(reads: TransactionReads) -> Intent:
            there = await reads.get(path)
            fields = self._edge(self._block) if there is None else there.fields
            return Intent(path=path, before=there, fields=fields)

        return await self._writes.write(caller, _FEATURE, decide)

    async def unblock(self, caller: Caller, target: str) -> Written:
        """Block a user no longer; of one not blocked it changes nothing."""
        return await self._remove(self._block, caller, target)

    async def mirror_follow(self, caller: Caller, target: str) -> Written:
        """Mirror an edge of the caller's own that the client wrote or deleted itself."""
        return await self._writes.observe(caller, _FEATURE, _path(self._follow, caller, target))

    async def mirror_block(self, caller: Caller, target: str) -> Written:
        """Mirror a block of the caller's own that the client wrote or deleted itself."""
        return await self._writes.observe(caller, _FEATURE, _path(self._block, caller, target))

    async def _remove(self, entity: Entity, caller: Caller, target: str) -> Written:
        path = _path(entity, caller, target)

        async def decide(reads: TransactionReads) -> Intent:
            return Intent(path=path, before=await reads.get(path), fields=None)

        return await self._writes.write(caller, _FEATURE, decide)

    def _edge(self, entity: Entity) -> Fields:
        now = encode_value(datetime_from_us(self._clock.now_us()))
        return with_value({}, field_of(entity, "createdAt"), now)


def _path(entity: Entity, caller: Caller, target: str) -> str:
    """Give the path of the caller's own edge to a user."""
    checked_id(caller.uid, entity.keys[0], "a user's id")
    checked_id(target, entity.keys[1], "target")
    if target == caller.uid:
        raise CallRefused("INVALID_ARGUMENT", "target is the caller")
    return entity.path_of((caller.uid, target))
