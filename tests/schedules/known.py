"""
The smallest schedules that find each classic mistake, as `make exhaustive` cut them down.

What was found once by many schedules is found at once by these: on the model, and on PostgreSQL
where the mistake is one that SQL can make.
"""

from __future__ import annotations

from tests.exhaustive.schedule import Kind, Schedule, Step

#: A step of work by a writer that lives, of up to so many deliveries.
_ALL = Step(Kind.WORK, 31, 31)
_LATE = Step(Kind.PURGE, 4, 0, 1)

#: Name of the fault in `tests.exhaustive.faults` -> a schedule that finds it.
KNOWN: dict[str, Schedule] = {
    "equal-version-applied-twice": (
        Step(Kind.WRITE, 1),
        Step(Kind.PUBLISH),
        _ALL,
        Step(Kind.REPEAT, 0, 1),
    ),
    "older-version-wins": (
        Step(Kind.WRITE, 1),
        Step(Kind.WRITE, 1, 1),
        Step(Kind.PUBLISH, 1),
        _ALL,
    ),
    "tombstone-dropped": (Step(Kind.WRITE, 1), Step(Kind.DELETE, 1), Step(Kind.PUBLISH, 1), _ALL),
    "count-added-twice": (Step(Kind.WRITE, 1),),
    "deletion-not-counted": (
        Step(Kind.WRITE, 1),
        Step(Kind.PUBLISH),
        _ALL,
        Step(Kind.DELETE, 1),
    ),
    "repair-not-written": (Step(Kind.WRITE, 1, 0, 3),),
    "rollup-in-the-statement-of-the-write": (Step(Kind.WRITE, 1),),
    "classified-before-the-lock": (
        Step(Kind.WRITE, 1),
        Step(Kind.PUBLISH),
        Step(Kind.REPEAT, 0, 1),
        Step(Kind.RACE, 0, 0, 1),
    ),
    "stub-overwrites-aggregates": (
        Step(Kind.WRITE, 1),
        Step(Kind.PUBLISH),
        _ALL,
        Step(Kind.WRITE, 0),
    ),
    "horizon-forgotten": (
        Step(Kind.WRITE, 3),
        Step(Kind.DELETE, 3),
        Step(Kind.PUBLISH, 1),
        _ALL,
        _LATE,
    ),
    "horizon-without-skew": (
        Step(Kind.SKEW, 1),
        Step(Kind.WRITE, 3),
        Step(Kind.DELETE, 3),
        Step(Kind.PUBLISH, 1),
        _ALL,
        _LATE,
    ),
    "parent-purged-from-its-children": (
        Step(Kind.WRITE, 1),
        Step(Kind.PUBLISH),
        _ALL,
        _LATE,
    ),
    "stale-not-audited": (
        Step(Kind.WRITE, 1),
        Step(Kind.WRITE, 1, 1),
        Step(Kind.PUBLISH, 1),
        _ALL,
    ),
    "rest-of-a-batch-forgotten": (Step(Kind.WRITE, 1), Step(Kind.WRITE, 1, 1)),
    "mark-past-uncommitted": (
        Step(Kind.WRITE, 0),
        Step(Kind.PUBLISH, 0, 0, 1),
        Step(Kind.MARK),
        Step(Kind.MARK),
    ),
}
