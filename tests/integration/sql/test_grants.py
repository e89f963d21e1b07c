"""A role with the rights that are rendered for a job does it, and misses each of them."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import DatabaseRefused
from storemirror.event.change import Outcome
from storemirror.gateway.schema_watch import verify_mirror
from storemirror.model.load import load_model
from storemirror.sql.grants import Job
from storemirror.sql.port import RebaseStep, RowEvent, UnverifiedDocument
from storemirror.sql.postgres.connection import MIRROR, Database, psycopg, sql
from storemirror.sql.postgres.grants import Grant, grants_of, grants_sql
from storemirror.sql.postgres.mirror import PostgresMirror
from storemirror.sql.postgres.reads import PostgresReads
from storemirror.sql.postgres.rebase import PostgresRebaseLedger
from storemirror.sql.postgres.schema import PostgresSchema
from tests.integration.sql.test_deploy_script import run_psql
from tests.support.events import deleted, written
from tests.support.mirrors import PROJECT, STORE, MirrorUnderTest, installed_mirror, rebased

pytestmark = pytest.mark.postgres

MARK: Final = UnverifiedDocument(
    message_id="m", reason="lost", path=None, entity=None, key=None, version=None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A mirror with its owner, and a role that is not."""

    owner: MirrorUnderTest
    role: str
    database: Database

    def mirror(self) -> PostgresMirror:
        """Give the role's, which knows of no row yet."""
        return PostgresMirror(self.database, self.owner.rendering, project=PROJECT, store=STORE)

    def schema(self) -> PostgresSchema:
        """Give what the role deploys with."""
        return PostgresSchema(self.database, self.owner.rendering, project=PROJECT, store=STORE)

    async def change(self, verb: str, grant: Grant, privilege: str) -> None:
        """Grant or revoke one right."""
        way = "TO" if verb == "GRANT" else "FROM"
        statement = f"{verb} {privilege} ON {grant.kind} {grant.name} {way} {self.role}"
        await self.owner.execute(statement.encode())

    async def grant(self, *jobs: Job) -> None:
        """Run the script that is rendered, twice: it is idempotent."""
        script = grants_sql(self.owner.rendering, role=self.role, jobs=jobs)
        await self.owner.execute((script + script).encode())


@contextlib.asynccontextmanager
async def stationed(owner: MirrorUnderTest) -> AsyncIterator[Station]:
    """Have a role without any right of its own."""
    role = f"role_{uuid.uuid4().hex}"
    await owner.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    database = Database(owner.dsn, MIRROR, max_size=4, options=f"-c role={role}")
    await database.open()
    try:
        yield Station(owner=owner, role=role, database=database)
    finally:
        await database.aclose()
        for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}"):
            await owner.execute(sql.SQL(statement).format(sql.Identifier(role)))
        await owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
async def station(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Station]:
    """An installed mirror, in a database that gives nobody rights of itself."""
    async with installed_mirror(load_model(), await new_database()) as owner:
        await owner.execute("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA storemirror FROM PUBLIC")
        async with stationed(owner) as made:
            yield made


def talk(station: Station, number: int, at_us: int, people: dict[str, int | None]) -> RowEvent:
    """Give a write of a conversation."""
    key, model = (f"{number}",), station.owner.model
    return written(model, "DmConversation", key, at_us, participants=people, createdAt=at_us)


def everything(station: Station, at_us: int) -> list[RowEvent]:
    """Give a write of each document, of ids that were never there."""
    model, new = station.owner.model, f"{at_us}"
    return [
        written(model, "DmMessage", (new, "m"), at_us, senderId="a", sentAt=at_us),
        talk(station, at_us, at_us, {"a": None, "b": at_us}),
        written(model, "FollowEdge", ("a", new), at_us, createdAt=at_us),
        written(model, "UserBlock", ("a", new), at_us, createdAt=at_us),
    ]


async def write(station: Station) -> None:
    """Write each document, change it, delete it; and mark one that is set aside."""
    mirror, model, at_us = station.mirror(), station.owner.model, SystemClock().now_us()
    await mirror.verify_schema()
    await mirror.probe()
    events = everything(station, at_us)
    for event in events:
        assert await mirror.apply([event]) == [Outcome.APPLIED]
    other = talk(station, at_us, at_us + 1, {"a": at_us})
    gone = [deleted(model, e.entity.name, e.key, at_us + 2) for e in events]
    assert await mirror.apply([other]) == [Outcome.APPLIED]
    assert await mirror.apply(gone) == 4 * [Outcome.APPLIED]
    await set_aside(station)


async def ask(station: Station) -> None:
    """Answer what the app asks."""
    await verify_mirror(station.mirror())
    reads = PostgresReads(station.database, station.owner.rendering)
    await reads.inbox("a", older_than=None, limit=5)
    await reads.messages("a", "c", older_than=None, limit=5)
    await reads.relationship("a", "b")


async def read(station: Station) -> None:
    """Answer what the app asks, and tell what is installed."""
    await ask(station)
    await station.mirror().follow_relationship("a", "b")
    assert (await station.schema().status()).differences == ()
    await station.schema().outdated_counts(max_count=5)


async def check(station: Station) -> None:
    """Read every row, and what is not verified."""
    await read(station)
    mirror = station.mirror()
    await mirror.verify_schema()
    await mirror.probe()
    for entity in station.owner.model:
        async for _ in mirror.rows(entity, after=None, up_to=None):
            pass
        await mirror.row(entity, ("a", "b")[: len(entity.keys)])
    await mirror.rollup_differences(station.owner.model["DmMessage"], limit=5)
    await station.owner.mirror.mark_unverified([MARK])
    assert await mirror.clear_unverified(await mirror.unverified()) == 1
    await mirror.clear_overtaken()
    assert await mirror.unverified_count() == 0


async def repair(station: Station) -> None:
    """Set what a roll-up has wrong."""
    await check(station)
    await station.mirror().recompute_rollups(station.owner.model["DmMessage"])


async def set_aside(station: Station) -> None:
    """Mark what is purged from the bus, twice."""
    await station.mirror().verify_schema()
    for _ in range(2):
        await station.mirror().mark_unverified([MARK])


async def purge(station: Station) -> None:
    """Remove a tombstone of each table."""
    at_us = SystemClock().now_us()
    events = everything(station, at_us)
    await station.owner.mirror.apply(events)
    model = station.owner.model
    gone = [deleted(model, e.entity.name, e.key, at_us + 2) for e in events]
    await station.owner.mirror.apply(gone)
    mirror = station.mirror()
    await mirror.verify_schema()
    for event in events:
        table = station.owner.rendering.table(event.entity.name)
        old = f"UPDATE {table} SET applied_at = now() - interval '1 day'"
        await station.owner.execute(old.encode())
        assert await mirror.purgeable_count(event.entity, older_than_s=3_600, max_count=9) > 0
        assert await mirror.purge(event.entity, older_than_s=3_600, max_count=99) > 0


async def rebase(station: Station) -> None:
    """Begin the versions anew; what was refused halfway before is no matter."""
    await station.owner.execute("UPDATE storemirror.rebase SET step = 'done'")
    await check(station)
    await set_aside(station)
    ledger = PostgresRebaseLedger(station.database, station.owner.rendering)
    run = uuid.uuid4().hex
    async with ledger.held():
        await rebased(ledger, SystemClock().now_us(), run=run, until=RebaseStep.MARKED)
        for entity in station.owner.model:
            await ledger.reset_versions(run, entity, after=None, max_count=5)
        steps = (RebaseStep.MARKED, RebaseStep.OPENED, RebaseStep.REFILLED, RebaseStep.DONE)
        for after, to in itertools.pairwise(steps):
            await ledger.advance(run, after=after, to=to, mark_us=None)
    await station.owner.mirror.clear_unverified(await station.owner.mirror.unverified())


WORK: Final[Mapping[Job, Callable[[Station], Awaitable[None]]]] = {
    Job.READ: read,
    Job.CHECK: check,
    Job.REPAIR: repair,
    Job.WRITE: write,
    Job.DEAD_LETTERS: set_aside,
    Job.PURGE: purge,
    Job.REBASE: rebase,
}


async def missed(station: Station, job: Job, grant: Grant, privilege: str) -> bool:
    """Take one right away; tell whether the work is refused, in words that name the thing."""
    await station.change("REVOKE", grant, privilege)
    name = grant.name.rpartition(".")[2].strip('"')
    try:
        await WORK[job](station)
    except DatabaseRefused as exc:
        return f" {name} (SQLSTATE 42501); the user has not the right" in str(exc)
    finally:
        await station.change("GRANT", grant, privilege)
    return False


@pytest.mark.parametrize("job", list(WORK))
async def test_the_rights_of_a_job_are_enough_and_each_is_needed(
    station: Station, job: Job
) -> None:
    """One too few stops a deployment at night, one too many is what an audit finds."""
    with pytest.raises(DatabaseRefused, match="permission denied for schema storemirror"):
        await WORK[job](station)
    await station.grant(job)
    await WORK[job](station)
    unneeded = [
        f"{privilege} on {grant.name}"
        for grant in grants_of(station.owner.rendering, [job])
        for privilege in grant.privileges
        if not await missed(station, job, grant, privilege)
    ]
    assert unneeded == []


async def test_who_writes_may_answer_what_the_app_asks(station: Station) -> None:
    """The gateway with dual writes is one user."""
    await station.grant(Job.WRITE)
    await write(station)
    await ask(station)


async def test_the_rights_of_several_jobs_are_those_of_each(station: Station) -> None:
    """`up` writes, drains and checks what was not verified, as one user."""
    await station.grant(Job.WRITE, Job.CHECK)
    await write(station)
    await check(station)
    with pytest.raises(DatabaseRefused, match="permission denied for procedure"):
        await purge(station)


async def test_who_deploys_needs_the_schema_and_nothing_else(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    """An administrator makes it; the right to make others is not given away."""
    owner = MirrorUnderTest(load_model(), await new_database())
    await owner.database.open()
    async with stationed(owner) as station:
        with pytest.raises(DatabaseRefused, match="permission denied for database"):
            await station.schema().apply()
        await station.grant(Job.DEPLOY)
        await station.schema().apply()
        assert (await station.schema().plan()).is_empty
        await owner.execute("DROP INDEX storemirror.dm_message_purge")
        dsn = psycopg.conninfo.make_conninfo(owner.dsn, options=f"-c role={station.role}")
        run = run_psql(dsn)
        assert (run.returncode, run.stderr) == (0, "")
        assert (await station.schema().plan()).is_empty
        await write(station)
    await owner.database.aclose()
