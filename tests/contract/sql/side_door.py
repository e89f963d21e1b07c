"""
What the contract suite of the SQL stage needs of a database beyond the two ports.

A dialect is put to the suite by writing these two classes for it and adding it to the fixture
`server`.  Nothing in the suite's tests knows which dialect runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from storemirror.model.entity import Entity, Model
from storemirror.model.mapping import JsonScalar
from storemirror.sql.port import RebaseLedger, RebaseStep, RowEvent, SchemaAdmin, SqlMirror
from storemirror.sql.reads import SqlReads
from tests.support.reference import Key, Reference


class Spelling(Protocol):
    """How a dialect spells names and words."""

    @property
    def schema_name(self) -> str:
        """Give the schema that holds everything."""
        ...

    #: Most events that a procedure takes, in the words of its refusal: "1 to 2,000".
    call_limit: str

    #: What `Installed.retype` makes of a column, and what it was declared as.
    retyped: tuple[str, str]

    def column(self, name: str) -> str:
        """Spell a table or column: of "sentAt" "sent_at"."""
        ...

    def procedure(self, name: str) -> str:
        """Give a procedure with its schema, as a plan names it."""
        ...

    def index(self, table: str, what: str) -> str:
        """Give the name of an index: "Latest"."""
        ...

    def required(self, table: str) -> str:
        """Give the name of the constraint for required columns."""
        ...


class Installed(Protocol):
    """One mirror under test, and a way past its adapter to the rows."""

    @property
    def spelling(self) -> Spelling:
        """Give how the dialect spells names."""
        ...

    @property
    def honours_locks(self) -> bool:
        """Tell whether the server honours lock hints; else two writers may have to try again."""
        ...

    def rank(self, name: str) -> bytes:
        """Give what the server compares ids by, byte by byte."""
        ...

    @property
    def model(self) -> Model:
        """Give the declarations."""
        ...

    @property
    def dsn(self) -> str:
        """Give the server's address, as the adapter takes it."""
        ...

    @property
    def mirror(self) -> SqlMirror:
        """Give the adapter under test."""
        ...

    @property
    def reads(self) -> SqlReads:
        """Give what the gateway reads."""
        ...

    @property
    def schema(self) -> SchemaAdmin:
        """Give what installs it."""
        ...

    @property
    def ledger(self) -> RebaseLedger:
        """Give what a rebase does to it."""
        ...

    async def rebased(
        self, mark_us: int, *, run: str = "r1", until: RebaseStep = RebaseStep.DONE
    ) -> None:
        """Go through a rebase up to a step, versions left as they are."""
        ...

    async def assert_equal(self, reference: Reference) -> None:
        """Compare every row, child row, roll-up and audit row with the reference."""
        ...

    async def damage(
        self,
        entity: Entity,
        keys: Sequence[Key],
        *,
        version: int | None = None,
        mapping_revision: int | None = None,
        digest: str | None = None,
    ) -> None:
        """Overwrite what stored rows say of themselves, behind the mirror's back."""
        ...

    async def damage_rollup(self, entity: Entity, key: Key, column: str, value: object) -> None:
        """Overwrite one aggregate."""
        ...

    async def damage_contents(
        self, entity: Entity, key: Key, columns: Mapping[str, JsonScalar]
    ) -> None:
        """Overwrite a document's columns: declared name -> value as it is mapped."""
        ...

    async def set_applied_at(self, entity: Entity, moments: Mapping[Key, int]) -> None:
        """Let rows have been applied at moments, microseconds since the Unix epoch."""
        ...

    async def damage_children(self, entity: Entity, key: Key) -> None:
        """Remove all child rows of a document."""
        ...

    async def clear(self) -> None:
        """Remove every row, and every purge horizon."""
        ...

    async def make_stubs(self, entity: Entity, keys: Iterable[Key]) -> None:
        """Insert stubs."""
        ...

    async def age(self, entity: Entity, age_s: float) -> None:
        """Let every row of a table have been applied `age_s` seconds ago."""
        ...

    async def set_horizon(self, entity: Entity, at_us: int) -> None:
        """Say that rows up to this moment have been purged."""
        ...

    async def horizon_us(self, entity: Entity) -> int | None:
        """Give the purge horizon."""
        ...

    async def child_marks(self, child: str) -> Mapping[Key, object]:
        """Give for each row of a child table something that changes when the row is written."""
        ...

    async def audit_ids(self, entity: Entity) -> list[str]:
        """Give the event ids in an audit table."""
        ...

    def beside(self) -> AbstractAsyncContextManager[Installed]:
        """Lend the same mirror over connections of its own, as another writer has it."""
        ...

    async def audit_rows(self, entity: Entity) -> list[Mapping[str, object]]:
        """Give an audit table, columns by their declared-style names."""
        ...

    async def rejected(self, procedure: str, argument: str) -> str:
        """Call a procedure past the adapter, and give the error's words."""
        ...

    def encoded(self, events: Sequence[RowEvent]) -> str:
        """Give events as the procedures take them."""
        ...

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Hold a writer's transaction open, with nothing written in it yet."""
        ...

    def holding(self, entity: Entity, key: Key) -> AbstractAsyncContextManager[None]:
        """Hold the lock of a stored row in a transaction that stays open."""
        ...

    async def is_held(self, entity: Entity, key: Key) -> bool:
        """Tell whether somebody holds the lock of a stored row; nothing is changed."""
        ...

    async def kill_purge(self, entity: Entity, key: Key, *, older_than_s: float) -> None:
        """Run a purge, and end it while it waits for the lock of this row to remove it."""
        ...

    async def execute_text(self, batch: str) -> None:
        """Run a batch in the dialect's own words past the adapter; it gives nothing back."""
        ...

    async def plant(self, *changes: tuple[str, str]) -> None:
        """
        Install the procedures with some of their text replaced.

        Args:
            changes: what is replaced, and by what, in the dialect's words; each must occur.
        """
        ...

    def impatient(self, apply_timeout_s: float) -> SqlMirror:
        """Give the same mirror, for which a batch may take only so long."""
        ...

    async def column_names(self, table: str) -> set[str]:
        """Give a table's columns as the database spells them; empty when there is no table."""
        ...

    async def retype(self, entity: Entity, column: str) -> None:
        """Give a column another type, as if it had been declared so before."""
        ...

    async def spoil_procedure(self, procedure: str) -> None:
        """Change what a purge does, as if by hand."""
        ...

    async def set_schema_version(self, version: int) -> None:
        """Let another version of StoreMirror have installed the schema."""
        ...


class Server(Protocol):
    """A database server for tests."""

    async def new_database(self) -> str:
        """Make an empty database, or an empty place in one, and give its address."""
        ...

    def schema_name(self, address: str) -> str:
        """Give the schema that holds everything in such a database."""
        ...

    async def absent_database(self) -> str:
        """Give the address of a database that there is not."""
        ...

    async def opened(
        self,
        address: str,
        model: Model,
        *,
        project: str = "demo",
        store: str = "(default)",
        procedures: Mapping[str, str] | None = None,
    ) -> Installed:
        """Connect to a database; nothing is installed.  Closed when the test ends."""
        ...

    async def installed(self, model: Model) -> Installed:
        """Make a database and install the schema."""
        ...
