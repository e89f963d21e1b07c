"""Publishing on Service Bus.  See `storemirror.bus.servicebus`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError

from storemirror.bus.port import TOPIC, Message, PublishResult
from storemirror.bus.rules import refuse_bad_messages
from storemirror.bus.servicebus_errors import Operation, Role, translated, translated_errors
from storemirror.bus.servicebus_link import OpenPart, opened
from storemirror.bus.servicebus_message import outgoing, without_contents
from storemirror.bus.servicebus_namespace import Namespace
from storemirror.errors import BusRefused, BusUnavailable, MessageRefused

#: How long a send may take before it counts as unanswered.
SEND_TIMEOUT_S: Final = 20.0
#: A body up to this fits whatever the properties are: the smallest tier takes 256 KB.
_SURELY_FITS_BYTES: Final = 128 * 1024
#: What the SDK writes around a batch and leaves out of its size: the first message's id, of up to
#: 128 characters.  A batch filled to the brim would be refused for it.
_ENVELOPE_BYTES: Final = 1_024


@dataclass(slots=True)
class _Order:
    """Messages that one caller wants published."""

    messages: Sequence[Message | ServiceBusMessage]
    done: asyncio.Future[None]


class ServiceBusPublisher:
    """Puts messages on a topic.  Safe for concurrent use: what comes together is sent together."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        topic: str = TOPIC,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        """
        Name the topic; nothing is opened before the first call.

        Args:
            namespace: stays the caller's to close.
            topic: must have been provisioned.
            send_timeout_s: how long one send may take.
        """
        self._namespace = namespace
        self._topic = topic
        self._send_timeout_s = send_timeout_s
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None
        self._open_part: OpenPart | None = None
        self._orders: list[_Order] = []
        self._sending: asyncio.Task[None] | None = None

    async def publish(self, messages: Sequence[Message]) -> PublishResult:
        """
        See `Publisher.publish`.

        A message too large for one is sent without its contents, which the consumer reads from
        the store.  Duplicates are known within one call alone: the service does not tell.
        """
        if not messages:
            return PublishResult(accepted_count=0, duplicate_count=0)
        refuse_bad_messages(messages)
        unique = {message.message_id: message for message in reversed(messages)}
        fresh = list(reversed(unique.values()))
        await self._ordered(fresh)
        return PublishResult(accepted_count=len(fresh), duplicate_count=len(messages) - len(fresh))

    async def publish_outgoing(self, message: ServiceBusMessage) -> None:
        """Send one message that is already in the wire's form."""
        await self._ordered([message])

    async def _ordered(self, messages: Sequence[Message | ServiceBusMessage]) -> None:
        """Have messages sent by one task, together with those of other callers.

        Of a sender that several tasks open at a time every one of them fails.
        """
        order = _Order(messages, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_orders())
        await order.done

    async def _send_orders(self) -> None:
        orders: list[_Order] = []
        try:
            while self._orders:
                orders, self._orders = self._orders, []
                try:
                    await self._send(orders)
                except MessageRefused as exc:
                    await self._send_alone(orders, exc)
                except (BusRefused, BusUnavailable) as exc:
                    _fail(orders, exc)
        finally:
            # Cut off, or by an error that nobody foresaw: still nobody may wait for ever.
            cut_off = BusUnavailable("publishing was cut off; publishing again is safe")
            _fail([*orders, *self._orders], cut_off)
            self._orders = []

    async def _send_alone(self, orders: Sequence[_Order], refusal: MessageRefused) -> None:
        """Send each order by itself: the message that was refused is one caller's alone."""
        waiting = [order for order in orders if not order.done.done()]
        if len(waiting) == 1:
            _fail(waiting, refusal)
            return
        for order in waiting:
            try:
                await self._send([order])
            except (BusRefused, BusUnavailable) as exc:
                _fail([order], exc)

    async def _send(self, orders: Sequence[_Order]) -> None:
        """Send orders in as few batches as there can be, and tell each what became of it."""
        with translated_errors(self._operation):
            sender = await self._opened()
            batches = await _packed(sender, orders, self._operation)
        for number, (batch, ending) in enumerate(batches):
            try:
                await self._send_batch(batch)
            except BusRefused as exc:
                # After other batches it is no plain refusal: those are published.
                raise (BusUnavailable(f"published in part: {exc}") if number else exc) from exc
            for order in ending:
                if not order.done.done():
                    order.done.set_result(None)

    async def _send_batch(self, batch: ServiceBusMessageBatch) -> None:
        """Send one batch; once more on a new connection, the service drops idle ones."""
        for is_last in (False, True):
            try:
                async with asyncio.timeout(self._send_timeout_s):
                    await (await self._opened()).send_messages(batch)
            except (AzureError, OSError, ValueError) as exc:
                await self._disconnect()
                error = translated(exc, self._operation)
                if is_last or isinstance(error, BusRefused):
                    raise error from exc
            else:
                return

    @property
    def _operation(self) -> Operation:
        return self._namespace.operation(f"publish to topic {self._topic!r}", Role.SEND)

    async def _opened(self) -> ServiceBusSender:
        if self._sender is None or self._open_part is None:
            self._client = self._namespace.client()
            sender = self._client.get_topic_sender(self._topic)
            try:
                async with asyncio.timeout(self._send_timeout_s):
                    self._open_part = await opened(sender)
            except BaseException:
                await self._disconnect()
                raise
            self._sender = sender
        return self._sender

    async def _disconnect(self) -> None:
        """Drop the connection; the next call opens another one."""
        open_part, client = self._open_part, self._client
        self._open_part = self._sender = self._client = None
        if open_part is not None:
            await open_part.aclose()
        if client is not None:
            await client.close()

    async def aclose(self) -> None:
        """See `Publisher.aclose`.  The namespace stays open."""
        if self._sending is not None:
            await self._sending
        await self._disconnect()


async def _packed(
    sender: ServiceBusSender, orders: Sequence[_Order], operation: Operation
) -> list[tuple[ServiceBusMessageBatch, list[_Order]]]:
    """Give batches, each with the orders that are complete once it is sent."""
    batches = [(await _new_batch(sender), list[_Order]())]
    for order in orders:
        try:
            fitting = [await _fitting(sender, message, operation) for message in order.messages]
        except BusRefused as exc:
            _fail([order], exc)
            continue
        for message in fitting:
            try:
                batches[-1][0].add_message(message)
            except MessageSizeExceededError:
                batches.append((await _new_batch(sender), []))
                batches[-1][0].add_message(message)
        batches[-1][1].append(order)
    return [(batch, ending) for batch, ending in batches if len(batch)]


async def _fitting(
    sender: ServiceBusSender, message: Message | ServiceBusMessage, operation: Operation
) -> ServiceBusMessage:
    """
    Give the message in the wire's form; without its contents where it is too large.

    Raises:
        MessageRefused: it is too large, and has no contents that could be read elsewhere.
    """
    if isinstance(message, ServiceBusMessage):
        return message
    whole = outgoing(message)
    largest = (await sender.create_message_batch()).max_size_in_bytes
    # Half is left for properties, of which Service Bus takes 64 KB.
    if len(message.body) <= min(largest // 2, _SURELY_FITS_BYTES) or await _fits(sender, whole):
        return whole
    referring = without_contents(message)
    if referring is None:
        raise MessageRefused(
            f"cannot {operation.what} in {operation.namespace}: message {message.message_id} has "
            f"{len(message.body)} bytes, a message there at most {largest}; "
            "nothing was published"
        )
    return outgoing(referring)


async def _fits(sender: ServiceBusSender, message: ServiceBusMessage) -> bool:
    try:
        (await _new_batch(sender)).add_message(message)
    except MessageSizeExceededError:
        return False
    return True


async def _new_batch(sender: ServiceBusSender) -> ServiceBusMessageBatch:
    largest = (await sender.create_message_batch()).max_size_in_bytes
    return await sender.create_message_batch(largest - _ENVELOPE_BYTES)


def _fail(orders: Sequence[_Order], exc: BaseException) -> None:
    """Tell those who still wait."""
    for order in orders:
        if not order.done.done():
            order.done.set_exception(exc)
