"""
The rights that a user of SQL Server needs.  Pure.

Procedures have their rights on tables by ownership, so that few are granted, on the schema.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from storemirror.sql.grants import Job, all_of, heading
from storemirror.sql.sqlserver.naming import quoted
from storemirror.sql.sqlserver.rendering import Rendering

_CALLS: Final = ("SELECT", "EXECUTE", "VIEW DEFINITION")
#: Job -> privileges on the schema.
_SCHEMA: Final[Mapping[Job, tuple[str, ...]]] = {
    Job.READ: ("SELECT", "VIEW DEFINITION"),
    Job.CHECK: _CALLS,
    Job.REPAIR: _CALLS,
    Job.WRITE: _CALLS,
    Job.DEAD_LETTERS: ("SELECT", "VIEW DEFINITION"),
    Job.PURGE: _CALLS,
    Job.REBASE: (*_CALLS, "UPDATE"),
    Job.DEPLOY: ("EXECUTE",),
}
#: Job -> table of our own -> privileges.
_OWN: Final[Mapping[Job, Mapping[str, tuple[str, ...]]]] = {
    Job.CHECK: {"unverified_document": ("DELETE",)},
    Job.WRITE: {"unverified_document": ("INSERT", "UPDATE")},
    Job.DEAD_LETTERS: {"unverified_document": ("INSERT", "UPDATE")},
    Job.REBASE: {"rebase": ("INSERT", "UPDATE")},
}
_DEPLOYS: Final = ("db_ddladmin", "db_datareader", "db_datawriter")
_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "VIEW DEFINITION")


def grants_sql(rendering: Rendering, *, role: str, jobs: Collection[Job]) -> str:
    """
    Render the script that grants them, for `sqlcmd`.

    Args:
        rendering: what is installed.
        role: name of the user or role in the database, as it is.
        jobs: what it does.

    Raises:
        ConfigError: SQL Server takes no such name.
    """
    to = quoted(role)
    wanted = all_of(jobs)
    on_schema = {privilege for job in wanted for privilege in _SCHEMA[job]}
    on_tables: dict[str, set[str]] = {}
    for job in wanted:
        for name, privileges in _OWN.get(job, {}).items():
            on_tables.setdefault(name, set()).update(privileges)
    lines = [heading(jobs)]
    if Job.DEPLOY in jobs:
        lines += [f"ALTER ROLE {name} ADD MEMBER {to};" for name in _DEPLOYS]
    schema = quoted(rendering.schema_name)
    lines.append(f"GRANT {_listed(on_schema)} ON SCHEMA::{schema} TO {to};")
    lines += [
        f"GRANT {_listed(on_tables[name])} ON {rendering.own_table(name)} TO {to};"
        for name in sorted(on_tables)
    ]
    return "\n".join([*lines, "GO", ""])


def _listed(privileges: Collection[str]) -> str:
    return ", ".join(sorted(privileges, key=_ORDER.index))
