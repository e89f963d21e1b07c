"""
One receiver of the SDK, driven by hand: nothing is locked that nobody asked for.

The only file that touches parts of azure-servicebus that are not public, which is why one version
of it is pinned; the bus contract suite runs on every one of these lines.  `receive_messages` of
that version cannot be used:

- with more than one message asked for it waits a fifth of a second after the first;
- it leaves credit behind when it returns, so that the service locks messages for a receiver that
  is not receiving;
- a link that hangs in silence looks like an empty subscription, for ever;
- settlements made together each read for themselves, and keep each other from reading: a thousand
  at a time took over ten seconds.

Here credit is *drained* after each reception (AMQP 1.0, part 2.6.7): the service sends what it
has and says that it is done.  So a reception ends the moment there is no more, no credit is left,
and a link whose service does not answer is known to be broken.  Settlements wait for their outcome
while one of them reads for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp.error import AMQPException
from azure.servicebus._pyamqp.receiver import check_disposition_outcome
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender

from storemirror.clock import EPOCH, Clock

#: How long a drain may stay without an answer before the link counts as broken.
ANSWER_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 5.0
#: Reading holds the lock that writing needs: short while there may be something to settle.
_READ_S: Final = 0.2
_READ_WHILE_HELD_S: Final = 0.01
#: Locks that one request renews.
RENEWAL_PAGE: Final = 100
_ATTACHED: Final = 3

_log = logging.getLogger(__name__)


class OpenPart:
    """A sender or receiver of the SDK's that is open, and can be closed whatever its state is."""

    def __init__(self, part: ServiceBusReceiver | ServiceBusSender) -> None:
        """Hold on to a part that was just opened, of a client that does not retry by itself."""
        self.part = part
        private: Any = part
        self._connection: Any = private._handler._connection

    async def aclose(self) -> None:
        """
        Close the part, and its socket.

        The SDK says farewell first; a service that does not answer would keep it waiting, and cut
        off there, or met by an error before, it leaves the socket open.
        """
        closing = asyncio.ensure_future(self.part.close())
        await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT_S)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        writer = getattr(self._connection._transport, "writer", None)
        if writer is not None:
            writer.transport.abort()


async def opened(part: ServiceBusReceiver | ServiceBusSender) -> OpenPart:
    """
    Open a part of the SDK's.

    Raises:
        AzureError: no connection, no right, or no such entity.
    """
    _let_open_without_pauses(part)
    try:
        await part.__aenter__()
    except BaseException:
        await part.close()
        raise
    return OpenPart(part)


def _let_open_without_pauses(part: ServiceBusReceiver | ServiceBusSender) -> None:
    """
    Let it open as frames arrive, and close at once.

    The SDK pauses 0.05 s before each of the ten frames that open a link, and closing waits for a
    task that looks once a second whether it is to end.
    """
    private: Any = part
    create_handler = private._create_handler

    def create(*arguments: Any) -> None:
        create_handler(*arguments)
        handler = private._handler
        looks_ready, close = handler.client_ready_async, handler.close_async
        is_closing = asyncio.Event()

        async def is_ready() -> bool:
            while not await looks_ready():  # reads a frame, or waits for one
                pass
            return True

        async def close_at_once() -> None:
            is_closing.set()
            await close()

        handler.client_ready_async = is_ready
        handler.close_async = close_at_once
        handler._keep_alive_async = functools.partial(_keep_alive, handler, is_closing)

    private._create_handler = create


async def _keep_alive(handler: Any, is_closing: asyncio.Event) -> None:
    """Read a frame now and then, as the SDK does, so that an idle connection stays."""
    while handler._connection is not None and not is_closing.is_set():
        try:
            async with asyncio.timeout(handler._keep_alive_interval):
                await is_closing.wait()
        except TimeoutError:
            try:
                await handler._connection.listen(wait=_READ_S)
            except (AzureError, AMQPException, OSError) as exc:
                _log.info("an idle connection ended: %s", type(exc).__name__)
                return


def _cancelled_count() -> int:
    """Give how often the task that runs was asked to end."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


class LinkBroken(Exception):
    """The link can be used no more; the cause is `__cause__`, where there is one."""


class ReceiverLink:
    """A receiver on a connection of its own.  One `pull` at a time; settling beside it is fine."""

    def __init__(
        self,
        receiver: ServiceBusReceiver,
        clock: Clock,
        *,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """Take over a receiver that was not opened, of a client without retries."""
        self._receiver: Any = receiver
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._open_part: OpenPart | None = None
        self._handler: Any = None
        self._link: Any = None
        self._is_drained = True
        self._reading = asyncio.Lock()
        self._settling_count = 0
        #: Delivery id -> set when the service has said what came of its settlement.
        self._outcomes: dict[int, asyncio.Event] = {}
        self._note_disposition: Any = None
        #: Deliveries received here and not settled, as far as the caller told.
        self.held_count = 0
        self.is_broken = False

    async def open(self) -> None:
        """
        Connect.

        Raises:
            AzureError: no connection, no right, or no such entity.
        """
        self._open_part = await opened(self._receiver)
        self._handler = self._receiver._handler
        self._link = self._handler._link
        self._link._incoming_flow = self._on_flow
        self._note_disposition = self._link._incoming_disposition
        self._link._incoming_disposition = self._on_disposition
        self._link._wait_for_disposition_outcome = self._outcome_told
        # Without this what arrives is given back at once, even between two reads of ours.
        self._receiver._receive_context.set()

    async def _on_flow(self, frame: Sequence[Any]) -> None:
        """Take note that the service used up the credit.  The SDK itself ignores it."""
        handle, delivery_count, is_drained = frame[4], frame[5], frame[8]
        if handle is None or not is_drained:
            return
        self._link.delivery_count = delivery_count
        self._link.current_link_credit = 0
        self._is_drained = True

    # Receiving

    async def pull(self, max_count: int, wait_s: float) -> list[ServiceBusReceivedMessage]:
        """
        Lock and give what is there, at most `max_count`; else wait for the first.

        Raises:
            LinkBroken: what it had locked comes again when its lock has run out.
        """
        try:
            await self._refresh_token()
            if wait_s > 0:
                await self._link.flow(link_credit=max_count)
                await self._read_until(self._has_arrived, wait_s)
            await self._drain(max_count - self._arrived_count if wait_s <= 0 else None)
            return self._take(max_count)
        except BaseException as exc:
            # A read that was cut off may have lost a frame, and with it a message.
            self.is_broken = True
            if isinstance(exc, Exception):
                raise LinkBroken(str(exc)) from exc
            raise

    @property
    def _arrived_count(self) -> int:
        count: int = self._handler._received_messages.qsize()
        return count

    def _has_arrived(self) -> bool:
        return self._arrived_count > 0

    async def _refresh_token(self) -> None:
        """Let the SDK renew its token when that is due."""
        is_known = False
        while not is_known:
            is_known = await self._handler.auth_complete_async()

    async def _drain(self, credit: int | None) -> None:
        """Have the service send what it has, up to the credit, and take back the rest of it."""
        rest: int = self._link.current_link_credit if credit is None else credit
        if rest <= 0:
            return
        self._is_drained = False
        await self._link.flow(link_credit=rest, drain=True)
        if not await self._read_until(lambda: self._is_drained, self._answer_timeout_s):
            raise TimeoutError(f"no answer to a drain within {self._answer_timeout_s} s")

    async def _read_until(self, is_done: Callable[[], bool], wait_s: float) -> bool:
        """
        Read frames until something is so; tells whether it is, in time.

        Before Python 3.12 `asyncio.wait_for`, by which the SDK reads, keeps a cancellation to
        itself that comes together with a frame: whoever cancelled would wait for ever.
        """
        cancelled_count = _cancelled_count()
        deadline_s = self._clock.monotonic_s() + wait_s
        while not is_done():
            remaining_s = deadline_s - self._clock.monotonic_s()
            if remaining_s <= 0:
                return False
            async with self._reading:
                if not is_done():
                    self._see_attached()
                    is_busy = self.held_count or self._settling_count
                    read_s = _READ_WHILE_HELD_S if is_busy else _READ_S
                    await self._handler._connection.listen(wait=min(read_s, remaining_s))
            if _cancelled_count() > cancelled_count:
                raise asyncio.CancelledError
        return True

    def _see_attached(self) -> None:
        """See that the link is there.  Detached without a reason, the SDK would wait for ever."""
        if self._receiver._handler is not self._handler or self._handler._link is not self._link:
            raise ConnectionResetError("the SDK replaced the link")
        if self._link.get_state().value != _ATTACHED:
            raise ConnectionResetError("the link was detached")

    def _take(self, max_count: int) -> list[ServiceBusReceivedMessage]:
        arrived = self._handler._received_messages
        taken = [arrived.get_nowait() for _ in range(min(max_count, arrived.qsize()))]
        return [self._receiver._build_received_message(message) for message in taken]

    # Settling

    async def settle(
        self,
        messages: Sequence[ServiceBusReceivedMessage],
        settle_one: Callable[[ServiceBusReceiver, ServiceBusReceivedMessage], Awaitable[None]],
    ) -> list[BaseException | None]:
        """
        Settle all together.

        Returns:
            What came of each: None, the service's error, or a cancellation where the link broke
            before it was known.
        """
        settling = [asyncio.ensure_future(settle_one(self._receiver, m)) for m in messages]
        try:
            with self._busy():
                await self._read_outcomes(settling)
        except (AzureError, AMQPException, OSError) as exc:
            self.is_broken = True
            _log.info("a link broke while it settled: %s", type(exc).__name__)
        finally:
            for task in settling:
                task.cancel()
            results = await asyncio.gather(*settling, return_exceptions=True)
        return results

    async def _read_outcomes(self, settling: Sequence[asyncio.Future[None]]) -> None:
        """Read for all until each is settled; none within the time for an answer: it broke."""
        done_count = 0

        def count(_: asyncio.Future[None]) -> None:
            nonlocal done_count
            done_count += 1

        for task in settling:
            task.add_done_callback(count)
        while done_count < len(settling):
            known_count = done_count
            has_more = functools.partial(lambda known: done_count > known, known_count)
            if not await self._read_until(has_more, self._answer_timeout_s):
                raise TimeoutError(f"no outcome within {self._answer_timeout_s} s")

    async def _on_disposition(self, frame: Sequence[Any]) -> None:
        """Wake the settlements that the service speaks of."""
        await self._note_disposition(frame)
        first, last = frame[1], frame[1] if frame[2] is None else frame[2]
        for delivery_id in range(first, last + 1):
            if delivery_id in self._outcomes:
                self._outcomes[delivery_id].set()

    async def _outcome_told(
        self, delivery_ids: Sequence[int], _timeout_s: float | None, expected: str = "accepted"
    ) -> None:
        """Wait for outcomes, in the place of the SDK's own waiting, in which each reads."""
        pending = self._link._pending_dispositions
        try:
            for delivery_id in delivery_ids:
                told = self._outcomes.setdefault(delivery_id, asyncio.Event())
                while not pending[delivery_id]["settled"]:
                    told.clear()
                    await told.wait()
                check_disposition_outcome(delivery_id, pending[delivery_id]["outcome"], expected)
        finally:
            for delivery_id in delivery_ids:
                pending.pop(delivery_id, None)
                self._outcomes.pop(delivery_id, None)

    async def release(self, messages: Sequence[ServiceBusReceivedMessage]) -> None:
        """Give messages back as if they had not been delivered: they are not counted."""
        with self._busy():
            for message in messages:
                private: Any = message
                await self._handler.settle_messages_async(
                    private._delivery_id, private._delivery_tag, "released"
                )

    async def renew(self, messages: Sequence[ServiceBusReceivedMessage]) -> None:
        """
        Extend the locks of messages, of this link or of one before it, in one request.

        The SDK's own renewal is a request a message: under load it falls behind the locks.

        Raises:
            MessageLockLostError: one of them was lost; none was extended.
        """
        with self._busy():
            tokens = [message.lock_token for message in messages]
            result = await self._receiver._renew_locks(*tokens)
        for message, until_ms in zip(messages, result[b"expirations"], strict=True):
            private: Any = message
            private._expiry = EPOCH + timedelta(milliseconds=until_ms)

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """Keep `pull` from holding the connection's lock for long meanwhile."""
        self._settling_count += 1
        try:
            yield
        finally:
            self._settling_count -= 1

    async def aclose(self) -> None:
        """Give back what nobody took, and disconnect, as far as the service lets us."""
        self.is_broken = True
        if self._open_part is not None:
            await self._open_part.aclose()
