"""Cohorts: a flag that cannot be read must not move anybody's reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from storemirror.clock import SystemClock
from storemirror.errors import SourceUnavailable
from storemirror.gateway.flags import (
    FixedFlags,
    FlagNames,
    Signal,
    Template,
    TemplateFlags,
    firestore_only,
    signals_of,
)
from storemirror.gateway.port import Caller, Cohort, Feature, ReadMode

NAMES = {
    Feature.MESSAGING: FlagNames(read_mode="m_mode", dual_write="m_write"),
    Feature.FOLLOW: FlagNames(read_mode="f_mode", dual_write="f_write"),
}
CALLER = Caller(uid="u1")


class ForwardClock(SystemClock):
    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic_s(self) -> float:
        return self.shift_s


class Given:
    """A template with these values for everybody; None: it cannot be evaluated."""

    def __init__(self, values: Mapping[str, str] | None) -> None:
        self._values = values

    def evaluate(self, uid: str, signals: Mapping[str, Signal]) -> Given:
        if self._values is None:
            raise ValueError("broken")
        return self

    def text(self, key: str) -> str:
        return (self._values or {}).get(key, "")

    def is_on(self, key: str) -> bool:
        return self.text(key) == "true"


class Reader:
    """Gives what is in line: a template, or an error; the last one again and again."""

    def __init__(self, *given: Template | Exception) -> None:
        self.given = deque(given)
        self.read_count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> Template:
        self.read_count += 1
        await self.gate.wait()
        given = self.given.popleft() if len(self.given) > 1 else self.given[0]
        if isinstance(given, Exception):
            raise given
        return given


def flags_of(
    reader: Reader, clock: ForwardClock | None = None, *, is_mirror_on: bool = True
) -> TemplateFlags:
    return TemplateFlags(
        reader,
        names=NAMES,
        is_mirror_on=is_mirror_on,
        refresh_s=60,
        clock=clock or ForwardClock(),
    )


SQL = Given({"m_mode": "sql", "m_write": "true", "f_mode": "shadow"})


async def test_each_part_of_the_app_has_its_own_flags() -> None:
    """Follows go to SQL before messages do, or after."""
    flags = flags_of(Reader(SQL))
    messaging = await flags.cohort_of(CALLER, Feature.MESSAGING)
    follow = await flags.cohort_of(CALLER, Feature.FOLLOW)
    assert messaging == Cohort(read_mode=ReadMode.SQL, is_dual_write_on=True)
    assert follow == Cohort(read_mode=ReadMode.SHADOW, is_dual_write_on=False)


@pytest.mark.parametrize("mode", ["", "SQL", "sql_only", "postgres", "true"])
async def test_a_read_mode_that_is_none_means_firestore(mode: str) -> None:
    """A slip of the pen in Firebase's console moves nobody."""
    flags = flags_of(Reader(Given({"m_mode": mode})))
    assert await flags.cohort_of(CALLER, Feature.MESSAGING) == firestore_only()


async def test_the_master_switch_stops_every_dual_write() -> None:
    """Whatever the template says; reads are not its business."""
    flags = flags_of(Reader(SQL), is_mirror_on=False)
    cohort = await flags.cohort_of(CALLER, Feature.MESSAGING)
    assert cohort == Cohort(read_mode=ReadMode.SQL, is_dual_write_on=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (SourceUnavailable("no"), "failed"),
        (ValueError("broken"), "failed"),
        (Given(None), "unevaluated"),
    ],
    ids=["away", "broken", "values missing"],
)
async def test_without_a_template_everything_is_firestores(
    given: Template | Exception, said: str
) -> None:
    """Missing or broken; said once, not for every call."""
    flags = flags_of(Reader(given))
    with capture_logs() as logs:
        for _ in range(3):
            assert await flags.cohort_of(CALLER, Feature.FOLLOW) == firestore_only()
    assert [log["event"] for log in logs] == [f"gateway.flags_{said}"]


class Choosy(Given):
    """Breaks on one caller's claims."""

    def evaluate(self, uid: str, signals: Mapping[str, Signal]) -> Given:
        if signals.get("level") == "seven":
            raise ValueError("no number: seven")
        return self


async def test_one_caller_s_claims_do_not_hide_a_template_that_fails() -> None:
    """Nothing was said of the outage, and that it was over was said at once (issue 7)."""
    clock = ForwardClock()
    flags = flags_of(Reader(Choosy({"m_mode": "sql"}), SourceUnavailable("no"), SQL), clock)
    odd = Caller(uid="odd", claims={"level": "seven"})
    with capture_logs() as logs:
        for _ in range(3):
            assert await flags.cohort_of(odd, Feature.MESSAGING) == firestore_only()
        assert (await flags.cohort_of(CALLER, Feature.MESSAGING)).read_mode is ReadMode.SQL
        for clock.shift_s in (60, 120):
            await settled(flags)
    told = [log["event"].removeprefix("gateway.flags_") for log in logs]
    assert told == ["unevaluated", "failed", "recovered"]
    assert "seven" not in str(logs)


async def settled(flags: TemplateFlags) -> Cohort:
    """The cohort, once a reading that the first question began has ended."""
    await flags.cohort_of(CALLER, Feature.MESSAGING)
    for _ in range(5):
        await asyncio.sleep(0)
    return await flags.cohort_of(CALLER, Feature.MESSAGING)


async def test_the_template_is_read_again_after_a_while() -> None:
    """A switch that is thrown in Firebase's console arrives, without a restart."""
    clock, reader = ForwardClock(), Reader(Given({}), SQL)
    flags = flags_of(reader, clock)
    assert await settled(flags) == firestore_only()
    clock.shift_s = 59
    assert await settled(flags) == firestore_only()
    assert reader.read_count == 1
    clock.shift_s = 60
    assert (await settled(flags)).read_mode is ReadMode.SQL
    assert reader.read_count == 2


async def test_no_call_waits_for_a_template_that_is_read_again() -> None:
    """Firebase may be slow; the last template is good enough until it answers."""
    clock, reader = ForwardClock(), Reader(SQL, Given({}))
    flags = flags_of(reader, clock)
    await settled(flags)
    reader.gate.clear()
    clock.shift_s = 60
    assert (await settled(flags)).read_mode is ReadMode.SQL
    assert reader.read_count == 2
    await flags.aclose()


async def test_first_calls_wait_for_one_reading() -> None:
    """A start under load asks Firebase once."""
    reader = Reader(SQL)
    reader.gate.clear()
    flags = flags_of(reader)
    asked = [asyncio.create_task(flags.cohort_of(CALLER, Feature.MESSAGING)) for _ in range(9)]
    await asyncio.sleep(0)
    reader.gate.set()
    assert {cohort.read_mode for cohort in await asyncio.gather(*asked)} == {ReadMode.SQL}
    assert reader.read_count == 1


async def test_an_outage_of_firebase_is_bridged_for_a_while() -> None:
    """Then nobody knows any more what is switched on, and Firestore serves."""
    clock = ForwardClock()
    flags = flags_of(Reader(SQL, SourceUnavailable("no")), clock)
    await settled(flags)
    clock.shift_s = 600
    with capture_logs() as logs:
        assert (await settled(flags)).read_mode is ReadMode.SQL
        clock.shift_s = 601
        assert await settled(flags) == firestore_only()
    assert [log["event"] for log in logs] == ["gateway.flags_failed"]


async def test_a_broken_template_counts_at_once() -> None:
    """What was published last counts, and says nothing; mended, it counts again."""
    clock = ForwardClock()
    flags = flags_of(Reader(SQL, ValueError("broken"), SQL), clock)
    await settled(flags)
    with capture_logs() as logs:
        clock.shift_s = 60
        assert await settled(flags) == firestore_only()
        clock.shift_s = 120
        assert (await settled(flags)).read_mode is ReadMode.SQL
    assert [log["event"] for log in logs] == ["gateway.flags_failed", "gateway.flags_recovered"]


async def test_without_remote_config_everybody_is_in_one_cohort() -> None:
    """As the settings say."""
    cohort = Cohort(read_mode=ReadMode.SQL_ONLY, is_dual_write_on=True)
    assert await FixedFlags(cohort).cohort_of(CALLER, Feature.FOLLOW) == cohort


def test_conditions_see_what_is_vouched_for() -> None:
    """Not a display name, nor an address that anybody may have typed in."""
    claims = {
        "name": "admin",
        "picture": "https://x",
        "email": "a@b.c",
        "email_verified": True,
        "level": 3,
        "ratio": 0.5,
        "roles": ["admin"],
        "firebase": {"sign_in_provider": "anonymous"},
    }
    assert signals_of(Caller(uid="u1", claims=claims)) == {
        "email": "a@b.c",
        "email_verified": "true",
        "level": 3,
        "ratio": 0.5,
    }
    assert "email" not in signals_of(Caller(uid="u1", claims={"email": "a@b.c"}))
