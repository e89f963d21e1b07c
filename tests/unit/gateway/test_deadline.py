"""A deadline that holds whatever the called one does."""

from __future__ import annotations

import asyncio

import pytest

from storemirror.gateway.deadline import Deadline, DeadlinePassed, current, within, within_promptly

SHORT_S = 0.01


async def test_a_result_comes_through() -> None:
    """And so does an error."""

    async def seven() -> int:
        return 7

    async def fail() -> int:
        raise KeyError("planted")

    assert await within(5.0, seven) == 7
    with pytest.raises(KeyError):
        await within(5.0, fail)


async def test_who_does_not_heed_being_called_off_is_not_waited_for() -> None:
    """The driver asks the server first, for seconds, on a line that says nothing (issue 7)."""
    called_off, go_on = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            called_off.set()
            await go_on.wait()
            raise ValueError("nobody hears this") from None

    with pytest.raises(TimeoutError):
        await within(SHORT_S, stubborn)
    await called_off.wait()
    go_on.set()
    await asyncio.sleep(0)


async def test_a_caller_that_is_called_off_calls_off_what_it_called() -> None:
    """The client went away: SQL need not go on."""
    begun, called_off = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            called_off.set()

    calling = asyncio.create_task(within(60.0, wait))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await called_off.wait()


async def test_a_call_that_has_met_its_deadline_goes_on_to_its_end() -> None:
    """What it did is known: to say that it took too long would be untrue (issue 7)."""
    deadline, passed = Deadline(SHORT_S), asyncio.Event()
    asyncio.get_running_loop().call_later(2 * SHORT_S, passed.set)

    async def write() -> int:
        assert current() is deadline
        deadline.meet()
        await passed.wait()
        return 7

    assert await deadline.hold(write) == 7
    assert deadline.left_s == 0
    assert current() is None


async def test_a_call_that_has_not_met_its_deadline_is_called_off() -> None:
    """As any other that takes too long."""
    called_off = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            called_off.set()

    with pytest.raises(DeadlinePassed):
        await Deadline(SHORT_S).hold(wait)
    await called_off.wait()


async def test_what_ends_at_once_is_given_up_at_its_deadline() -> None:
    """A read has no commit to wait for; what it waits for is let go."""
    called_off = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            called_off.set()

    with pytest.raises(DeadlinePassed):
        await within_promptly(SHORT_S, wait)
    assert called_off.is_set()


async def test_a_timeout_within_a_deadline_is_not_the_deadline() -> None:
    """What a client is told names the deadline: it must not be told another one's."""

    async def fail() -> None:
        raise TimeoutError("planted")

    with pytest.raises(TimeoutError, match="planted") as raised:
        await within_promptly(60.0, fail)
    assert not isinstance(raised.value, DeadlinePassed)
