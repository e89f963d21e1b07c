"""Receiving and settling on Service Bus.  See `storemirror.bus.servicebus`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    ServiceBusServerBusyError,
)

from storemirror.bus.port import TOPIC, Delivery, Rejection
from storemirror.bus.rules import storable
from storemirror.bus.servicebus_errors import (
    Operation,
    Role,
    described,
    translated,
    translated_errors,
)
from storemirror.bus.servicebus_link import (
    ANSWER_TIMEOUT_S,
    RENEWAL_PAGE,
    LinkBroken,
    ReceiverLink,
)
from storemirror.bus.servicebus_message import delivery_of
from storemirror.bus.servicebus_namespace import Namespace
from storemirror.clock import Clock, us_from_datetime
from storemirror.errors import BusRefused, BusUnavailable, SettledInPart

#: Links that share a flood; a trickle uses one.
LINK_COUNT: Final = 3
#: A delivery that nobody settled is forgotten after so long: no lock lasts over five minutes
#: without renewal.
_FORGET_AFTER_S: Final = 600.0
_OPEN_TIMEOUT_S: Final = 30.0

SettleOne = Callable[[ServiceBusReceiver, ServiceBusReceivedMessage], Awaitable[None]]
_LOST: Final = (MessageLockLostError, MessageAlreadySettled, MessageNotFoundError)


@dataclass(slots=True)
class _Held:
    """What the wire needs to settle a delivery."""

    link: ReceiverLink
    received: ServiceBusReceivedMessage
    forget_at_s: float
    #: It was settled, or not: the link broke before the service said so.
    is_in_doubt: bool = False
    #: A call is under way that settles it.
    is_settling: bool = False


class _Tally:
    """What came of each delivery of one call, by lock token."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.settled: set[str] = set()
        self.lost: set[str] = set()
        #: Why the others are not settled; one of several.
        self.error: BaseException | None = None

    def left_of(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Give those of which nothing is known yet."""
        known = self.settled | self.lost
        return [d for d in deliveries if d.lock_token not in known]


class ServiceBusConsumer:
    """Takes deliveries from one subscription.  Safe for concurrent use.

    Receptions of one consumer wait for each other; settling goes on beside them.
    """

    def __init__(
        self,
        namespace: Namespace,
        clock: Clock,
        *,
        subscription: str,
        topic: str = TOPIC,
        link_count: int = LINK_COUNT,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """
        Name the subscription; nothing is opened before the first call.

        Args:
            namespace: stays the caller's to close.
            clock: for waiting; locks go by the service's own clock.
            subscription: must have been provisioned.
            topic: must have been provisioned.
            link_count: connections that a flood is spread over.
            answer_timeout_s: how long a link may not answer before it is replaced.
        """
        self._namespace = namespace
        self._clock = clock
        self._subscription = subscription
        self._topic = topic
        self._answer_timeout_s = answer_timeout_s
        self._client: ServiceBusClient | None = None
        self._links: list[ReceiverLink | None] = [None] * link_count
        self._receiving = asyncio.Lock()
        self._connecting = asyncio.Lock()
        #: Links that the next reception uses: more when these were not enough, one when they were.
        self._width = 1
        #: By lock token, in the order in which they are forgotten.
        self._held: OrderedDict[str, _Held] = OrderedDict()
        #: Settled by a call that failed for others, so that its repetitions do not call them
        #: lost: lock token -> when that is forgotten.
        self._settled_before: OrderedDict[str, float] = OrderedDict()

    @property
    def _operation(self) -> Operation:
        what = f"receive from subscription {self._subscription!r} of topic {self._topic!r}"
        return self._namespace.operation(what, Role.LISTEN)

    # Receiving

    async def receive(self, max_count: int, *, max_wait_s: float) -> list[Delivery]:
        """See `Consumer.receive`.  Links that broke are replaced once before it gives up."""
        if max_count < 1:
            raise ValueError(f"max_count must be >= 1, got {max_count}")
        async with self._receiving:
            self._forget_old()
            try:
                received = await self._pull(max_count, max_wait_s)
            except LinkBroken:
                received = await self._pull_again(max_count, max_wait_s)
        return sorted(received, key=lambda delivery: delivery.sequence_number)

    async def _pull_again(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        try:
            return await self._pull(max_count, max_wait_s)
        except LinkBroken as exc:
            raise self._unavailable(exc) from exc

    def _unavailable(self, exc: LinkBroken) -> Exception:
        cause = exc.__cause__
        return translated(cause if isinstance(cause, Exception) else exc, self._operation)

    async def _pull(self, max_count: int, max_wait_s: float) -> list[Delivery]:
        """Take what is there from as many links as the last reception called for; else wait."""
        if self._width > 1:
            deliveries = await self._pull_wide(max_count)
            if deliveries:
                return deliveries
            self._width = 1
        deliveries = await self._pull_from(0, max_count, max_wait_s)
        if len(deliveries) == max_count:
            self._width = min(len(self._links), max_count)
        return deliveries

    async def _pull_wide(self, max_count: int) -> list[Delivery]:
        # The last reception may have asked for more than this one.
        width = min(self._width, max_count)
        share = max_count // width
        results = await asyncio.gather(
            *(self._pull_from(place, share, 0.0) for place in range(width)),
            return_exceptions=True,
        )
        deliveries = [d for result in results if isinstance(result, list) for d in result]
        errors = [result for result in results if isinstance(result, BaseException)]
        # What some links gave is in hand; a link that broke is replaced with the next call.
        if errors and not deliveries:
            raise errors[0]
        return deliveries

    async def _pull_from(self, place: int, max_count: int, wait_s: float) -> list[Delivery]:
        link = await self._link(place)
        return [self._hold(link, received) for received in await link.pull(max_count, wait_s)]

    def _hold(self, link: ReceiverLink, received: ServiceBusReceivedMessage) -> Delivery:
        delivery = delivery_of(received)
        forget_at_s = self._clock.monotonic_s() + _FORGET_AFTER_S
        self._held[delivery.lock_token] = _Held(link, received, forget_at_s)
        link.held_count += 1
        return delivery

    def _let_go(self, lock_token: str) -> None:
        held = self._held.pop(lock_token, None)
        if held is not None:
            held.link.held_count -= 1

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._held:
            token, held = next(iter(self._held.items()))
            if held.forget_at_s > now_s:
                break
            self._let_go(token)
        while self._settled_before and next(iter(self._settled_before.values())) <= now_s:
            self._settled_before.popitem(last=False)

    # Links

    async def _link(self, place: int) -> ReceiverLink:
        """Give a link that is not known to be broken, a new one if need be."""
        async with self._connecting:
            link = self._links[place]
            if link is not None and not link.is_broken:
                return link
            if link is not None:
                self._links[place] = None
                await link.aclose()
            self._links[place] = link = await self._connected()
            return link

    async def _connected(self) -> ReceiverLink:
        if self._client is None:
            self._client = self._namespace.client()
        receiver = self._client.get_subscription_receiver(self._topic, self._subscription)
        link = ReceiverLink(receiver, self._clock, answer_timeout_s=self._answer_timeout_s)
        try:
            with translated_errors(self._operation):
                async with asyncio.timeout(_OPEN_TIMEOUT_S):
                    await link.open()
        except BaseException:
            await link.aclose()
            raise
        return link

    # Settling

    async def complete(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.complete`."""
        return await self._settle(deliveries, lambda link, message: link.complete_message(message))

    async def abandon(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.abandon`."""
        return await self._settle(deliveries, lambda link, message: link.abandon_message(message))

    async def dead_letter(self, rejections: Sequence[Rejection]) -> list[Delivery]:
        """See `Consumer.dead_letter`."""
        words = {
            str(rejection.delivery.lock_token): (
                storable(rejection.reason),
                storable(rejection.description),
            )
            for rejection in rejections
        }

        async def set_aside(link: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
            reason, description = words[str(message.lock_token)]
            await link.dead_letter_message(message, reason=reason, error_description=description)

        return await self._settle([rejection.delivery for rejection in rejections], set_aside)

    async def _settle(
        self, deliveries: Sequence[Delivery], settle_one: SettleOne
    ) -> list[Delivery]:
        """Settle each where it came from, else through a link of today; gives the lost ones."""
        tally = _Tally()
        left = [d for d in deliveries if not self._is_known_settled(d, tally)]
        try:
            await self._settle_left(left, settle_one, tally)
        finally:
            # However this call ends, its repetition must not call them lost.
            failed = tally.left_of(left)
            for token in tally.settled if failed else ():
                self._settled_before[token] = self._clock.monotonic_s() + _FORGET_AFTER_S
        if failed:
            others = {d.sequence_number for d in deliveries if d.lock_token not in tally.settled}
            raise self._not_settled(len(failed), others, tally.error)
        return [d for d in deliveries if d.lock_token in tally.lost]

    async def _settle_left(
        self, left: Sequence[Delivery], settle_one: SettleOne, tally: _Tally
    ) -> None:
        for link, share in self._by_link(left):
            if not link.is_broken:
                await self._settle_share(link, share, settle_one, tally)
        unsettled = tally.left_of(left)
        if not unsettled:
            return
        try:
            link = await self._link(0)
        except BusUnavailable as exc:
            tally.error = exc
        else:
            await self._settle_share(link, unsettled, settle_one, tally)

    def _is_known_settled(self, delivery: Delivery, tally: _Tally) -> bool:
        """Tell whether nothing is to do: settled by a call that failed for others, or lost."""
        token = delivery.lock_token
        if token in self._settled_before:
            tally.settled.add(token)
            return True
        if token not in self._held:
            tally.lost.add(token)
            return True
        return False

    def _by_link(self, deliveries: Sequence[Delivery]) -> list[tuple[ReceiverLink, list[Delivery]]]:
        shares: dict[int, tuple[ReceiverLink, list[Delivery]]] = {}
        for delivery in deliveries:
            link = self._held[delivery.lock_token].link
            shares.setdefault(id(link), (link, []))[1].append(delivery)
        return list(shares.values())

    async def _settle_share(
        self,
        link: ReceiverLink,
        deliveries: Sequence[Delivery],
        settle_one: SettleOne,
        tally: _Tally,
    ) -> None:
        """Settle through one link, and write down what came of each."""
        # A renewal beside this one may find lost what it renews, and let go of it.
        tally.lost.update(d.lock_token for d in deliveries if d.lock_token not in self._held)
        shares = [(d, self._held[d.lock_token]) for d in tally.left_of(deliveries)]
        for _, held in shares:
            held.is_settling = True
        try:
            results = await link.settle([held.received for _, held in shares], settle_one)
        finally:
            for _, held in shares:
                held.is_settling = False
        for (delivery, held), result in zip(shares, results, strict=True):
            if result is None:
                tally.settled.add(delivery.lock_token)
            elif isinstance(result, _LOST):
                # In doubt, a lock that is no more was most likely settled; if not, the delivery
                # comes again, and what is done twice is done once.
                (tally.settled if held.is_in_doubt else tally.lost).add(delivery.lock_token)
            else:
                tally.error = result
                if not isinstance(result, ServiceBusServerBusyError):
                    link.is_broken = held.is_in_doubt = True
                continue
            self._let_go(delivery.lock_token)

    def _not_settled(
        self, failed_count: int, unsettled: Collection[int], cause: BaseException | None
    ) -> Exception:
        words = described(cause) if isinstance(cause, Exception) else "no answer"
        error = SettledInPart(
            f"cannot settle {failed_count} deliveries of {self._subscription!r} in "
            f"{self._namespace.host}: Service Bus did not answer ({words})",
            unsettled=unsettled,
        )
        error.__cause__ = cause
        return error

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Consumer.renew`.  A request for many locks at a time."""
        held = [d for d in deliveries if d.lock_token in self._held]
        renewed: list[Delivery] = []
        for start in range(0, len(held), RENEWAL_PAGE):
            renewed += await self._renew_page(held[start : start + RENEWAL_PAGE])
        return renewed

    async def _renew_page(self, page: Sequence[Delivery]) -> list[Delivery]:
        """Renew together; where one of them is lost, find it by halves."""
        link = await self._link(0)
        shares = [(d, self._held[d.lock_token]) for d in page if d.lock_token in self._held]
        # The others were settled, or found lost, while locks before theirs were renewed.
        if not shares:
            return []
        try:
            with translated_errors(self._operation):
                async with asyncio.timeout(self._answer_timeout_s):
                    await link.renew([held.received for _, held in shares])
        except BusRefused as exc:
            if not isinstance(exc.__cause__, _LOST):
                raise
        except BusUnavailable as exc:
            if not isinstance(exc.__cause__, _LOST):
                link.is_broken = True
                raise
        else:
            renewed = [self._renewed(delivery, held) for delivery, held in shares]
            return [delivery for delivery in renewed if delivery is not None]
        if len(shares) == 1:
            [(delivery, held)] = shares
            # The lock is gone because it was settled, most likely: whoever settles will see.
            if not held.is_in_doubt and not held.is_settling:
                self._let_go(delivery.lock_token)
            return []
        left = [delivery for delivery, _ in shares]
        middle = len(left) // 2
        return [*await self._renew_page(left[:middle]), *await self._renew_page(left[middle:])]

    def _renewed(self, delivery: Delivery, held: _Held) -> Delivery | None:
        """Give the delivery with its new lock; None when it was settled meanwhile."""
        until = held.received.locked_until_utc
        if until is None or delivery.lock_token not in self._held:
            return None
        held.forget_at_s = self._clock.monotonic_s() + _FORGET_AFTER_S
        self._held.move_to_end(delivery.lock_token)
        return msgspec.structs.replace(delivery, locked_until_us=us_from_datetime(until))

    async def aclose(self) -> None:
        """See `Consumer.aclose`.  The namespace stays open."""
        links, self._links = self._links, [None] * len(self._links)
        await asyncio.gather(*(link.aclose() for link in links if link is not None))
        client, self._client = self._client, None
        if client is not None:
            await client.close()
