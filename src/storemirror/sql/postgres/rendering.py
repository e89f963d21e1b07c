"""
Renders PostgreSQL's tables and procedures from the declarations.  Pure.

What the templates see of an entity is made here, spelled and quoted, so that a template holds SQL
and loops and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from storemirror.errors import ConfigError
from storemirror.model.entity import ChildTable, Entity, LatestColumn, Model, Rollup
from storemirror.model.social import covered_by_latest
from storemirror.model.types import ColumnType
from storemirror.sql.catalogue import rollup_entry
from storemirror.sql.names import has_relationship, resolved_names, snake_case
from storemirror.sql.patience import LockPatience
from storemirror.sql.postgres.tables import next_index, wanted_tables
from storemirror.sql.postgres.types import TYPES
from storemirror.sql.render import (
    SCHEMA_VERSION,
    registered_declarations,
    rollup_digest,
    template_environment,
)

DEPLOY_FILE: Final = "deploy_realtime_mirror.sql"
#: PostgreSQL cuts longer names silently, and two could become one.
MAX_IDENTIFIER_BYTES: Final = 63
_ENVIRONMENT: Final = template_environment("postgres", {})


def quoted(name: str) -> str:
    """
    Quote an identifier.

    Raises:
        ConfigError: PostgreSQL would cut it.

    >>> quoted("dm_message")
    '"dm_message"'
    """
    if len(name.encode()) > MAX_IDENTIFIER_BYTES:
        raise ConfigError(f"{name}: PostgreSQL's names have at most {MAX_IDENTIFIER_BYTES} bytes")
    return '"' + name.replace('"', '""') + '"'


class Rendering:
    """One model in one schema: names, texts, and what the adapter needs to call them."""

    def __init__(self, model: Model, *, schema_name: str, procedures: Mapping[str, str]) -> None:
        """
        Spell every name.

        Args:
            model: the declarations.
            schema_name: PostgreSQL schema that holds everything.
            procedures: SQL_PROC_ settings: setting -> name, with or without a schema.

        Raises:
            ConfigError: a setting names no procedure, a name is too long, or two are the same.
        """
        self.model = model
        self.schema_name = schema_name
        self._names = resolved_names(model, procedures, snake_case)
        self._check_distinct()
        self._context = self._made_context()

    def table(self, name: str) -> str:
        """Give a declared table's qualified, quoted name."""
        return self._qualified(snake_case(name))

    def procedure_parts(self, name: str) -> tuple[str, ...]:
        """Give schema and name, unquoted, of a procedure by its declared-style name."""
        given = self._names[name]
        return tuple(given.split(".")) if "." in given else (self.schema_name, given)

    @property
    def procedure_names(self) -> Sequence[str]:
        """Give the declared-style names of the procedures that clients call."""
        return list(self._names)

    def procedure(self, name: str) -> str:
        """Give the qualified, quoted name of a procedure by its declared-style name."""
        return ".".join(quoted(part) for part in self.procedure_parts(name))

    def next_indexes_sql(self) -> str:
        """Render what asks for the statements that build indexes beside those they replace."""
        return _ENVIRONMENT.get_template("next_indexes.sql.j2").render(self._context)

    @property
    def next_index_names(self) -> Sequence[str]:
        """Give the names, unquoted, under which those are built."""
        return [name for t in wanted_tables(self.model) for name in t.replacements.values()]

    def indexes_sql(self) -> str:
        """Render what gives those indexes their names."""
        return _ENVIRONMENT.get_template("indexes.sql.j2").render(self._context)

    def lock_tables_sql(self) -> str:
        """Render what locks every table that is there at once."""
        template = _ENVIRONMENT.get_template("lock_tables.sql.j2")
        return template.render(table_names=self._table_names())

    def holders_sql(self, *, wait_ms: int) -> str:
        """Render what asks who has had a table, or the writers' lock, that long: PID and name."""
        return _ENVIRONMENT.get_template("holders.sql.j2").render(
            schema_name=self.schema_name, purge_lock=self.purge_lock, wait_ms=wait_ms
        )

    def tables_sql(self) -> str:
        """Render the tables."""
        return _ENVIRONMENT.get_template("tables.sql.j2").render(self._context)

    def procedures_sql(self) -> str:
        """Render the procedures."""
        context = self._context
        shared = _ENVIRONMENT.get_template("shared_procedures.sql.j2").render(context)
        template = _ENVIRONMENT.get_template("entity_procedures.sql.j2")
        return shared + "".join(template.render(context, e=e) for e in context["entities"])

    def adopt_sql(self) -> str:
        """Render what is to be done about rows that are there before they are registered."""
        return _ENVIRONMENT.get_template("adopt.sql.j2").render(self._context)

    def constraints_sql(self) -> str:
        """Render what is to be installed once the declarations have been registered."""
        return _ENVIRONMENT.get_template("constraints.sql.j2").render(self._context)

    def files(self) -> Mapping[str, str]:
        """Give the whole deployment as files for a database administrator: name -> text."""
        return {DEPLOY_FILE: self.deploy_sql()}

    def deploy_sql(self, patience: LockPatience | None = None) -> str:
        """
        Render the whole deployment as one script for `psql`.

        Args:
            patience: for how long it may stand in the way of others; by default as long as
                `schema apply`.
        """
        return _ENVIRONMENT.get_template("deploy.sql.j2").render(
            self._context,
            next_indexes=self.next_indexes_sql(),
            indexes=self.indexes_sql(),
            tables=self.tables_sql(),
            guards=_ENVIRONMENT.get_template("guards.sql.j2").render(guarded=self._guarded()),
            procedures=self.procedures_sql(),
            adopt=self.adopt_sql(),
            constraints=self.constraints_sql(),
            declarations=self.declarations_json(),
            schema_version=SCHEMA_VERSION,
            schema_name=self.schema_name,
            file_name=DEPLOY_FILE,
            deploy_lock=self.deploy_lock,
            patience=patience or LockPatience(),
            table_names=self._table_names(),
        )

    @property
    def deploy_lock(self) -> int:
        """Give the advisory lock that one deployment into the schema holds at a time."""
        return zlib.crc32(f"storemirror.schema:{self.schema_name}".encode())

    @property
    def purge_lock(self) -> int:
        """Give the advisory lock that writers share, and that what they must not meet has alone.

        One number a schema, so that two mirrors in one database do not hold each other up.
        """
        return zlib.crc32(f"storemirror.purge:{self.schema_name}".encode())

    def declarations_json(self) -> str:
        """Give name and digest of every declaration, as `register_deployment` takes them."""
        return msgspec.json.encode(registered_declarations(self.model)).decode()

    def _guarded(self) -> list[Mapping[str, object]]:
        """Give what must hold of each table, for who does not look before."""
        return [
            {
                "table": self._qualified(table.name),
                "key": [quoted(name) for name in table.key],
                "columns": [quoted(column.name) for column in table],
                "types": [(column.name, column.type) for column in table],
            }
            for table in wanted_tables(self.model)
        ]

    def _table_names(self) -> list[str]:
        return [self._qualified(table.name) for table in wanted_tables(self.model)]

    def _check_distinct(self) -> None:
        """See that no procedure would replace another: `x` and `storemirror.x` are one name."""
        by_parts: dict[tuple[str, ...], str] = {}
        for name in self._names:
            parts = self.procedure_parts(name)
            if len(parts) > 2 or not all(parts):
                raise ConfigError(f"{'.'.join(parts)}: no name of a procedure, {name}")
            other = by_parts.setdefault(parts, name)
            if other != name:
                raise ConfigError(f"{'.'.join(parts)} is to be the name of {other} and of {name}")

    def _qualified(self, name: str) -> str:
        return f"{quoted(self.schema_name)}.{quoted(name)}"

    def _made_context(self) -> dict[str, Any]:
        entities = {e.name: self._entity(e) for e in self.model}
        for child in self.model:
            if child.rollup is not None:
                entities[child.rollup.into].rollup_child = entities[child.name]
        return {
            "schema": quoted(self.schema_name),
            "entities": list(entities.values()),
            "ensure_parents": self.procedure("EnsureParents"),
            "lock_rows": self.procedure("LockRows"),
            "relationship": has_relationship(self.model)
            and self.procedure("GetFollowRelationship"),
            "follow": entities.get("FollowEdge"),
            "block": entities.get("UserBlock"),
            "purge_lock": self.purge_lock,
        }

    def _entity(self, entity: Entity) -> SimpleNamespace:
        snake = snake_case(entity.name)
        keys = [snake_case(k.name) for k in entity.keys]
        parents = keys[: entity.parent_key_count]
        columns = [
            {"column": quoted(snake_case(c.name)), "type": TYPES[c.type]} for c in entity.columns
        ]
        return SimpleNamespace(
            name=entity.name,
            pattern=entity.pattern,
            json_key=snake,
            table=self.table(entity.name),
            keys=[
                {"column": quoted(k), "name": f"key_{k}", "is_parent": k in parents} for k in keys
            ],
            last_key=quoted(keys[-1]),
            parent_keys=[quoted(k) for k in parents],
            keys_of_x=", ".join(f"x.{quoted(k)}" for k in keys),
            parent_keys_typed=", ".join(f"{quoted(k)} text" for k in parents),
            parent_keys_of_p=", ".join(f"p.{quoted(k)}" for k in parents),
            parent_keys_of_x=", ".join(f"x.{quoted(k)}" for k in parents),
            columns=columns,
            written=_written(entity),
            required=[quoted(snake_case(c.name)) for c in entity.columns if c.is_required],
            rollup_columns=self._rollup_columns(entity),
            derived=[
                {
                    "column": quoted(snake_case(d.name)),
                    "type": TYPES[d.type],
                    "expression": _coalesce([quoted(snake_case(s)) for s in d.sources]),
                }
                for d in entity.derived
            ],
            has_raw=entity.has_raw,
            has_audit=entity.has_audit,
            audit_table=self._qualified(f"{snake}_audit"),
            audit_pk=quoted(f"{snake}_audit_pkey"),
            pk=quoted(f"{snake}_pkey"),
            required_check=quoted(f"{snake}_required"),
            purge_index=quoted(f"{snake}_purge"),
            latest_index=quoted(f"{snake}_latest"),
            latest_next=quoted(next_index(f"{snake}_latest")),
            latest_covers=[quoted(snake_case(c)) for c in covered_by_latest(entity)],
            state_check=quoted(f"{snake}_state"),
            rollup_entry=rollup_entry(entity.name),
            rollup_digest=rollup_digest(entity),
            children=[self._child(t) for t in entity.children],
            rollup=None if entity.rollup is None else self._rollup(entity.rollup),
            rollup_child=None,
            apply=self._qualified(f"apply_{snake}"),
            lock=self._qualified(f"lock_rows_of_{snake}"),
            upsert=self.procedure(f"Upsert{entity.name}"),
            delete=self.procedure(f"Delete{entity.name}"),
            purge=self.procedure(f"Purge{entity.name}"),
            recompute=entity.rollup and self.procedure(f"Recompute{entity.name}Rollup"),
            find_differences=entity.rollup
            and self.procedure(f"Find{entity.name}RollupDifferences"),
        )

    def _child(self, child: ChildTable) -> dict[str, Any]:
        snake = snake_case(child.name)
        columns = [(quoted(snake_case(c.name)), TYPES[c.type]) for c in child.columns]
        return {
            "name": child.name,
            "json_key": snake,
            "table": self.table(child.name),
            "key": quoted(snake_case(child.key.name)),
            "pk": quoted(f"{snake}_pkey"),
            "index": quoted(f"{snake}_by_{snake_case(child.key.name)}"),
            "columns": [
                {"column": name, "type": t, "expression": t.expression.format(f"x.{name}")}
                for name, t in columns
            ],
        }

    def _rollup_columns(self, entity: Entity) -> list[dict[str, Any]]:
        child = self.model.rollup_child_of(entity)
        count = None if child is None or child.rollup is None else child.rollup.count
        return [
            {
                "column": quoted(snake_case(c.name)),
                "type": TYPES[c.type],
                "is_count": c.name == count,
            }
            for c in entity.rollup_columns
        ]

    def _rollup(self, rollup: Rollup) -> dict[str, Any]:
        parent = self.model[rollup.into]
        latest = [_latest(column) for column in rollup.latest]
        counts = [] if rollup.count is None else [_assignment(rollup.count, "", is_count=True)]
        by = rollup.latest_by
        return {
            "parent_name": parent.name,
            "parent_table": self.table(parent.name),
            "by": by and quoted(snake_case(by)),
            "parent_keys": [quoted(snake_case(k.name)) for k in parent.keys],
            "assignments": counts + latest,
            "latest": latest,
        }


def _coalesce(sources: Sequence[str]) -> str:
    return f"COALESCE({', '.join(sources)})"


def _assignment(name: str, value: str, *, is_count: bool) -> Mapping[str, object]:
    """Describe one column of the parent; a count's value depends on the statement."""
    return {"name": name, "target": quoted(snake_case(name)), "value": value, "is_count": is_count}


def _latest(column: LatestColumn) -> Mapping[str, object]:
    """Describe a column that is copied from the latest row, `l` in the statement."""
    source = f"l.{quoted(snake_case(column.source))}"
    cut = column.max_code_points
    value = source if cut is None else f"left({source}, {cut})"
    return _assignment(column.target, value, is_count=False)


def _written(entity: Entity) -> Sequence[Mapping[str, str]]:
    """List the columns that an event writes: the declared ones, and the raw document."""
    written = [
        {
            "column": quoted(snake_case(c.name)),
            "record_type": TYPES[c.type].record,
            "expression": TYPES[c.type].expression.format(f"e.{quoted(snake_case(c.name))}"),
        }
        for c in entity.columns
    ]
    if entity.has_raw:
        kind = TYPES[ColumnType.TEXT]
        written.append(
            {
                "column": "raw_document",
                "record_type": kind.record,
                "expression": "e.raw_document::json",
            }
        )
    return written
