"""
Schedules through SQL Server's adapter and procedures, on a stand-in that runs T-SQL.

It has one connection: nobody is held or killed, and a second writer comes after the first.  What
a schedule then ends with is compared with the model of SQL Server, row by row.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from storemirror.sql.postgres.server import EmbeddedServer
from tests.exhaustive.backend import NowUs
from tests.exhaustive.database import OnLoop, Session
from tests.exhaustive.documents import built_in_model
from tests.exhaustive.gap_locking import GapLockingMirror
from tests.exhaustive.running import database_world, problem_of, run_schedules
from tests.exhaustive.store import PureMirror
from tests.faults.sql.planted import FAULTS
from tests.schedules.known import KNOWN
from tests.schedules.test_two_writers import PLANTED, SHARED
from tests.standins.tsql.installed import OnPostgres, installed_on_postgres
from tests.support.databases import lent_database

pytestmark = pytest.mark.postgres

_NUMBERS = itertools.count()
#: Name in KNOWN -> what is replaced; what takes a second writer to be found is left out.
FOUND_ALONE = {
    **{name: FAULTS["sqlserver"][fault] for name, fault in SHARED.items()},
    "horizon-without-skew": PLANTED["sqlserver"]["horizon-without-skew"][0],
}


class NobodyHeld:
    """See `tests.exhaustive.database.Gates`: who comes to one goes through."""

    @contextlib.asynccontextmanager
    async def closed(self, point: str) -> AsyncIterator[None]:
        del point
        yield

    async def wait_for_gated(self, task: asyncio.Task[object]) -> bool:
        await asyncio.wait([task])
        return False

    async def wait_for_other(self, task: asyncio.Task[object]) -> bool:
        await asyncio.wait([task])
        return False

    async def kill_gated(self) -> None:
        raise AssertionError("nobody is held")


class StandInSession(OnLoop):
    """See `tests.exhaustive.database.Session`."""

    def __init__(self, installed: OnPostgres) -> None:
        super().__init__()
        self.model = installed.model
        self.installed = installed
        self.gated = self.other = installed.mirror
        self.gates = NobodyHeld()

    def expected(self, now_us: NowUs) -> PureMirror:
        return GapLockingMirror(self.model, now_us)

    def clear(self) -> None:
        self.run(self.installed.clear())


@pytest.fixture
def make_session(postgres: EmbeddedServer) -> Iterator[Callable[..., Session]]:
    """Lend a maker of sessions, with faults planted or none."""
    with contextlib.ExitStack() as until_end:

        def make(*faults: tuple[str, str]) -> Session:
            name = f"tsql_schedules_{next(_NUMBERS)}"
            dsn = until_end.enter_context(lent_database(postgres.dsn("postgres"), name))
            installed = until_end.enter_context(installed_on_postgres(built_in_model(), dsn))
            session = StandInSession(installed)
            until_end.callback(session.close)
            if faults:
                session.run(installed.plant(*faults))
            return session

        yield make


def test_random_schedules_end_as_firestore_did(make_session: Callable[..., Session]) -> None:
    """Each outcome is the rule's, and every row, roll-up, child and audit row the model's."""
    session = make_session()
    assert run_schedules(1, 0, 6, lambda: database_world(session)).failure is None


def test_known_schedules_are_sound(make_session: Callable[..., Session]) -> None:
    """Else the mistakes below would seem to be found."""
    session = make_session()
    found = {name: problem_of(one, lambda: database_world(session)) for name, one in KNOWN.items()}
    assert {name: problem for name, problem in found.items() if problem} == {}


@pytest.mark.parametrize("fault", FOUND_ALONE)
def test_a_mistake_planted_in_the_procedures_is_found(
    fault: str, make_session: Callable[..., Session]
) -> None:
    """By the schedule that finds it on the model."""
    session = make_session(FOUND_ALONE[fault])
    assert problem_of(KNOWN[fault], lambda: database_world(session)) is not None
