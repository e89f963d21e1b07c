"""
What a user of the database does for the mirror, and so which rights it needs.  Pure values.

Each dialect spells the rights: `sql/<dialect>/grants.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Final


class Job(enum.StrEnum):
    """What somebody runs; a user that runs several things has several jobs."""

    READ = "read"
    CHECK = "check"
    REPAIR = "repair"
    WRITE = "write"
    DEAD_LETTERS = "dead-letters"
    PURGE = "purge"
    REBASE = "rebase"
    DEPLOY = "deploy"


#: The commands of each.
COMMANDS: Final[Mapping[Job, str]] = {
    Job.READ: "gateway that only reads, schema status, schema diff",
    Job.CHECK: "check, backfill, reconcile, bus status, dlq unverified",
    Job.REPAIR: "check --repair",
    Job.WRITE: "writer, gateway with dual writes; with check: up, drain, backfill --direct",
    Job.DEAD_LETTERS: "dlq purge",
    Job.PURGE: "purge",
    Job.REBASE: "rebase",
    Job.DEPLOY: "schema apply, or the rendered script",
}
#: Jobs that are part of others.
_PARTS: Final[Mapping[Job, tuple[Job, ...]]] = {
    Job.CHECK: (Job.READ,),
    Job.REPAIR: (Job.CHECK, Job.READ),
    Job.REBASE: (Job.CHECK, Job.READ, Job.DEAD_LETTERS),
}


def all_of(jobs: Collection[Job]) -> frozenset[Job]:
    """
    Give the jobs and those that are part of them.

    >>> sorted(all_of([Job.CHECK]))
    [<Job.CHECK: 'check'>, <Job.READ: 'read'>]
    """
    return frozenset(part for job in jobs for part in (job, *_PARTS.get(job, ())))


def heading(jobs: Collection[Job]) -> str:
    """Give the first lines of a script, as comments: whom it is for, and how it is run."""
    listed = [f"--   {job.value}: {COMMANDS[job]}" for job in Job if job in jobs]
    return "\n".join(
        [
            "-- What a user needs to run:",
            *listed,
            "-- Idempotent; takes nothing away.  Run it again after each deployment: what is new",
            "-- has no rights yet.  Rendered from the declarations by `storemirror schema grants`.",
            "",
        ]
    )
