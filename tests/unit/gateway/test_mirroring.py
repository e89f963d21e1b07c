"""The dual write's half in SQL: in time, or left to the event path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast

import pytest
from structlog.testing import capture_logs

from storemirror.clock import datetime_from_us
from storemirror.errors import EventRefused, RebaseUnderWay, SqlUnavailable
from storemirror.event.change import Change, Origin, Outcome, RowState, version_of
from storemirror.event.digest import digest_of
from storemirror.event.value import encode_fields
from storemirror.gateway import breaker
from storemirror.gateway.breaker import BREAKER_THRESHOLD
from storemirror.gateway.mirroring import MirrorWriter
from storemirror.gateway.port import Mirrored
from storemirror.gateway.schema_watch import SchemaWatch
from storemirror.model.entity import Entity
from storemirror.model.load import load_model
from storemirror.source.port import DocumentRead
from storemirror.source.reread import observed_change
from storemirror.sql.port import MirrorRow, RowEvent, SqlMirror
from storemirror.sql.postgres.types import LIMITS
from tests.contract.bus.clocks import ManualClock

AT_US = 1_790_000_000_000_000
TIMEOUT_S = 30.0


class Sql:
    """Applies nothing, and says what is in line; then that it applied."""

    limits = LIMITS

    def __init__(self, *errors: Exception, state: RowState | None = None) -> None:
        #: Of every row; None: there is none.
        self.state = state
        self.errors = deque(errors)
        self.timeouts_s: list[float | None] = []
        self.is_silent = False

    async def row(self, entity: Entity, key: tuple[str, ...]) -> MirrorRow | None:
        if self.state is None:
            return None
        return MirrorRow(
            key=key,
            state=self.state,
            version=2 * AT_US,
            mapping_revision=1,
            digest="",
            lossy_fields=(),
            columns={},
            children={},
            raw=None,
        )

    async def apply(
        self, events: Sequence[RowEvent], *, timeout_s: float | None = None
    ) -> list[Outcome]:
        self.timeouts_s.append(timeout_s)
        if self.is_silent:
            await asyncio.Event().wait()
        if self.errors:
            raise self.errors.popleft()
        return [Outcome.APPLIED for _ in events]


async def verified() -> None:
    """The schema is this Firestore's."""


def writer_of(sql: Sql, *, timeout_s: float = TIMEOUT_S) -> MirrorWriter:
    clock = ManualClock()
    return MirrorWriter(
        cast("SqlMirror", sql),
        SchemaWatch(verified, clock),
        load_model(),
        source="//firestore/p",
        timeout_s=timeout_s,
        clock=clock,
    )


def a_follow(number: int = 1) -> Change:
    fields = encode_fields({"createdAt": datetime_from_us(AT_US)})
    return Change(
        path=f"users/ann/following/u{number}",
        version=version_of(AT_US, is_deleted=False),
        origin=Origin.DUAL_WRITE,
        observed_at_us=AT_US,
        fields=fields,
        digest=digest_of(fields),
    )


def refused(number: int) -> EventRefused:
    return EventRefused("the data", event_id=f"e{number}", path=f"users/ann/following/u{number}")


async def test_the_server_is_told_how_long_a_write_waits() -> None:
    """Its batch would go on for a minute, with locks that the event path waits for (issue 7)."""
    sql = Sql()
    assert (await writer_of(sql).mirror(a_follow())).is_mirrored
    assert sql.timeouts_s == [TIMEOUT_S]


@pytest.mark.parametrize("error", [SqlUnavailable("away"), RebaseUnderWay("closed")], ids=str)
async def test_sql_that_fails_again_and_again_is_left_alone(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write would wait for it as long as it may (issue 7)."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", 3_600.0)
    sql = Sql(*[error] * BREAKER_THRESHOLD)
    writer = writer_of(sql)
    for _ in range(BREAKER_THRESHOLD + 3):
        assert not (await writer.mirror(a_follow())).is_mirrored
    assert len(sql.timeouts_s) == BREAKER_THRESHOLD


async def test_sql_that_says_nothing_is_left_alone_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line that was cut without a word costs each write its whole wait."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", 3_600.0)
    sql = Sql()
    sql.is_silent = True
    writer = writer_of(sql, timeout_s=0.01)
    for _ in range(BREAKER_THRESHOLD + 3):
        assert not (await writer.mirror(a_follow())).is_mirrored
    assert len(sql.timeouts_s) <= BREAKER_THRESHOLD


async def test_sql_that_was_left_alone_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is back, writes go into it as before."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", -1.0)
    writer = writer_of(Sql(*[SqlUnavailable("away")] * (BREAKER_THRESHOLD + 1)))
    found = [(await writer.mirror(a_follow())).is_mirrored for _ in range(BREAKER_THRESHOLD + 3)]
    assert found == [False] * (BREAKER_THRESHOLD + 1) + [True] * 2


async def test_documents_that_sql_refuses_say_nothing_of_sql(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One user with bad data would take the dual write from everybody."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", 3_600.0)
    count = BREAKER_THRESHOLD + 3
    writer = writer_of(Sql(*[refused(number) for number in range(count)]))
    for number in range(count):
        assert not (await writer.mirror(a_follow(number))).is_mirrored
    assert (await writer.mirror(a_follow())).is_mirrored


async def test_a_write_that_finds_sql_left_alone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute, beside the error that came first."""
    monkeypatch.setattr(breaker, "BREAKER_OPEN_S", 3_600.0)
    writer = writer_of(Sql(*[SqlUnavailable("away")] * BREAKER_THRESHOLD))
    with capture_logs() as logs:
        for _ in range(BREAKER_THRESHOLD + 3):
            await writer.mirror(a_follow())
    assert [log["error"].split()[-1] for log in logs] == ["away", "moment"]


async def test_refused_documents_are_said_once_a_minute() -> None:
    """Each names its event and path: a user who writes many would fill the log (issue 7)."""
    writer = writer_of(Sql(*[refused(number) for number in range(20)]))
    with capture_logs() as logs:
        for number in range(20):
            await writer.mirror(a_follow(number))
    assert [log["path"] for log in logs] == ["users/ann/following/u0"]


@pytest.mark.parametrize(
    ("state", "is_mirrored", "outcome"),
    [
        (None, False, None),
        (RowState.STUB, False, None),
        (RowState.TOMBSTONE, True, None),
        (RowState.LIVE, True, Outcome.APPLIED),
    ],
)
async def test_a_document_that_is_gone_is_mirrored_where_sql_has_heard_of_it(
    state: RowState | None, outcome: Outcome | None, *, is_mirrored: bool
) -> None:
    """Its creation may wait on the bus: SQL would show it after it was told gone (issue 7)."""
    seen = DocumentRead(path="users/ann/following/u1", document=None, read_time_us=AT_US)
    found = await writer_of(Sql(state=state)).mirror(observed_change(seen, Origin.MIRROR))
    assert found == Mirrored(is_mirrored=is_mirrored, outcome=outcome)


@pytest.mark.parametrize(
    ("state", "is_mirrored"),
    [(None, True), (RowState.STUB, True), (RowState.TOMBSTONE, True), (RowState.LIVE, False)],
)
async def test_what_was_not_there_to_take_away_is_mirrored_unless_sql_shows_it(
    state: RowState | None, *, is_mirrored: bool
) -> None:
    """Nothing is written, and no event comes: an app would wait for ever (issue 7)."""
    sql = Sql(state=state)
    found = await writer_of(sql).see_gone("users/ann/following/u1")
    assert (found, sql.timeouts_s) == (Mirrored(is_mirrored=is_mirrored, outcome=None), [])
