"""
What a bus must do, written down as plainly as it can be: lists that are walked from end to end.

Every adapter is compared with it call by call.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from storemirror.bus.port import (
    EXPIRED_REASON,
    MAX_DELIVERY_REASON,
    ExpiryAction,
    SubscriptionSpec,
    TopicSpec,
)


@dataclass(slots=True, eq=False)
class Waiting:
    """One message in one subscription; no two are equal."""

    message_id: str
    #: The larger, the later it was published.
    number: int
    enqueued_at_s: float
    delivery_count: int = 0
    #: Number of the reception that holds it; 0 when nobody does.
    reception: int = 0
    locked_until_s: float = 0.0


@dataclass(slots=True)
class Letter:
    """One dead letter."""

    message_id: str
    number: int
    reason: str
    delivery_count: int
    is_acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A message in somebody's hands: settles this reception of it and no later one."""

    waiting: Waiting
    reception: int


@dataclass
class Subscription:
    """One subscription's messages, the oldest first."""

    spec: SubscriptionSpec
    waiting: list[Waiting] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    completed_count: int = 0


class ModelBus:
    """A topic on a clock that is told how much time passes."""

    def __init__(self, spec: TopicSpec) -> None:
        """Start empty."""
        self._window_s = spec.duplicate_window_s
        self.subscriptions = {one.name: Subscription(one) for one in spec.subscriptions}
        self._now_s = 0.0
        self._seen: dict[str, float] = {}
        self._receptions = 0
        self._numbers = itertools.count()

    def let_pass(self, duration_s: float) -> None:
        """Let time pass; locks run out, and messages expire."""
        self._now_s += duration_s
        for subscription in self.subscriptions.values():
            self._sweep(subscription)

    def _sweep(self, subscription: Subscription) -> None:
        spec = subscription.spec
        for one in list(subscription.waiting):
            if one.reception and one.locked_until_s <= self._now_s:
                self._give_back(subscription, one)
        for one in list(subscription.waiting):
            age_s = self._now_s - one.enqueued_at_s
            if one.reception or spec.time_to_live_s is None or age_s < spec.time_to_live_s:
                continue
            if spec.on_expiry is ExpiryAction.DROP:
                subscription.waiting.remove(one)
            else:
                self._bury(subscription, one, EXPIRED_REASON)

    def _give_back(self, subscription: Subscription, one: Waiting) -> None:
        one.reception = 0
        if one.delivery_count >= subscription.spec.max_delivery_count:
            self._bury(subscription, one, MAX_DELIVERY_REASON)

    def _bury(self, subscription: Subscription, one: Waiting, reason: str) -> None:
        subscription.waiting.remove(one)
        subscription.letters.append(Letter(one.message_id, one.number, reason, one.delivery_count))
        subscription.letters.sort(key=lambda letter: letter.number)

    def publish(self, message_ids: Sequence[str]) -> int:
        """Publish to every subscription; gives how many ids were new."""
        accepted = [one for one in message_ids if self._claim(one)]
        for subscription in self.subscriptions.values():
            for message_id in accepted:
                self._put(subscription, message_id)
        return len(accepted)

    def _claim(self, message_id: str) -> bool:
        seen_s = self._seen.get(message_id)
        if seen_s is not None and self._now_s - seen_s < self._window_s:
            return False
        self._seen[message_id] = self._now_s
        return True

    def _put(self, subscription: Subscription, message_id: str) -> None:
        subscription.waiting.append(Waiting(message_id, next(self._numbers), self._now_s))

    def receive(self, name: str, max_count: int) -> list[Held]:
        """Lock the oldest messages that nobody holds."""
        subscription = self.subscriptions[name]
        self._receptions += 1
        found = [one for one in subscription.waiting if not one.reception][:max_count]
        for one in found:
            one.delivery_count += 1
            one.reception = self._receptions
            one.locked_until_s = self._now_s + subscription.spec.lock_duration_s
        return [Held(one, self._receptions) for one in found]

    def _is_held(self, subscription: Subscription, held: Held) -> bool:
        one = held.waiting
        return one in subscription.waiting and one.reception == held.reception

    def complete(self, name: str, held: Held) -> bool:
        """Settle for good; tells whether the lock was still held."""
        subscription = self.subscriptions[name]
        if not self._is_held(subscription, held):
            return False
        subscription.waiting.remove(held.waiting)
        subscription.completed_count += 1
        return True

    def abandon(self, name: str, held: Held) -> bool:
        """Give back; tells whether the lock was still held."""
        subscription = self.subscriptions[name]
        if not self._is_held(subscription, held):
            return False
        self._give_back(subscription, held.waiting)
        self._sweep(subscription)
        return True

    def dead_letter(self, name: str, held: Held, reason: str) -> bool:
        """Set aside; tells whether the lock was still held."""
        subscription = self.subscriptions[name]
        if not self._is_held(subscription, held):
            return False
        self._bury(subscription, held.waiting, reason)
        return True

    def renew(self, name: str, held: Held) -> bool:
        """Lock for a whole duration; tells whether the lock was still held."""
        subscription = self.subscriptions[name]
        if not self._is_held(subscription, held):
            return False
        held.waiting.locked_until_s = self._now_s + subscription.spec.lock_duration_s
        return True

    def resubmit(self, name: str, index: int, run: str) -> str | None:
        """Send a dead letter again; gives the new id, or None when that was seen before."""
        subscription = self.subscriptions[name]
        letter = subscription.letters[index]
        message_id = f"{letter.message_id.partition('.')[0]}.{run}"
        if not self._claim(message_id):
            return None
        del subscription.letters[index]
        self._put(subscription, message_id)
        return message_id

    def acknowledge(self, name: str, index: int) -> None:
        """Accept a dead letter as lost."""
        self.subscriptions[name].letters[index].is_acknowledged = True

    def counts(self, name: str) -> tuple[int, int, int, int, int]:
        """Give depth, locked, dead letters, acknowledged and completed, as `BusAdmin.stats`."""
        subscription = self.subscriptions[name]
        acknowledged = sum(letter.is_acknowledged for letter in subscription.letters)
        return (
            len(subscription.waiting),
            sum(bool(one.reception) for one in subscription.waiting),
            len(subscription.letters) - acknowledged,
            acknowledged,
            subscription.completed_count,
        )
