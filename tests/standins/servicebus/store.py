"""Topics, subscriptions and their dead letters.  Nothing here awaits or speaks AMQP."""

from __future__ import annotations

import heapq
import re
import time
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from tests.standins.servicebus.message import AmqpError, StoredMessage

if TYPE_CHECKING:
    from tests.standins.servicebus.link import Link

#: The two forms of SQL filter that are understood, beside those that take everything.
_ADDRESSED: Final = re.compile(
    r"(?P<else>NOT EXISTS\((?P<same>\w+)\) OR )?(?P<name>\w+) = '(?P<value>[^']*)'"
)
_EVERYTHING: Final = ("1=1", "1 = 1")


class ShiftableClock:
    """The machine's clock, held and put forward on request."""

    def __init__(self) -> None:
        self.shift_s = 0.0
        #: Where it stands still; None: it goes.
        self._held_at_s: float | None = None

    def hold(self) -> None:
        """Stand still, an hour ahead, but for what it is put forward.

        Ahead, because the SDK compares locks with this machine's clock, which goes on.
        """
        self._held_at_s = time.time() + 3600.0

    def now_s(self) -> float:
        """Give seconds since the Unix epoch."""
        return (time.time() if self._held_at_s is None else self._held_at_s) + self.shift_s


def takes(rule: str, message: StoredMessage) -> bool:
    """Tell whether a subscription with this SQL filter takes a message."""
    if rule in _EVERYTHING:
        return True
    matched = _ADDRESSED.fullmatch(rule)
    if matched is None:
        raise AmqpError("com.microsoft:argument-error", f"unknown filter {rule!r}")
    name = matched["name"]
    if name.encode() not in message.application:
        return matched["else"] is not None
    return bool(message.application_properties()[name] == matched["value"])


class Queue:
    """The messages of one subscription, or its dead letters."""

    def __init__(self, path: str, clock: ShiftableClock, dead_letters: Queue | None) -> None:
        self.path = path
        self.clock = clock
        #: None: these are dead letters.
        self.dead_letters = dead_letters
        self.rules = {"$Default": "1=1"}
        self.lock_s = 60.0
        self.max_delivery_count = 10
        self.time_to_live_s: float | None = None
        self.is_expiry_dead_lettered = False
        self.links: list[Link] = []
        self.locked: OrderedDict[uuid.UUID, StoredMessage] = OrderedDict()
        self._ready: list[tuple[int, StoredMessage]] = []
        self._last_number = 0
        self._turn = 0

    # Store

    def put(self, message: StoredMessage) -> None:
        """Take in a new message."""
        self._last_number += 1
        message.sequence_number = self._last_number
        message.enqueued_at_s = self.clock.now_s()
        if self.time_to_live_s is not None:
            message.expires_at_s = message.enqueued_at_s + self.time_to_live_s
        self._offer(message)

    def _offer(self, message: StoredMessage) -> None:
        heapq.heappush(self._ready, (message.sequence_number, message))

    @property
    def depth(self) -> int:
        """Give how many messages wait or are locked."""
        return len(self._ready) + len(self.locked)

    def everything(self) -> list[StoredMessage]:
        """Give all messages by rising number."""
        waiting = [message for _, message in self._ready]
        return sorted([*waiting, *self.locked.values()], key=lambda m: m.sequence_number)

    def sweep(self) -> None:
        """Unlock what ran out, set aside or drop what expired."""
        now_s = self.clock.now_s()
        while self.locked:
            message = next(iter(self.locked.values()))
            if message.locked_until_s > now_s:
                break
            self._give_back(message, has_failed=True)
        while self._ready:
            message = self._ready[0][1]
            if message.expires_at_s is None or message.expires_at_s > now_s:
                break
            heapq.heappop(self._ready)
            if self.is_expiry_dead_lettered:
                self._bury(message, "TTLExpiredException", "The message expired.")
        self.pump()

    # Locks and outcomes

    def _lock(self, message: StoredMessage, link: Link) -> None:
        message.token = uuid.uuid4()
        message.owner = link
        message.locked_until_s = self.clock.now_s() + self.lock_s
        self.locked[message.token] = message

    def _held(self, token: uuid.UUID) -> StoredMessage:
        message = self.locked.get(token)
        if message is None:
            raise AmqpError("com.microsoft:message-lock-lost", "The lock supplied is invalid.")
        return message

    def renew(self, tokens: list[uuid.UUID]) -> list[float]:
        """Extend locks, all or none; gives until when each lasts."""
        messages = [self._held(token) for token in tokens]
        until_s = self.clock.now_s() + self.lock_s
        for token, message in zip(tokens, messages, strict=True):
            message.locked_until_s = until_s
            self.locked.move_to_end(token)
        return [until_s] * len(tokens)

    def complete(self, token: uuid.UUID) -> None:
        """Settle for good."""
        self._held(token)
        del self.locked[token]

    def abandon(self, token: uuid.UUID) -> None:
        """Make available again, counted."""
        self._give_back(self._held(token), has_failed=True)
        self.pump()

    def release(self, token: uuid.UUID) -> None:
        """Make available again, as if it had not been delivered."""
        self._give_back(self._held(token), has_failed=False)
        self.pump()

    def dead_letter(self, token: uuid.UUID, reason: str, description: str) -> None:
        """Set aside."""
        message = self._held(token)
        self._unlock(message)
        message.delivery_count += 1
        self._bury(message, reason, description)

    def lose_locks(self) -> None:
        """Let every lock run out."""
        for message in list(self.locked.values()):
            self._give_back(message, has_failed=True)
        self.pump()

    def _unlock(self, message: StoredMessage) -> None:
        assert message.token is not None
        del self.locked[message.token]
        message.token = message.owner = None

    def _give_back(self, message: StoredMessage, *, has_failed: bool) -> None:
        self._unlock(message)
        if has_failed:
            message.delivery_count += 1
        if self.dead_letters is not None and message.delivery_count >= self.max_delivery_count:
            self._bury(
                message,
                "MaxDeliveryCountExceeded",
                f"Message could not be consumed after {message.delivery_count} delivery attempts.",
            )
            return
        self._offer(message)

    def _bury(self, message: StoredMessage, reason: str, description: str) -> None:
        """Move a message to the dead letters; number and enqueue time stay."""
        if self.dead_letters is None:
            self._offer(message)
            return
        message.expires_at_s = None
        message.add_application_properties(
            DeadLetterReason=reason, DeadLetterErrorDescription=description
        )
        self.dead_letters._offer(message)
        self.dead_letters.pump()

    # Delivery

    def pump(self) -> None:
        """Deliver what waits to whoever has credit, in turn."""
        while self._ready:
            willing = [link for link in self.links if link.credit > 0 and not link.conn.is_frozen]
            if not willing:
                return
            self._turn += 1
            link = willing[self._turn % len(willing)]
            _, message = heapq.heappop(self._ready)
            self._lock(message, link)
            link.deliver(message)


class Topic:
    """Gives each subscription a copy of what it takes; recognises ids."""

    def __init__(self, path: str, clock: ShiftableClock) -> None:
        self.path = path
        self.clock = clock
        #: 0: no duplicate detection.
        self.duplicate_window_s = 0.0
        self.subscriptions: dict[str, Queue] = {}
        #: Message id -> when it is forgotten, the oldest first.
        self._seen: OrderedDict[str, float] = OrderedDict()

    def subscribe(self, name: str) -> Queue:
        """Make a subscription."""
        path = f"{self.path}/Subscriptions/{name}"
        dead_letters = Queue(f"{path}/$DeadLetterQueue", self.clock, None)
        queue = self.subscriptions[name] = Queue(path, self.clock, dead_letters)
        return queue

    def put(self, messages: list[StoredMessage]) -> None:
        """Take in messages, all or none."""
        for queue in self.subscriptions.values():
            for message in messages:
                for rule in queue.rules.values():
                    takes(rule, message)
        fresh = [message for message in messages if self._claim(message.message_id)]
        for queue in self.subscriptions.values():
            for message in fresh:
                if any(takes(rule, message) for rule in queue.rules.values()):
                    queue.put(message.copy())
            queue.pump()

    def _claim(self, message_id: str | None) -> bool:
        """Tell whether an id was not seen within the window."""
        if not self.duplicate_window_s or message_id is None:
            return True
        now_s = self.clock.now_s()
        while self._seen and next(iter(self._seen.values())) <= now_s:
            self._seen.popitem(last=False)
        if message_id in self._seen:
            return False
        self._seen[message_id] = now_s + self.duplicate_window_s
        return True
