"""What a stand-in does wrong on request."""

from __future__ import annotations

from collections import deque

from tests.standins.servicebus.message import AmqpError

BUSY = "com.microsoft:server-busy"
QUOTA = "amqp:resource-limit-exceeded"
TOO_LARGE = "amqp:link:message-size-exceeded"


class Faults:
    """Faults that strike one by one, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._sends: deque[AmqpError] = deque()
        self._settlements: deque[AmqpError] = deque()
        #: Credit is taken no note of, and no drain is answered: links that hang in silence.
        self.ignores_flow = False
        #: Number of locks in each request for renewal.
        self.renewal_sizes: list[int] = []

    def refuse_sends(self, condition: str, count: int = 1) -> None:
        """Refuse the next sends."""
        self._sends.extend(AmqpError(condition, "refused on request") for _ in range(count))

    def refuse_settlements(self, condition: str, count: int = 1) -> None:
        """Refuse the next settlements; what they were for stays locked."""
        self._settlements.extend(AmqpError(condition, "refused on request") for _ in range(count))

    def refuse_no_more(self) -> None:
        """Take back what was asked for and has not struck."""
        self._sends.clear()
        self._settlements.clear()

    def strike_send(self) -> None:
        """Raise what the next send is refused with, if anything."""
        if self._sends:
            raise self._sends.popleft()

    def strike_settlement(self) -> None:
        """Raise what the next settlement is refused with, if anything."""
        if self._settlements:
            raise self._settlements.popleft()
