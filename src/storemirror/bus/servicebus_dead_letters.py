"""
Dead letters on Service Bus: browse, resubmit, acknowledge.

The service knows no acknowledgement, and lets nobody fetch a dead letter by its number.  So what
is acknowledged moves, with the reason, to a subscription of its own beside the dead letters
(Azure's own counter of dead letters then leaves it out as well); and a dead letter is fetched by
locking those before it too, which are released uncounted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import ServiceBusError

from storemirror.bus.port import DeadLetter
from storemirror.bus.rules import refuse_second_acknowledgement, replacement_of, storable
from storemirror.bus.servicebus_errors import Operation, Role, translated, translated_errors
from storemirror.bus.servicebus_link import LinkBroken, OpenPart, ReceiverLink, opened
from storemirror.bus.servicebus_message import (
    dead_letter_of,
    enqueued_at_us,
    message_of,
    outgoing,
    own_property,
)
from storemirror.bus.servicebus_namespace import Namespace
from storemirror.bus.servicebus_provision import acknowledged_name
from storemirror.bus.servicebus_publish import ServiceBusPublisher
from storemirror.clock import Clock
from storemirror.errors import BusRefused, BusUnavailable, DeadLetterUnknown

#: Most messages that one request browses.
_BROWSE_PAGE: Final = 250
#: How many are locked at a time to find one: few first, it is often among the oldest.
_SEARCH_PAGES: Final = (1, 10, 100)
_BROWSE_TIMEOUT_S: Final = 15.0
_PURGE_PAGE: Final = 1_000
_EVERYTHING: Final = 2**31


class DeadLetters:
    """The dead letters of a topic's subscriptions, acknowledged ones included."""

    def __init__(
        self, namespace: Namespace, clock: Clock, publisher: ServiceBusPublisher, *, topic: str
    ) -> None:
        """Name the topic; `publisher` is for it, and stays the caller's to close."""
        self._namespace = namespace
        self._clock = clock
        self._publisher = publisher
        self._topic = topic
        self._client: ServiceBusClient | None = None
        self._browsers: dict[str, tuple[ServiceBusReceiver, OpenPart]] = {}
        self._links: dict[str, ReceiverLink] = {}

    # Looking

    async def peek(
        self, subscription: str, *, limit: int, after: int, with_acknowledged: bool = True
    ) -> list[DeadLetter]:
        """Give dead letters above a number, by rising number; acknowledged ones are all read."""
        # In this order: what is acknowledged meanwhile is seen in one of both places.
        letters = await self.browse(_dead(subscription), start=after + 1, limit=limit)
        acknowledged = await self._acknowledged(subscription) if with_acknowledged else []
        found = {
            letter.sequence_number: letter
            for letter in acknowledged
            if letter.sequence_number > after
        }
        # Acknowledged only in part: its copy is there, and it still is among the dead letters.
        found |= {browsed.sequence_number or 0: dead_letter_of(browsed) for browsed in letters}
        return [found[number] for number in sorted(found)][:limit]

    async def _acknowledged(self, subscription: str) -> list[DeadLetter]:
        companion = acknowledged_name(subscription)
        return [
            _acknowledged_letter_of(browsed)
            for browsed in await self.browse(companion, start=1, limit=_EVERYTHING)
        ]

    async def browse(self, path: str, *, start: int, limit: int) -> list[ServiceBusReceivedMessage]:
        """Look at messages of a subscription, or of its dead letters, without locking them."""
        found: list[ServiceBusReceivedMessage] = []
        with translated_errors(self._operation("look at", path)):
            while len(found) < limit:
                count = min(_BROWSE_PAGE, limit - len(found))
                page = await self._browsed(path, start, count)
                if not page:
                    break
                found += page
                start = (page[-1].sequence_number or start) + 1
        return found

    async def _browsed(self, path: str, start: int, count: int) -> list[ServiceBusReceivedMessage]:
        """Ask; once more on a new connection, the service drops those that are idle."""
        if path in self._browsers:
            try:
                return await self._asked(path, start, count)
            except (AzureError, OSError, ValueError):
                await self._close_browser(path)
        receiver = self._receiver(path)
        self._browsers[path] = (receiver, await opened(receiver))
        try:
            return await self._asked(path, start, count)
        except BaseException:
            await self._close_browser(path)
            raise

    async def _asked(self, path: str, start: int, count: int) -> list[ServiceBusReceivedMessage]:
        receiver, _ = self._browsers[path]
        async with asyncio.timeout(_BROWSE_TIMEOUT_S):
            return await receiver.peek_messages(count, sequence_number=start)

    async def _close_browser(self, path: str) -> None:
        _, open_part = self._browsers.pop(path)
        await open_part.aclose()

    def _receiver(self, path: str) -> ServiceBusReceiver:
        if self._client is None:
            self._client = self._namespace.client()
        subscription, _, sub_queue = path.partition("/")
        return self._client.get_subscription_receiver(
            self._topic,
            subscription,
            sub_queue=ServiceBusSubQueue.DEAD_LETTER if sub_queue else None,
        )

    # Changing

    async def resubmit(self, subscription: str, number: int, *, run: str) -> str:
        """See `BusAdmin.resubmit`.

        Duplicate detection goes by run and number: the same resubmission once more, after a
        crash, is swallowed; that of another dead letter, or what anybody published under the
        replacement's id, swallows nothing.
        """
        letter = await self._find(subscription, number)
        replacement = replacement_of(letter, run=run)
        wire_id = _digest(f"{replacement.message_id}\n{subscription}\n{number}")
        replaced = outgoing(replacement, wire_id=wire_id, only_for=subscription)
        is_acknowledged = letter.acknowledged_reason is not None
        path = acknowledged_name(subscription) if is_acknowledged else _dead(subscription)
        await self._move(path, number, replaced)
        return replacement.message_id

    async def acknowledge(self, subscription: str, number: int, *, reason: str) -> None:
        """See `BusAdmin.acknowledge`.  The copy is durable before the dead letter goes."""
        letter = await self._find(subscription, number)
        refuse_second_acknowledgement(letter)
        copy = outgoing(
            letter.message,
            wire_id=_digest(f"acknowledged\n{subscription}\n{number}"),
            only_for=acknowledged_name(subscription),
            acknowledged_reason=storable(reason),
            number=str(number),
            reason=letter.reason,
            description=letter.description,
            delivery_count=str(letter.delivery_count),
            enqueued_at_us=str(letter.enqueued_at_us),
        )
        await self._move(_dead(subscription), number, copy)

    async def _move(self, path: str, number: int, replacement: ServiceBusMessage) -> None:
        """Publish what replaces a message, then complete it."""
        async with self._taken(path, {number}) as found:
            if not found:
                raise _unknown(path, number)
            try:
                await self._publisher.publish_outgoing(replacement)
            except (BusRefused, BusUnavailable) as exc:
                raise type(exc)(
                    f"{exc}; dead letter {number} stays where it was, and the command may be "
                    "given again"
                ) from exc

    async def _find(self, subscription: str, number: int) -> DeadLetter:
        # Acknowledged ones are read only for one that is not among the others.
        for with_acknowledged in (False, True):
            letters = await self.peek(
                subscription, limit=1, after=number - 1, with_acknowledged=with_acknowledged
            )
            if letters and letters[0].sequence_number == number:
                return letters[0]
        raise _unknown(subscription, number)

    async def remove(self, subscription: str, numbers: Sequence[int]) -> list[int]:
        """See `BusAdmin.remove_dead_letters`."""
        wanted = set(numbers)
        letters = await self.peek(subscription, limit=_EVERYTHING, after=min(wanted, default=1) - 1)
        removed: list[int] = []
        for path, is_acknowledged in (
            (_dead(subscription), False),
            (acknowledged_name(subscription), True),
        ):
            there = {
                letter.sequence_number
                for letter in letters
                if letter.sequence_number in wanted
                and (letter.acknowledged_reason is not None) is is_acknowledged
            }
            if there:
                async with self._taken(path, there) as taken:
                    removed += taken
        return sorted(removed)

    async def purge(self, subscription: str) -> int:
        """See `BusAdmin.purge`."""
        link = await self._link(subscription)
        count = 0
        with _broken_links_translated(self._operation("take from", subscription)):
            while page := await link.pull(_PURGE_PAGE, 0.0):
                await self._complete(link, subscription, page)
                count += len(page)
        return count

    @asynccontextmanager
    async def _taken(self, path: str, numbers: set[int]) -> AsyncIterator[list[int]]:
        """Lock messages; complete them when the block ends well, else release them."""
        link = await self._link(path)
        locked: dict[int, ServiceBusReceivedMessage] = {}
        try:
            with _broken_links_translated(self._operation("take from", path)):
                await self._search(link, numbers, locked)
                found = sorted(numbers & locked.keys())
                yield found
                await self._complete(link, path, [locked[number] for number in found])
            for number in found:
                del locked[number]
        finally:
            if not link.is_broken:
                with translated_errors(self._operation("take from", path)):
                    await link.release(list(locked.values()))

    @staticmethod
    async def _search(
        link: ReceiverLink, numbers: set[int], locked: dict[int, ServiceBusReceivedMessage]
    ) -> None:
        """Lock messages until these are among them, or there are no more."""
        pages = iter(_SEARCH_PAGES)
        count = next(pages)
        while numbers - locked.keys():
            page = await link.pull(count, 0.0)
            if not page:
                return
            locked.update({_number_of(received): received for received in page})
            count = next(pages, count)

    async def _complete(
        self, link: ReceiverLink, path: str, messages: Sequence[ServiceBusReceivedMessage]
    ) -> None:
        with translated_errors(self._operation("take from", path)):
            results = await link.settle(messages, lambda r, message: r.complete_message(message))
            for error in results:
                if isinstance(error, Exception):
                    raise error
                if error is not None:
                    raise ServiceBusError("the connection broke")

    def _operation(self, verb: str, path: str) -> Operation:
        subscription, _, sub_queue = path.partition("/")
        what = "the dead letters of " if sub_queue else ""
        return self._namespace.operation(
            f"{verb} {what}subscription {subscription!r} of topic {self._topic!r}", Role.LISTEN
        )

    async def _link(self, path: str) -> ReceiverLink:
        link = self._links.get(path)
        if link is None or link.is_broken:
            if link is not None:
                await link.aclose()
            link = ReceiverLink(self._receiver(path), self._clock)
            with translated_errors(self._operation("take from", path)):
                await link.open()
            self._links[path] = link
        return link

    async def aclose(self) -> None:
        """Let go of connections."""
        await asyncio.gather(
            *(link.aclose() for link in self._links.values()),
            *(self._close_browser(path) for path in list(self._browsers)),
        )
        self._links.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@contextmanager
def _broken_links_translated(operation: Operation) -> Iterator[None]:
    try:
        yield
    except LinkBroken as exc:
        cause = exc.__cause__
        raise translated(cause if isinstance(cause, Exception) else exc, operation) from exc


def _dead(subscription: str) -> str:
    return f"{subscription}/dead-letters"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number_of(received: ServiceBusReceivedMessage) -> int:
    """Give the dead letter's number; a copy that was acknowledged carries it."""
    own = own_property(received, "number")
    return (received.sequence_number or 0) if own is None else int(own)


def _acknowledged_letter_of(browsed: ServiceBusReceivedMessage) -> DeadLetter:
    """Read the copy of an acknowledged dead letter."""

    def own(name: str) -> str:
        return own_property(browsed, name) or ""

    return DeadLetter(
        message=message_of(browsed),
        sequence_number=_number_of(browsed),
        reason=own("reason"),
        description=own("description"),
        delivery_count=int(own("delivery_count") or 0),
        enqueued_at_us=int(own("enqueued_at_us") or enqueued_at_us(browsed)),
        dead_lettered_at_us=None,
        acknowledged_reason=own("acknowledged_reason"),
    )


def _unknown(place: str, number: int) -> DeadLetterUnknown:
    return DeadLetterUnknown(f"{place}: there is no dead letter {number}")
