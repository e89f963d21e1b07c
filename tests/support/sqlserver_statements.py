"""Every batch that the SQL Server adapter sends, taken down as it would be sent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from storemirror.clock import datetime_from_us
from storemirror.model.entity import Model
from storemirror.sql.patience import LockPatience
from storemirror.sql.port import RebaseStep, RowEvent, UnverifiedDocument
from storemirror.sql.shape import Alteration, Refusal
from storemirror.sql.sqlserver.batch import BatchEncoder
from storemirror.sql.sqlserver.connection import Database, in_envelope, session_settings
from storemirror.sql.sqlserver.holders import lock_holders
from storemirror.sql.sqlserver.mirror import SqlServerMirror
from storemirror.sql.sqlserver.reads import SqlServerReads
from storemirror.sql.sqlserver.rendering import Rendering

#: What a batch holds -> what a server would answer, so that the adapter goes on to the next.
_ANSWERS: tuple[tuple[str, list[list[tuple[Any, ...]]]], ...] = (
    ("compatibility_level", [[(1, 150, "db", 1)]]),
    ("Updateability", [[(datetime_from_us(0), "READ_WRITE")]]),
    ("@IsMarked", [[(1, 0, "a", "b")]]),
    ("@LockOwner = N'Session'", [[(1,)]]),
    ("y.name, CAST(c.max_length", [[("nvarchar", 200, 0, 0, 1, "Latin1_General_100_BIN2")]]),
    ("RTRIM(o.type)", [[], [], [], [], [], []]),
    ("SELECT Run, Step, MarkAt", []),
    ("SELECT SchemaVersion, Project", []),
    ("SELECT Entity, MappingRevision", []),
    ("DECLARE @Viewer", [[]]),
    ("SELECT e.LastEventVersion", [[]]),
    ("@Viewer = ?", [[(1, 0, 1, 0)]]),
    ("@Limit = ?", [[]]),
    ("sys.dm_tran_locks", [[(53, "a backup")]]),
    ("KeyParts, Version, MarkedAt", [[]]),
)


class Recorder:
    """Stands where the connection pool is; keeps what it is given, and counts parameters."""

    def __init__(self) -> None:
        self.is_broken = False
        self.batches: list[str] = []

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Recorder]:
        yield self

    async def run(
        self, batch: str, parameters: Sequence[object] = (), timeout_s: float = 0
    ) -> list[list[tuple[Any, ...]]]:
        del timeout_s
        assert batch.count("?") == len(parameters), batch
        self._keep(in_envelope(batch), len(parameters))
        for words, answer in _ANSWERS:
            if words in batch:
                return answer
        if "OBJECT_ID(w.Name)" in batch:
            return [[(place, place + 1) for place in range(batch.count("N'["))]]
        if "@Outcomes0" in batch:
            return [[('[{"o":"applied"}]',) * batch.count("NVARCHAR(MAX);")]]
        if "ISOLATION LEVEL" in batch:
            return [[] for _ in range(2 if "DmParticipant" in batch else 1)]
        return [[(1,)]]

    async def fetch(self, batch: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        found = await self.run(batch, parameters)
        return found[0] if found else []

    async def run_alone(self, batch: str, timeout_s: float) -> list[list[tuple[Any, ...]]]:
        del timeout_s
        self._keep(batch, 0)
        return []

    def _keep(self, batch: str, parameter_count: int) -> None:
        for number in range(parameter_count):
            batch = batch.replace("?", f"@P{number + 1}", 1)
        # A parameter is declared by the call that brings it.
        declared = "".join(f"DECLARE @P{n + 1} NVARCHAR(MAX);\n" for n in range(parameter_count))
        if f"{declared}{batch}" not in self.batches:
            self.batches.append(f"{declared}{batch}")


async def sent_batches(model: Model, events: Sequence[Sequence[RowEvent]]) -> list[str]:
    """
    Give every batch, each once.

    Args:
        model: the declarations; the built-in ones.
        events: batches of events that are applied.
    """
    recorder = Recorder()
    rendering = Rendering(model, schema_name="dbo", procedures={})
    mirror = SqlServerMirror(cast("Database", recorder), rendering, project="p", store="s")
    mirror._encoder = BatchEncoder(model, {e.name: 1 for e in model})
    await mirror.probe()
    for batch in events:
        await mirror.apply(batch)
        with contextlib.suppress(KeyError):
            await mirror._ensure_parents(mirror._encoder, batch, mirror._rows_of(batch), 1.0)
    await _read(mirror, model)
    await _read_for_users(SqlServerReads(cast("Database", recorder), rendering), model)
    await _keep_up(mirror, model)
    await _install(mirror, recorder)
    recorder.batches.append(session_settings(lock_timeout_s=45.0))
    return recorder.batches


async def _read(mirror: SqlServerMirror, model: Model) -> None:
    for entity in model:
        low, high = ("a", "b")[: len(entity.keys)], ("c\U0001f600", "d")[: len(entity.keys)]
        for after, up_to in ((None, None), (low, None), (None, high), (low, high), (high, None)):
            rows = mirror.rows(entity, after=after, up_to=up_to)
            assert [row async for row in rows] == []
        assert await mirror.row(entity, low) is None
    message = model["DmMessage"]
    assert await mirror.rollup_differences(message, limit=5) == []
    await mirror.follow_relationship("a", "b")
    await mirror.unverified()
    await mirror.unverified(limit=3)
    await mirror.unverified_count()


async def _read_for_users(reads: SqlServerReads, model: Model) -> None:
    await reads.inbox("a", older_than=None, limit=5)
    await reads.inbox("a", older_than=(5, "c"), limit=5)
    for batch, place in zip(
        reads.statements.inbox_but_unfit, ((), ("2026-01-01", "c")), strict=True
    ):
        await reads._read(batch, ("a", 6, *place))
    await reads.messages("a", "c", limit=5)
    await reads.messages("a", "c", older_than=(5, "m"), limit=5)
    await reads.messages("a", "c", newer_than=(5, "m"), limit=5)
    await reads.relationship("a", "b")
    for entity in model:
        await reads.version_of(entity, ("a", "b")[: len(entity.keys)])


async def _keep_up(mirror: SqlServerMirror, model: Model) -> None:
    mark = UnverifiedDocument(
        message_id="m", reason="r", path="p", entity="DmMessage", key=("a", "b"), version=2
    )
    await mirror.mark_unverified([mark])
    await mirror.clear_unverified([mark])
    await mirror.clear_overtaken()
    await mirror.recompute_rollups(model["DmMessage"])
    ledger = mirror._ledger
    async with ledger.held():
        await ledger.state()
    await ledger.advance("r", after=RebaseStep.CLOSED, to=RebaseStep.PURGED)
    await ledger.advance("r", after=RebaseStep.PURGED, to=RebaseStep.MARKED, mark_us=5)
    for entity in model:
        await mirror.purge(entity, older_than_s=700, max_count=5)
        await mirror.purgeable_count(entity, older_than_s=700, max_count=5)
        await ledger.reset_versions("r", entity, after=None, max_count=3)
        low = ("a", "b")[: len(entity.keys)]
        await ledger.reset_versions("r", entity, after=low, max_count=3)
    await ledger.close("r")


async def _install(mirror: SqlServerMirror, recorder: Recorder) -> None:
    schema = mirror._schema
    session = cast("Any", recorder)
    async with schema._deploying(session), schema._changing(session):
        await schema._register(session)
    message = mirror._rendering.model["DmMessage"]
    await schema._outdated(session, message, 1, 5)
    for alteration in Alteration:
        refusal = Refusal(what="", cure="", table="DmMessage", column="Body", alteration=alteration)
        await schema._alter(session, refusal)
    await schema.plan()
    await lock_holders(cast("Database", recorder), mirror._rendering, LockPatience())
