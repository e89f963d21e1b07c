"""
Renders SQL Server's tables and procedures from the declarations.  Pure.

What the templates see of an entity is made in `entity_context.py`, spelled and quoted, so that a
template holds SQL and loops and nothing else.  A text holds batches, each ended by a line `GO`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from storemirror.errors import ConfigError
from storemirror.model.entity import Model
from storemirror.sql.names import has_relationship, pascal_case, procedures_of, resolved_names
from storemirror.sql.patience import LockPatience
from storemirror.sql.render import (
    SCHEMA_VERSION,
    registered_declarations,
    template_environment,
)
from storemirror.sql.sqlserver import escapes
from storemirror.sql.sqlserver.entity_context import entity_context
from storemirror.sql.sqlserver.naming import (
    FILTERS,
    PROCEDURE_PREFIX,
    batches_of,
    procedure_name,
    quoted,
)
from storemirror.sql.sqlserver.tables import wanted_tables
from storemirror.sql.sqlserver.types import (
    BABELFISH_COLLATION,
    COLLATION,
    COUNTING_COLLATION,
    NAME_COLLATION,
    byte_limit,
)

DEPLOY_FILE: Final = "deploy_realtime_mirror.sqlcmd"
#: The schema where none is named.
DEFAULT_SCHEMA: Final = "dbo"
#: Tables of our own book-keeping: name in the templates -> name in the database.  The schema may
#: not be ours alone.
OWN_TABLES: Final[Mapping[str, str]] = {
    "schema_info": "StoreMirrorSchemaInfo",
    "declaration": "StoreMirrorDeclaration",
    "purge_horizon": "StoreMirrorPurgeHorizon",
    "unverified_document": "StoreMirrorUnverifiedDocument",
    "rebase": "StoreMirrorRebase",
}
_ENVIRONMENT: Final = template_environment("sqlserver", FILTERS)
_SCHEMA_VARIABLE: Final = "SchemaName"
#: What the relationship reader asks: entity, its first and its second key, name of the answer.
_RELATIONSHIP: Final = (
    ("FollowEdge", "@Viewer", "@Target", "IsFollowing"),
    ("FollowEdge", "@Target", "@Viewer", "IsFollowedBy"),
    ("UserBlock", "@Viewer", "@Target", "HasBlocked"),
    ("UserBlock", "@Target", "@Viewer", "IsBlockedBy"),
)


class Rendering:
    """One model in one schema: names, texts, and what the adapter needs to call them."""

    def __init__(
        self,
        model: Model,
        *,
        schema_name: str,
        procedures: Mapping[str, str],
        is_drop_create: bool = False,
    ) -> None:
        """
        Spell every name.

        Args:
            model: the declarations.
            schema_name: schema that holds everything.
            procedures: SQL_PROC_ settings: setting -> name, with or without a schema.
            is_drop_create: whether procedures are dropped and made anew, for a server that has no
                CREATE OR ALTER; rights given on them are lost.

        Raises:
            ConfigError: a setting names no procedure, a name or a key is too long, or two names
                are the same.
        """
        self.model = model
        self.schema_name = schema_name
        self.is_drop_create = is_drop_create
        self._procedure_names = procedures
        self._names = resolved_names(model, procedures, procedure_name)
        self._check_distinct()
        self._check_tables()
        self._context = self._made_context()

    def with_drop_create(self) -> Rendering:
        """Give the same for a server that has no CREATE OR ALTER."""
        return Rendering(
            self.model,
            schema_name=self.schema_name,
            procedures=self._procedure_names,
            is_drop_create=True,
        )

    def table(self, name: str) -> str:
        """Give a declared table's qualified, quoted name."""
        return self.qualified(pascal_case(name))

    def own_table(self, name: str) -> str:
        """Give the qualified, quoted name of a table of ours: a key of `OWN_TABLES`."""
        return self.qualified(OWN_TABLES[name])

    def procedure_parts(self, name: str) -> tuple[str, ...]:
        """Give schema and name, unquoted, of a procedure by its declared-style name."""
        given = self._names[name]
        return tuple(given.split(".")) if "." in given else (self.schema_name, given)

    def procedure(self, name: str) -> str:
        """Give the qualified, quoted name of a procedure by its declared-style name."""
        return ".".join(quoted(part) for part in self.procedure_parts(name))

    @property
    def register_deployment(self) -> str:
        """Give the qualified, quoted name of the procedure that remembers what was installed."""
        return self.qualified(f"{PROCEDURE_PREFIX}RegisterDeployment")

    def next_indexes_batches(self) -> list[str]:
        """Render what builds indexes beside those they replace."""
        return batches_of(self._rendered("next_indexes.sql.j2"))

    def lock_tables_batches(self) -> list[str]:
        """Render what locks every table that is there at once."""
        return batches_of(self._lock_tables())

    def indexes_batches(self) -> list[str]:
        """Render what gives those indexes their names."""
        return batches_of(self._rendered("indexes.sql.j2"))

    def tables_batches(self) -> list[str]:
        """Render the tables."""
        return batches_of(self._rendered("tables.sql.j2"))

    def procedures_batches(self) -> list[str]:
        """Render the procedures."""
        return batches_of(self._procedures())

    def adopt_batches(self) -> list[str]:
        """Render what is to be done about rows that are there before they are registered."""
        return batches_of(self._rendered("adopt.sql.j2"))

    def constraints_batches(self) -> list[str]:
        """Render what is to be installed once the declarations have been registered."""
        return batches_of(self._rendered("constraints.sql.j2"))

    def files(self) -> Mapping[str, str]:
        """Give the whole deployment as files for a database administrator: name -> text."""
        return {DEPLOY_FILE: self.deploy_sql()}

    def deploy_sql(self) -> str:
        """
        Render the whole deployment as one script for `sqlcmd`.

        The schema and the procedures' names are variables at its head.
        """
        names = {p.setting: self._names[p.name] for p in procedures_of(self.model)}
        # One with a schema of its own is two names, and stands as it is.
        variables = {n: name for n, name in names.items() if "." not in name}
        script = Rendering(
            self.model,
            schema_name=f"$({_SCHEMA_VARIABLE})",
            procedures=names | {n: f"$({n})" for n in variables},
            is_drop_create=self.is_drop_create,
        )
        return script.deployed([(_SCHEMA_VARIABLE, self.schema_name), *variables.items()])

    def deployed(self, variables: Sequence[tuple[str, str]]) -> str:
        """Render the script, with these variables of `sqlcmd` at its head."""
        return self._rendered(
            "deploy.sqlcmd.j2",
            variables=variables,
            next_indexes=self._rendered("next_indexes.sql.j2"),
            indexes=self._rendered("indexes.sql.j2"),
            lock_tables=self._lock_tables().rstrip(),
            patience=LockPatience(),
            tables=self._rendered("tables.sql.j2"),
            guards=self._rendered("guards.sql.j2", guarded=self._guarded()),
            procedures=self._procedures(),
            adopt=self._rendered("adopt.sql.j2"),
            constraints=self._rendered("constraints.sql.j2"),
            declarations=self.declarations_json(),
            guarded=self._guarded(),
            schema_version=SCHEMA_VERSION,
            file_name=DEPLOY_FILE,
        )

    def declarations_json(self) -> str:
        """Give name and digest of every declaration, as RegisterDeployment takes them."""
        return msgspec.json.encode(registered_declarations(self.model)).decode()

    @property
    def deploy_lock(self) -> str:
        """Give the application lock that one deployment into the schema holds at a time."""
        return self._lock("deploy")

    @property
    def purge_lock(self) -> str:
        """Give the application lock that writers share, and what they must not meet has alone."""
        return self._lock("purge")

    @property
    def rebase_lock(self) -> str:
        """Give the application lock that one rebase of the mirror holds at a time."""
        return self._lock("rebase")

    def qualified(self, name: str) -> str:
        """Give the qualified, quoted name of something in the schema."""
        return f"{quoted(self.schema_name)}.{quoted(name)}"

    def _lock(self, purpose: str) -> str:
        # As the procedures write it: one lock, however the schema is spelled.
        return f"storemirror.{purpose}:{self.schema_name}".lower()

    def _rendered(self, template: str, **more: object) -> str:
        return _ENVIRONMENT.get_template(template).render(self._context, **more)

    def _lock_tables(self) -> str:
        names = [self.qualified(table.name) for table in wanted_tables(self.model)]
        return self._rendered("lock_tables.sql.j2", table_names=names)

    def _procedures(self) -> str:
        parts = [self._rendered("shared.sql.j2")]
        for entity in self._context["entities"]:
            parts += [self._rendered(name, e=entity) for name in ("apply.sql.j2", "upkeep.sql.j2")]
        return "".join(parts)

    def _guarded(self) -> list[Mapping[str, object]]:
        """Give what must hold of each table, for who does not look before."""
        return [
            {
                "name": table.name,
                "table": self.qualified(table.name),
                "key": table.key,
                "last_event_columns": sum(c.name.startswith("LastEvent") for c in table),
                "columns": [
                    {
                        "name": c.name,
                        "type": c.type.partition("(")[0],
                        "bytes": byte_limit(c.type),
                        "ordinal": table.key.index(c.name) + 1 if c.name in table.key else None,
                    }
                    for c in table
                ],
            }
            for table in wanted_tables(self.model)
        ]

    def _check_distinct(self) -> None:
        """See that no procedure would replace another: names differ without case."""
        by_parts: dict[tuple[str, ...], str] = {}
        for name in self._names:
            parts = self.procedure_parts(name)
            if len(parts) > 2 or not all(parts):
                raise ConfigError(f"{'.'.join(parts)}: no name of a procedure, {name}")
            other = by_parts.setdefault(tuple(part.lower() for part in parts), name)
            if other != name:
                raise ConfigError(f"{'.'.join(parts)} is to be the name of {other} and of {name}")

    def _check_tables(self) -> None:
        """See that no declared table would be one of ours."""
        own = {name.lower() for name in OWN_TABLES.values()}
        for table in wanted_tables(self.model):
            if table.name.lower() in own:
                raise ConfigError(f"{table.declared}: StoreMirror has a table of this name itself")

    def _made_context(self) -> dict[str, Any]:
        entities = {e.name: entity_context(self, e) for e in self.model}
        for child in self.model:
            if child.rollup is not None:
                entities[child.rollup.into].rollup_child = entities[child.name]
        relationship = has_relationship(self.model) and self.procedure("GetFollowRelationship")
        return {
            "schema": quoted(self.schema_name),
            "schema_name": self.schema_name,
            "is_drop_create": self.is_drop_create,
            "collation": COLLATION,
            "counting_collation": COUNTING_COLLATION,
            "name_collation": NAME_COLLATION,
            "babelfish_collation": BABELFISH_COLLATION,
            "escapes_declared": escapes.declared(),
            "so_far": "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            "own": {name: self.own_table(name) for name in OWN_TABLES},
            "entities": list(entities.values()),
            "ensure_parents": self.procedure("EnsureParents"),
            "lock_rows": self.procedure("LockRows"),
            "register_deployment": self.register_deployment,
            "relationship": relationship,
            "relationship_edges": [
                (entities[table], a, b, name) for table, a, b, name in _RELATIONSHIP
            ]
            if relationship
            else [],
        }
