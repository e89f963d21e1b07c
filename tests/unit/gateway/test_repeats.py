"""What goes on happening is said once a minute, whatever happened before."""

from __future__ import annotations

from storemirror.gateway.repeats import MOST_KINDS, SAY_EVERY_S, Repeats
from tests.contract.bus.clocks import ManualClock


def test_what_repeats_is_said_once_a_minute_with_its_count() -> None:
    """A log that says it at every call hides everything else."""
    clock = ManualClock()
    repeats = Repeats(clock)
    assert [repeats.count_to_say("away") for _ in range(4)] == [1, None, None, None]
    clock.advance(SAY_EVERY_S)
    assert [repeats.count_to_say("away") for _ in range(2)] == [4, None]


def test_a_new_kind_is_told_apart_however_many_there_were() -> None:
    """After the thousandth each outage was said at every call (issue 7)."""
    repeats = Repeats(ManualClock())
    for number in range(MOST_KINDS + 1):
        repeats.count_to_say("kind", str(number))
    assert [repeats.count_to_say("away") for _ in range(3)] == [1, None, None]


def test_the_kind_that_was_last_said_longest_ago_is_forgotten() -> None:
    """What goes on is said again and again, and stays."""
    clock = ManualClock()
    repeats = Repeats(clock)
    for number in range(MOST_KINDS):
        repeats.count_to_say("kind", str(number))
    for number in (0, 1):
        assert repeats.count_to_say("kind", str(number)) is None
    clock.advance(SAY_EVERY_S)
    assert repeats.count_to_say("kind", "0") == 2
    repeats.count_to_say("away")
    assert repeats.count_to_say("kind", "0") is None
    # 2, were it still known.
    assert repeats.count_to_say("kind", "1") == 1
