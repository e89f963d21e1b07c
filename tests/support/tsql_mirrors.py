"""A mirror whose procedures are those of SQL Server, run on PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg

from storemirror.model.entity import Model
from storemirror.sql.port import RowEvent
from storemirror.sql.sqlserver.rendering import Rendering
from tests.standins.tsql.server import TsqlServer
from tests.support.tsql_events import events_json, keys_json

SCHEMA: Final = "ms"


def deploy(server: TsqlServer, made: Rendering, procedures: Sequence[str]) -> None:
    """Do what `schema apply` does, with these procedures."""
    server.install(made.tables_batches())
    server.install(procedures)
    server.install(made.adopt_batches())
    server.call(
        made.register_deployment,
        Project="demo",
        StoreDatabase="(default)",
        SchemaVersion=1,
        Declarations=made.declarations_json(),
    )
    server.install(made.constraints_batches())


class TsqlMirror:
    """A mirror whose procedures are those of SQL Server."""

    def __init__(
        self,
        model: Model,
        dsn: str,
        *,
        honours_hints: bool = True,
        leaves_escapes: bool = False,
        fault: tuple[str, str] = ("", ""),
    ) -> None:
        self.model = model
        #: What is replaced in the procedures, and by what.
        self._fault = fault
        self.rendering = Rendering(model, schema_name=SCHEMA, procedures={})
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.server = TsqlServer(
            self.conn, honours_hints=honours_hints, leaves_escapes=leaves_escapes
        )

    def deploy(self) -> None:
        """Do what `schema apply` does."""
        procedures = self.rendering.procedures_batches()
        if self._fault[0]:
            assert any(self._fault[0] in batch for batch in procedures)
            procedures = [batch.replace(*self._fault) for batch in procedures]
        deploy(self.server, self.rendering, procedures)

    def call(self, name: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Call a procedure by its declared-style name; gives its result set."""
        self.server.call(self.rendering.procedure(name), **parameters)
        return self.server.rows

    def apply(self, events: Sequence[RowEvent]) -> list[str]:
        """Apply events as the adapter does."""
        wanted: dict[str, set[tuple[str, ...]]] = {}
        for event in events:
            rollup = event.entity.rollup
            name, key = (
                (event.entity.name, event.key) if rollup is None else (rollup.into, event.key[:-1])
            )
            wanted.setdefault(name, set()).add(key)
        rows = keys_json(self.model, wanted)
        if self.call("LockRows", Rows=rows) != [(0,)]:
            self.call("EnsureParents", Rows=rows)
        outcomes: dict[int, str] = {}
        with self.conn.transaction():
            assert self.call("LockRows", Rows=rows) == [(0,)]
            for name, places in _calls(self.model, events):
                found = self.call(name, Events=events_json([events[i] for i in places]))
                assert [event_id for event_id, _ in found] == [
                    events[i].change.event_id for i in places
                ]
                outcomes.update(zip(places, (outcome for _, outcome in found), strict=True))
        return [outcomes[place] for place in range(len(events))]


def _calls(model: Model, events: Sequence[RowEvent]) -> Iterator[tuple[str, list[int]]]:
    for entity in model:
        for verb, is_deleted in (("Delete", True), ("Upsert", False)):
            places = [
                place
                for place, event in enumerate(events)
                if event.entity.name == entity.name and event.change.is_deleted is is_deleted
            ]
            if places:
                yield f"{verb}{entity.name}", places


@contextlib.contextmanager
def tsql_mirror(model: Model, dsn: str, **options: Any) -> Iterator[TsqlMirror]:
    """Deploy, and lend the mirror."""
    mirror = TsqlMirror(model, dsn, **options)
    try:
        mirror.deploy()
        yield mirror
    finally:
        mirror.conn.close()
