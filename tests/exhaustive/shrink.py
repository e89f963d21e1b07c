"""Cuts a failing schedule down to one in which no step can be left out, and no number lowered."""

from __future__ import annotations

from collections.abc import Callable

from tests.exhaustive.schedule import Schedule, Step


def minimal(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """
    Give a smallest failing schedule: by delta debugging over steps, then number by number.

    Args:
        schedule: one that fails.
        fails: tells whether a schedule fails; asked some hundred times.
    """
    while True:
        before = schedule
        schedule = _fewer_steps(schedule, fails)
        schedule = _smaller_numbers(schedule, fails)
        if schedule == before:
            return schedule


def _fewer_steps(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Leave out runs of steps, long ones first."""
    width = max(len(schedule) // 2, 1)
    while width:
        start = 0
        while start < len(schedule):
            shorter = schedule[:start] + schedule[start + width :]
            if fails(shorter):
                schedule = shorter
            else:
                start += width
        width //= 2
    return schedule


def _smaller_numbers(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Lower each number to 0, or half, or by one."""
    for index in range(len(schedule)):
        for place in ("a", "b", "c"):
            for lower in _lower(getattr(schedule[index], place)):
                step = Step(**{**schedule[index]._asdict(), place: lower})
                simpler = (*schedule[:index], step, *schedule[index + 1 :])
                if fails(simpler):
                    schedule = simpler
                    break
    return schedule


def _lower(number: int) -> list[int]:
    return sorted({0, number // 2, number - 1} - {number}) if number else []
