"""The rights that a role of PostgreSQL needs, table by table and routine by routine.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from storemirror.sql.catalogue import TableRole, WantedTable
from storemirror.sql.grants import Job, all_of, heading
from storemirror.sql.postgres.rendering import Rendering, quoted
from storemirror.sql.postgres.tables import wanted_tables
from storemirror.sql.postgres.wanted import routines_of

#: Of our own book-keeping: job -> table -> privileges.
_OWN: Final[Mapping[Job, Mapping[str, str]]] = {
    Job.READ: {
        "schema_info": "SELECT",
        "declaration": "SELECT",
        "rebase": "SELECT",
        "unverified_document": "SELECT",
    },
    Job.CHECK: {"unverified_document": "SELECT DELETE"},
    Job.WRITE: {
        "schema_info": "SELECT",
        "declaration": "SELECT",
        "rebase": "SELECT",
        "purge_horizon": "SELECT",
        "unverified_document": "SELECT INSERT UPDATE",
    },
    Job.DEAD_LETTERS: {
        "schema_info": "SELECT",
        "declaration": "SELECT",
        "unverified_document": "SELECT INSERT UPDATE",
    },
    Job.PURGE: {
        "schema_info": "SELECT",
        "declaration": "SELECT",
        "purge_horizon": "SELECT INSERT UPDATE",
    },
    Job.REBASE: {"rebase": "SELECT INSERT UPDATE"},
}
#: Of what is mirrored: job -> what a row stands for -> privileges.
_MIRRORED: Final[Mapping[Job, Mapping[TableRole, str]]] = {
    Job.READ: {TableRole.ENTITY: "SELECT", TableRole.CHILD: "SELECT"},
    Job.WRITE: {
        TableRole.ENTITY: "SELECT INSERT UPDATE",
        TableRole.CHILD: "SELECT INSERT UPDATE DELETE",
        TableRole.AUDIT: "INSERT",
    },
    Job.PURGE: {TableRole.ENTITY: "SELECT DELETE"},
    Job.REBASE: {TableRole.ENTITY: "SELECT UPDATE"},
}
_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "USAGE", "CREATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Privileges on one thing."""

    #: "TABLE", "ROUTINE" or "SCHEMA".
    kind: str
    #: Qualified and quoted.
    name: str
    privileges: tuple[str, ...]


def grants_of(rendering: Rendering, jobs: Collection[Job]) -> list[Grant]:
    """
    Give the least that the jobs need, deploying aside: who deploys owns what it makes.

    Args:
        rendering: what is installed.
        jobs: what the role does.
    """
    wanted = all_of(jobs)
    found: dict[tuple[str, str], set[str]] = {}
    for job in Job:
        if job in wanted and job is not Job.DEPLOY:
            for kind, name, privileges in _grants(rendering, job):
                found.setdefault((kind, name), set()).update(privileges.split())
    return [
        Grant(kind=kind, name=name, privileges=tuple(sorted(held, key=_ORDER.index)))
        for (kind, name), held in found.items()
    ]


def grants_sql(rendering: Rendering, *, role: str, jobs: Collection[Job]) -> str:
    """
    Render the script that grants them.

    Args:
        rendering: what is installed.
        role: name of the role, as it is.
        jobs: what it does.

    Raises:
        ConfigError: PostgreSQL would cut the name.
    """
    to = quoted(role)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for grant in grants_of(rendering, jobs):
        together.setdefault((grant.kind, grant.privileges), []).append(grant.name)
    lines = [heading(jobs)]
    if Job.DEPLOY in jobs:
        lines += _deploying(rendering, to)
    for (kind, privileges), names in together.items():
        listed = ",\n    ".join(names)
        lines.append(f"GRANT {', '.join(privileges)} ON {kind}\n    {listed}\n    TO {to};\n")
    return "\n".join(lines)


def _grants(rendering: Rendering, job: Job) -> Iterator[tuple[str, str, str]]:
    schema = quoted(rendering.schema_name)
    routines = [
        ".".join(quoted(part) for part in name.split(".", 1)) for name in _routines(rendering, job)
    ]
    for name in dict.fromkeys([schema, *(routine.split('".')[0] + '"' for routine in routines)]):
        yield "SCHEMA", name, "USAGE"
    for name, privileges in _OWN.get(job, {}).items():
        yield "TABLE", f"{schema}.{name}", privileges
    tables = wanted_tables(rendering.model)
    for table in tables:
        privileges = _MIRRORED.get(job, {}).get(table.role, "")
        if table.role is TableRole.CHILD and not _has_values(table):
            privileges = privileges.replace(" UPDATE", "")
        if job is Job.REPAIR and table.role is TableRole.ENTITY and _is_parent(rendering, table):
            privileges = "SELECT UPDATE"
        if privileges:
            yield "TABLE", f"{schema}.{quoted(table.name)}", privileges
    for routine in routines:
        yield "ROUTINE", routine, "EXECUTE"


def _has_values(table: WantedTable) -> bool:
    return len(table.columns) > len(table.key)


def _is_parent(rendering: Rendering, table: WantedTable) -> bool:
    return rendering.model.rollup_child_of(rendering.model[table.entity]) is not None


def _routines(rendering: Rendering, job: Job) -> list[str]:
    """Give the routines of a job, with their schema and without quotes."""
    every = list(routines_of(rendering.procedures_sql()))
    rolled_up = [e.name for e in rendering.model if e.rollup is not None]
    of_job = {
        Job.READ: ["GetFollowRelationship"],
        Job.CHECK: [f"Find{name}RollupDifferences" for name in rolled_up],
        Job.REPAIR: [f"Recompute{name}Rollup" for name in rolled_up],
        Job.PURGE: [f"Purge{e.name}" for e in rendering.model],
    }
    named = {j: [_name(rendering, n) for n in names] for j, names in of_job.items()}
    others = {*(n for names in named.values() for n in names), _own(rendering)}
    named[Job.WRITE] = [name for name in every if name not in others]
    return [name for name in named.get(job, []) if name in every]


def _name(rendering: Rendering, name: str) -> str:
    return ".".join(rendering.procedure_parts(name)) if name in rendering.procedure_names else ""


def _own(rendering: Rendering) -> str:
    return f"{rendering.schema_name}.register_deployment"


def _deploying(rendering: Rendering, to: str) -> list[str]:
    schema = quoted(rendering.schema_name)
    others = {
        parts[0]
        for parts in (rendering.procedure_parts(n) for n in rendering.procedure_names)
        if parts[0] != rendering.schema_name
    }
    return [
        "-- Who deploys owns the schema and all that it makes there, and needs no right beside it;",
        "-- of tables that are adopted it must be the owner: ALTER TABLE ... OWNER TO.",
        f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {to};\n",
        *(f"GRANT USAGE, CREATE ON SCHEMA {quoted(name)} TO {to};\n" for name in sorted(others)),
    ]
