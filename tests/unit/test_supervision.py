"""Parts that run together and end in order: when asked, when one fails, and when one hangs."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.clock import SystemClock
from storemirror.supervision import Part, run_together


class Journal:
    """Parts that write down what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.began = asyncio.Event()

    def part(self, name: str, *, error_at_end: Exception | None = None) -> Part:
        """A part that ends when it is asked."""

        async def run(stop: asyncio.Event) -> None:
            await stop.wait()
            self.events.append(f"{name} asked")
            await asyncio.sleep(0)
            self.events.append(f"{name} ended")
            if error_at_end is not None:
                raise error_at_end

        return Part(name, run)

    def failing(self, name: str, error: Exception) -> Part:
        async def run(stop: asyncio.Event) -> None:
            await asyncio.sleep(0)
            raise error

        return Part(name, run)

    def hanging(self, name: str) -> Part:
        """A part that does not end when it is asked."""

        async def run(stop: asyncio.Event) -> None:
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append(f"{name} cut short")

        return Part(name, run)


async def run(journal: Journal, *parts: Part, is_asked: bool, timeout_s: float = 30.0) -> None:
    stop = asyncio.Event()
    if is_asked:
        stop.set()
    await run_together(parts, stop, clock=SystemClock(), timeout_s=timeout_s)


async def test_the_first_part_ends_before_the_others() -> None:
    """What was taken in is still carried on: the writer works until the triggers have ended."""
    journal = Journal()
    await run(journal, journal.part("triggers"), journal.part("writer"), is_asked=True)
    assert journal.events == ["triggers asked", "triggers ended", "writer asked", "writer ended"]


async def test_the_others_end_together() -> None:
    """One that takes its time must not use up that of the next."""
    journal, is_drained = Journal(), asyncio.Event()

    async def write(stop: asyncio.Event) -> None:
        """End once the drainer has."""
        await stop.wait()
        await is_drained.wait()
        journal.events.append("writer ended")

    async def drain(stop: asyncio.Event) -> None:
        await stop.wait()
        is_drained.set()

    parts = (journal.part("triggers"), Part("writer", write), Part("drainer", drain))
    await run(journal, *parts, is_asked=True)
    assert journal.events[-1] == "writer ended"


async def test_one_that_is_cancelled_unasked_is_a_mistake_of_ours() -> None:
    """Half a process looks alive; an exit status of 0 would say that all is well."""

    async def cancel_itself(stop: asyncio.Event) -> None:
        raise asyncio.CancelledError

    journal = Journal()
    with pytest.raises(RuntimeError, match="drainer was cancelled"):
        await run(journal, journal.part("a"), Part("drainer", cancel_itself), is_asked=False)
    assert journal.events == ["a asked", "a ended"]


@pytest.mark.parametrize("place", range(3))
async def test_one_that_fails_ends_all_with_its_error(place: int) -> None:
    """Half a process looks alive and mirrors nothing."""
    journal = Journal()
    parts = [journal.part("a"), journal.part("b")]
    parts.insert(place, journal.failing("c", ValueError("c is broken")))
    with pytest.raises(ValueError, match="c is broken"):
        await run(journal, *parts, is_asked=False)
    assert set(journal.events) == {"a asked", "a ended", "b asked", "b ended"}


async def test_the_first_error_is_told_and_not_what_followed() -> None:
    """The others fail because of it."""
    journal = Journal()
    first = journal.failing("b", ValueError("the cause"))
    second = journal.part("a", error_at_end=KeyError("a consequence"))
    third = journal.failing("c", KeyError("another consequence"))
    with pytest.raises(ValueError, match="the cause"):
        await run(journal, second, first, third, is_asked=False)


async def test_an_error_while_ending_is_told() -> None:
    """An exit status of 0 would say that everything in hand was settled."""
    journal = Journal()
    bad = journal.part("a", error_at_end=ValueError("not settled"))
    with pytest.raises(ValueError, match="not settled"):
        await run(journal, bad, journal.part("b"), is_asked=True)
    assert journal.events[-1] == "b ended"


async def test_one_that_hangs_is_cut_short_at_the_deadline() -> None:
    """A platform kills the process soon; the others must still have their turn."""
    journal = Journal()
    parts = (journal.hanging("a"), journal.part("b"))
    await run(journal, *parts, is_asked=True, timeout_s=0.0)
    assert journal.events[0] == "a cut short"


async def test_one_that_ends_unasked_is_a_mistake_of_ours() -> None:
    """Without it nothing is mirrored, and nobody is told."""

    async def run_out(stop: asyncio.Event) -> None:
        """End at once."""

    journal = Journal()
    with pytest.raises(RuntimeError, match="drainer ended although nobody"):
        await run(journal, journal.part("a"), Part("drainer", run_out), is_asked=False)
    assert journal.events == ["a asked", "a ended"]


async def test_a_second_interrupt_cuts_all_short() -> None:
    """Whoever presses Ctrl-C twice does not want to wait."""
    journal = Journal()
    running = asyncio.create_task(run(journal, journal.hanging("a"), is_asked=False))
    await journal.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert journal.events == ["a cut short"]
