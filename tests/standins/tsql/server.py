"""Runs batches and procedures of T-SQL on a connection to PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg

from tests.standins.tsql.reading import Block, If, Node, Plain, While, statements_of, tokens_of
from tests.standins.tsql.rewriting import rewritten

_PROCEDURE: Final = re.compile(
    r"^CREATE OR ALTER PROCEDURE (\S+)\n(.*?)^AS\nBEGIN$(.*)^END;$", re.DOTALL | re.MULTILINE
)
_PARAMETER: Final = re.compile(r"\s*(@\w+) \S+(?: = (\S+))?( OUTPUT)?")
#: What SQL Server has and PostgreSQL has not, as far as it is asked for.
PRELUDE: Final = """
CREATE FUNCTION datalength(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * char_length($1)';
CREATE FUNCTION datalength(bytea) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT octet_length($1)';
CREATE FUNCTION len(text) RETURNS int LANGUAGE sql IMMUTABLE
    AS 'SELECT char_length(rtrim($1, '' ''))';
CREATE FUNCTION charindex(text, text) RETURNS int LANGUAGE sql IMMUTABLE
    AS 'SELECT strpos($2, $1)';
CREATE FUNCTION isjson(text) RETURNS int LANGUAGE sql IMMUTABLE
    AS 'SELECT CASE WHEN $1 IS JSON THEN 1 ELSE 0 END';
CREATE FUNCTION serverproperty(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
CREATE FUNCTION schema_id(text) RETURNS oid LANGUAGE sql STABLE
    AS 'SELECT to_regnamespace(lower($1))::oid';
CREATE FUNCTION object_id(text) RETURNS oid LANGUAGE sql STABLE
    AS 'SELECT to_regclass(translate(lower($1), ''[]'', ''""''))::oid';
CREATE FUNCTION object_id(text, text) RETURNS oid LANGUAGE sql STABLE
    AS 'SELECT object_id($1)';
CREATE FUNCTION col_length(text, text) RETURNS int LANGUAGE sql STABLE AS '
    SELECT attlen::int FROM pg_attribute WHERE attrelid = object_id($1) AND attname = lower($2)';
CREATE SCHEMA sys;
CREATE VIEW sys.indexes AS
    SELECT x.indrelid AS object_id, x.indexrelid AS index_id, c.relname AS name,
        (x.indpred IS NOT NULL)::int AS has_filter
    FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid;
CREATE VIEW sys.index_columns AS
    SELECT x.indrelid AS object_id, x.indexrelid AS index_id, k.number AS column_id,
        CASE WHEN k.place <= x.indnkeyatts THEN k.place ELSE 0 END AS key_ordinal,
        (k.place > x.indnkeyatts)::int AS is_included_column
    FROM pg_index AS x CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place);
CREATE VIEW sys.columns AS
    SELECT attrelid AS object_id, attnum AS column_id, attname AS name FROM pg_attribute;
CREATE VIEW sys.check_constraints AS
    SELECT conrelid AS parent_object_id, conname AS name FROM pg_constraint WHERE contype = 'c';
"""
#: A JSON text as it is, or as JSON has it between its quotation marks.
_JSON_TEXT: Final = "CREATE FUNCTION json_text(jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS '{}'"
_READ: Final = "SELECT $1 #>> ''{}''"
_LEFT_ESCAPED: Final = (
    "SELECT CASE jsonb_typeof($1) WHEN ''string'' THEN substr($1::text, 2, length($1::text) - 2)"
    " ELSE $1 #>> ''{}'' END"
)
_COMPUTED: Final = re.compile(r"AS \((COALESCE\(\[(\w+)\].*)\) PERSISTED")

Variables = dict[str, Any]


class Thrown(Exception):
    """A procedure ended with THROW."""

    def __init__(self, number: int, message: str) -> None:
        """Keep both apart."""
        super().__init__(f"{number}: {message}")
        self.number = number


@dataclass(frozen=True)
class _Procedure:
    #: Name -> default.
    parameters: Mapping[str, int | None]
    body: Sequence[Node]


class TsqlServer:
    """Takes batches and calls as SQL Server does, one connection at a time."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        *,
        honours_hints: bool = True,
        leaves_escapes: bool = False,
        is_copy: bool = False,
    ) -> None:
        """
        Take a database over.

        Args:
            conn: autocommit, to an empty database.
            honours_hints: whether it says that it is SQL Server.
            leaves_escapes: whether it gives the texts of JSON as Babelfish does.
            is_copy: whether the database is no empty one, but the copy of one that was taken over
                likewise: what is made at first is there, and `know` tells its procedures.
        """
        self.conn = conn
        #: Rows of the result sets of the last call.
        self.rows: list[tuple[Any, ...]] = []
        #: Mode in which each application lock was asked for.
        self.locks: list[tuple[str, str]] = []
        self._version = "Microsoft SQL Server 2022" if honours_hints else "Babelfish"
        self._procedures: dict[str, _Procedure] = {}
        self._temporary: list[str] = []
        if is_copy:
            return
        conn.execute(PRELUDE.encode())
        read = _LEFT_ESCAPED if leaves_escapes else _READ
        conn.execute(_JSON_TEXT.replace("{}", read, 1).encode())

    def install(self, batches: Iterable[str]) -> None:
        """Run batches, and keep the procedures that they make."""
        for batch in batches:
            if not self.know(batch):
                self._run_all(statements_of(batch), self._variables())

    def know(self, batch: str) -> bool:
        """Keep the procedure that a batch makes, if it makes one; nothing is run."""
        found = _PROCEDURE.search(batch)
        if found is None:
            return False
        given = [_PARAMETER.match(line) for line in found[2].split(",\n")]
        defaults = {p[1].lower(): None if p[2] in (None, "NULL") else int(p[2]) for p in given if p}
        self._procedures[found[1]] = _Procedure(defaults, statements_of(found[3]))
        return True

    def call(self, name: str, **parameters: object) -> Mapping[str, Any]:
        """
        Call a procedure by its qualified, quoted name.

        Returns:
            Its variables at the end, by their names in lower case without `@`; the rows of its
            result set are in `rows`.

        Raises:
            Thrown: it threw.
        """
        procedure = self._procedures[name]
        variables = self._variables() | dict(procedure.parameters)
        for parameter, value in parameters.items():
            assert f"@{parameter.lower()}" in procedure.parameters, parameter
            variables[f"@{parameter.lower()}"] = value
        self.rows, outer, self._temporary = [], self._temporary, []
        try:
            with self.conn.transaction():
                self._run_all(procedure.body, variables)
                for table in self._temporary:
                    self.conn.execute(f"DROP TABLE {table}".encode())
        finally:
            self._temporary = outer
        return {key.removeprefix("@"): value for key, value in variables.items()}

    def _variables(self) -> Variables:
        return {"@@rowcount": 0, "@@trancount": 0, "@@version": self._version}

    def _run_all(self, nodes: Iterable[Node], variables: Variables) -> None:
        for node in nodes:
            self._run(node, variables)

    def _run(self, node: Node, variables: Variables) -> None:
        match node:
            case Block(body):
                self._run_all(body, variables)
            case If(condition, then, otherwise):
                if self._holds(condition, variables):
                    self._run(then, variables)
                elif otherwise is not None:
                    self._run(otherwise, variables)
            case While(condition, body):
                while self._holds(condition, variables):
                    self._run(body, variables)
            case Plain(text):
                self._statement(text, variables)

    def _statement(self, text: str, variables: Variables) -> None:
        for pattern, run in _STATEMENTS:
            if (found := pattern.match(text)) is not None:
                run(self, found, variables)
                return
        self._execute(text, variables)

    def _sql(self, text: str, variables: Variables) -> bytes:
        """Rewrite a text, and put the variables' values in."""
        query = rewritten(text)
        if "sys." in query:
            # Names in the catalogue are in lower case here; a pattern is of the server's version.
            query = "".join(
                t.lower() if t.startswith("'") and not t.endswith("%'") else t
                for t in tokens_of(query)
            )
        values = ("".join(self._value(t, variables)) for t in tokens_of(query))
        return "".join(values).encode()

    @staticmethod
    def _value(token: str, variables: Variables) -> str:
        if not token.startswith("@"):
            return token
        value = variables[token.lower()]
        if value is None or isinstance(value, int):
            return "NULL" if value is None else str(int(value))
        quoted = str(value).replace("'", "''")
        return f"timestamp '{quoted}'" if isinstance(value, datetime) else f"'{quoted}'"

    def _first(self, expression: str, variables: Variables) -> Any:
        query = self._sql(f"SELECT {expression}", variables)
        row = self.conn.execute(query).fetchone()
        return None if row is None else row[0]

    def _holds(self, condition: str, variables: Variables) -> bool:
        return bool(self._first(f"CASE WHEN {condition} THEN 1 ELSE 0 END", variables))

    def _execute(self, text: str, variables: Variables) -> None:
        query = self._sql(text, variables)
        cursor = self.conn.execute(query)
        variables["@@rowcount"] = cursor.rowcount
        if text.startswith("SELECT"):
            self.rows += cursor.fetchall()
        made = re.match(rb"CREATE TEMPORARY TABLE (\w+)", query)
        if made is not None:
            self._temporary.append(made[1].decode())

    def _declare(self, found: re.Match[str], variables: Variables) -> None:
        name, value = found.groups()
        variables[name.lower()] = None if value is None else self._first(value, variables)

    def _set(self, found: re.Match[str], variables: Variables) -> None:
        variables[found[1].lower()] = self._first(found[2], variables)

    def _set_json(self, found: re.Match[str], variables: Variables) -> None:
        query = self._sql(f"SELECT {found[2]}", variables)
        listed = [{"o": outcome} for (outcome,) in self.conn.execute(query).fetchall()]
        variables[found[1].lower()] = json.dumps(listed)

    def _select_into(self, found: re.Match[str], variables: Variables) -> None:
        top, assignments, rest = found.groups(default="")
        names = re.findall(r"(@\w+) = ", assignments)
        columns = re.sub(r"@\w+ = ", "", assignments)
        query = self._sql(f"SELECT {top}{columns} FROM {rest}", variables)
        row = self.conn.execute(query).fetchone()
        if row is not None:
            variables.update(zip((n.lower() for n in names), row, strict=True))

    def _throw(self, found: re.Match[str], variables: Variables) -> None:
        raise Thrown(int(found[1]), self._first(found[2], variables))

    def _lock(self, found: re.Match[str], variables: Variables) -> None:
        given = dict(re.findall(r"(@\w+) = (\S+?)(?:,|$)", found[2]))
        self.locks.append((variables[given["@Resource"].lower()], given["@LockMode"][2:-1]))
        variables[found[1].lower()] = 0

    def _call(self, found: re.Match[str], variables: Variables) -> None:
        given = re.findall(r"@(\w+) = (\S+?)( OUTPUT)?(?:,\s*|$)", found[2])
        values = {n: variables[v.lower()] if v.startswith("@") else int(v) for n, v, _ in given}
        ended = self.call(found[1], **values)
        for name, variable, is_output in given:
            if is_output:
                variables[variable.lower()] = ended[name.lower()]

    def _run_text(self, found: re.Match[str], variables: Variables) -> None:
        text = self._first(found[1], variables)
        if "LOCK_ESCALATION" not in text:
            self._run_all(statements_of(text), variables)

    def _rename_index(self, found: re.Match[str], variables: Variables) -> None:
        del variables
        schema, index, name = (part.lower() for part in found.groups())
        self.conn.execute(f'ALTER INDEX "{schema}"."{index}" RENAME TO "{name}"'.encode())

    def _create_table(self, found: re.Match[str], variables: Variables) -> None:
        """Make a table; PostgreSQL wants to be told the types of computed columns."""

        def typed(computed: re.Match[str]) -> str:
            kind = re.search(rf"\[{computed[2]}\] (\S+)", found[0])
            assert kind is not None
            return f"{kind[1]} GENERATED ALWAYS AS ({computed[1]}) STORED"

        self._execute(_COMPUTED.sub(typed, found[0]), variables)

    def _add_computed(self, found: re.Match[str], variables: Variables) -> None:
        """Add a computed column, whose type PostgreSQL wants to be told."""
        table, column, expression, source = found.groups()
        kind = self._first(
            "(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a"
            f" WHERE a.attrelid = OBJECT_ID('{table}') AND a.attname = '{source.lower()}')",
            variables,
        )
        generated = f"{kind} GENERATED ALWAYS AS ({expression}) STORED"
        self._execute(f"ALTER TABLE {table} ADD {column} {generated}", variables)

    def _nothing(self, found: re.Match[str], variables: Variables) -> None:
        """Pass over what means nothing here."""


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern + r"\Z", re.DOTALL)


_STATEMENTS: Final[
    Sequence[tuple[re.Pattern[str], Callable[[TsqlServer, re.Match[str], Variables], None]]]
] = (
    (_form(r"SET (?:NOCOUNT|XACT_ABORT) ON"), TsqlServer._nothing),
    (_form(r"(?:BEGIN|COMMIT|ROLLBACK) TRANSACTION"), TsqlServer._nothing),
    (_form(r"DECLARE (@\w+) \S+(?: = (.*))?"), TsqlServer._declare),
    (_form(r"SET (@\w+) = \(SELECT (.*) FOR JSON PATH\)"), TsqlServer._set_json),
    (_form(r"SET (@\w+) = (.*)"), TsqlServer._set),
    (_form(r"THROW (\d+), (.*), 1"), TsqlServer._throw),
    (_form(r"EXEC (@\w+) = sys\.sp_getapplock(.*)"), TsqlServer._lock),
    (_form(r"EXEC \((.*)\)"), TsqlServer._run_text),
    (
        _form(
            r"EXEC sys\.sp_rename @objname = N'\[(\w+)\]\.\[\w+\]\.\[(\w+)\]',"
            r" @newname = N'(\w+)', @objtype = N'INDEX'"
        ),
        TsqlServer._rename_index,
    ),
    (_form(r"EXEC (\[\S+)\s*(.*)"), TsqlServer._call),
    (_form(r"CREATE TABLE \[.*"), TsqlServer._create_table),
    (
        _form(r"ALTER TABLE (\S+) ADD (\S+) AS \((COALESCE\(\[(\w+)\].*)\) PERSISTED"),
        TsqlServer._add_computed,
    ),
    (
        _form(r"SELECT (TOP \(1\) )?((?:@\w+ = .*?,\s*)*@\w+ = .*?)\s+FROM (.*)"),
        TsqlServer._select_into,
    ),
)
