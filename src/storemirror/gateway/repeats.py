"""
What happens at every call while something is out, logged once a minute with its count.

An outage would fill the log with one line a call, and a log that says nothing of it leaves nobody
the wiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storemirror.clock import Clock

#: How often the same thing is said.
SAY_EVERY_S: Final = 60.0
#: Different things that are told apart; of more of them the one last said longest ago is forgotten.
MOST_KINDS: Final = 1_000


@dataclass(slots=True)
class _Kind:
    said_s: float
    unsaid_count: int = 0


class Repeats:
    """Tells when to say again what goes on happening."""

    def __init__(self, clock: Clock) -> None:
        """Nothing has happened yet."""
        self._clock = clock
        #: The one said last stands last.
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    def count_to_say(self, *kind: str) -> int | None:
        """
        Take note of one occurrence.

        Args:
            kind: what happened, and why; of few different values, so without ids.

        Returns:
            How many there were since it was last said, this one included, when it is to be said
            now; else None.
        """
        now_s = self._clock.monotonic_s()
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= MOST_KINDS:
                # What is new may be an outage, and must not be said at every call.
                del self._kinds[next(iter(self._kinds))]
            self._kinds[kind] = _Kind(said_s=now_s)
            return 1
        known.unsaid_count += 1
        if now_s - known.said_s < SAY_EVERY_S:
            return None
        del self._kinds[kind]
        self._kinds[kind] = _Kind(said_s=now_s)
        return known.unsaid_count
