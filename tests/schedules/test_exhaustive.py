"""A small run of `make exhaustive`, so that it cannot rot; and the mistakes that it finds."""

from __future__ import annotations

import functools

import pytest

from tests.exhaustive import __main__ as command
from tests.exhaustive.backend import ScheduleFailed
from tests.exhaustive.faults import FAULTS
from tests.exhaustive.orders import all_cases, run_orders
from tests.exhaustive.running import model_world, problem_of, run_schedules
from tests.exhaustive.schedule import Kind, Schedule, Step, random_schedule
from tests.exhaustive.shrink import minimal
from tests.exhaustive.store import PureMirror
from tests.schedules.known import KNOWN

SHORT_CASES = [(entity, history) for entity, history in all_cases() if len(history) <= 3]
#: Found by every order of a single document's events, without a purge, a second writer or the bus.
FOUND_BY_ORDERS = (
    "count-added-twice",
    "deletion-not-counted",
    "equal-version-applied-twice",
    "older-version-wins",
    "rest-of-a-batch-forgotten",
    "rollup-in-the-statement-of-the-write",
    "stale-not-audited",
    "tombstone-dropped",
)
#: Found by one random schedule in some thousands: `make exhaustive` finds them, and KNOWN at once.
RARE = ("horizon-forgotten", "horizon-without-skew")


def test_some_thousand_random_schedules_end_as_firestore_did() -> None:
    """Changes, repeats, reorderings, splits, crashes, purges, repairs: the newest always wins."""
    assert run_schedules(1, 0, 2_000, model_world).failure is None


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in RARE])
def test_random_schedules_find_a_planted_fault_and_cut_it_down(fault: str) -> None:
    """A run that finds nothing says something only if it would have found this."""
    found = run_schedules(2, 0, 1_000, functools.partial(model_world, fault)).failure
    assert found is not None
    assert len(found.minimal) <= 8
    for index in range(len(found.minimal)):
        shorter = found.minimal[:index] + found.minimal[index + 1 :]
        assert problem_of(shorter, functools.partial(model_world, fault)) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_known_schedule_finds_its_fault_and_is_sound_without(fault: str) -> None:
    """The same schedules are run on PostgreSQL, where there is no time for thousands."""
    assert problem_of(KNOWN[fault], functools.partial(model_world, fault)) is not None
    assert problem_of(KNOWN[fault], model_world) is None


@pytest.mark.parametrize(("entity", "history"), SHORT_CASES)
def test_every_event_twice_in_every_order_ends_at_the_newest(entity: str, history: str) -> None:
    """Every order, every split into batches, and every state on the way; longer ones by command."""
    assert run_orders(entity, history).batch_count > 0


def run_short_cases(kind: type[PureMirror]) -> None:
    """Run every order of every short history on a mirror."""
    for entity, history in SHORT_CASES:
        run_orders(entity, history, kind)


@pytest.mark.parametrize("fault", FOUND_BY_ORDERS)
def test_every_order_finds_a_planted_fault(fault: str) -> None:
    """The look at each state is a guard too."""
    with pytest.raises(ScheduleFailed):
        run_short_cases(FAULTS[fault].mirror)


def test_a_schedule_is_the_same_in_every_process() -> None:
    """A failure is told by seed and number; they must give the schedule again."""
    assert random_schedule(7, 11) == random_schedule(7, 11)
    assert random_schedule(7, 11) != random_schedule(7, 12)
    assert random_schedule(7, 11) != random_schedule(8, 11)


def needs_a_write_before_a_tick(schedule: Schedule) -> bool:
    """Fail when a write of a document above 4 comes before a tick."""
    kinds = [step.kind for step in schedule if step.kind is not Kind.WRITE or step.a > 4]
    return Kind.WRITE in kinds and Kind.TICK in kinds[kinds.index(Kind.WRITE) :]


def test_a_failing_schedule_is_cut_down_to_what_it_needs() -> None:
    """Thirty steps are read by nobody."""
    schedule = next(
        one
        for number in range(1_000)
        if needs_a_write_before_a_tick(one := random_schedule(3, number)) and len(one) > 20
    )
    assert minimal(schedule, needs_a_write_before_a_tick) == (
        Step(Kind.WRITE, 5),
        Step(Kind.TICK),
    )


def test_the_command_says_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    """With its speed, so that a person knows what more would take."""
    assert command.main(["--part", "model", "--schedules", "50", "--workers", "1"]) == 0
    assert "ok      model: 50 of 50" in capsys.readouterr().out


def test_the_command_prints_the_smallest_schedule_of_a_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Steps to look at, and the line that runs them again; status 1 for scripts."""
    arguments = ["--part", "model", "--schedules", "50", "--workers", "1", "--seed", "5"]
    assert command.main([*arguments, "--plant", "count-added-twice"]) == 1
    said = capsys.readouterr().out
    assert "FAILED  model: seed 5, schedule" in said
    assert "minimal, 1 of" in said
    assert "    Step(Kind.WRITE, " in said
    assert "--seed 5 --part model --only" in said
