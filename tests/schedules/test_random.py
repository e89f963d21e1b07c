"""
Random schedules over several documents of all entities, compared with the reference.

What the exhaustive orders leave out: several documents in one batch, of several entities, from
several origins, with repairs, damaged versions and events behind the horizon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storemirror.clock import SystemClock
from storemirror.event.change import Origin, version_of
from storemirror.sql.port import RowEvent
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed
from tests.support.reference import Reference

#: Few documents and moments, so that events meet.
MOMENTS = range(1, 7)
HORIZON = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One event, to be placed on a document."""

    entity: str
    document: int
    at: int
    is_delete: bool
    origin: Origin
    contents: int
    expected: int | None
    is_reread: bool

    def event(self, docs: Documents) -> RowEvent:
        """Give the event."""
        expected = None if self.expected is None else 2 * docs.base_us + self.expected
        observed = HORIZON + 5 if self.is_reread else None
        if self.is_delete:
            return docs.gone(
                self.entity,
                self.key,
                self.at,
                origin=self.origin,
                expected_version=expected,
                observed=observed,
            )
        if self.entity == "DmMessage":
            return docs.message(
                self.key[0],
                self.key[1],
                self.at,
                sent=(self.contents * 7) % 5,
                body=f"text {self.contents}",
                origin=self.origin,
                expected_version=expected,
                observed=observed,
            )
        if self.entity == "DmConversation":
            return docs.conversation(
                self.key[0],
                self.at,
                title=f"title {self.contents}",
                participants={f"u{n}": None for n in range(self.contents)},
                origin=self.origin,
                expected_version=expected,
                observed=observed,
            )
        return docs.follow(
            self.key[0],
            self.key[1],
            self.at,
            created=self.contents,
            origin=self.origin,
            expected_version=expected,
            observed=observed,
        )

    @property
    def key(self) -> tuple[str, ...]:
        """Give the document's key: two conversations, with two messages each."""
        if self.entity == "DmConversation":
            return (f"c{self.document % 2}",)
        return (f"c{self.document % 2}", f"m{self.document // 2}")


STEPS = st.builds(
    Step,
    entity=st.sampled_from(["DmMessage", "DmMessage", "DmConversation", "FollowEdge"]),
    document=st.integers(0, 3),
    at=st.sampled_from(MOMENTS),
    is_delete=st.booleans(),
    origin=st.sampled_from(Origin),
    contents=st.integers(0, 3),
    expected=st.none() | st.builds(version_of, st.sampled_from(MOMENTS), is_deleted=st.booleans()),
    is_reread=st.booleans(),
)
SCHEDULES = st.lists(st.lists(STEPS, min_size=1, max_size=12), min_size=1, max_size=6)


async def run_schedule(sql: Installed, schedule: Sequence[Sequence[Step]]) -> None:
    """Empty the tables, run a schedule, and compare each outcome and every row."""
    docs = Documents(sql.model, SystemClock().now_us() - 3_600_000_000)
    await sql.clear()
    horizons = {}
    for entity in ("DmMessage", "FollowEdge"):
        horizons[entity] = docs.base_us + HORIZON
        await sql.set_horizon(sql.model[entity], horizons[entity])
    reference = Reference(sql.model, horizon_us=horizons)
    for steps in schedule:
        batch = [step.event(docs) for step in steps]
        assert await sql.mirror.apply(batch) == reference.apply(batch)
    await sql.assert_equal(reference)
    assert await sql.mirror.rollup_differences(sql.model["DmMessage"], limit=1) == []


async def test_random_schedules_end_as_the_model_says(sql: Installed, example_count: int) -> None:
    """Whatever meets in a batch, each outcome and the end are those of the pure rule."""
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=example_count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(SCHEDULES)
    def every_schedule(schedule: list[list[Step]]) -> None:
        # Hypothesis calls plain functions: it runs in a thread, the database on our loop.
        running = asyncio.run_coroutine_threadsafe(run_schedule(sql, schedule), loop)
        running.result(timeout=60)

    await asyncio.to_thread(every_schedule)
