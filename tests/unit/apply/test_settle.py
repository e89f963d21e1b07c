"""What becomes of a delivery, for every outcome and every class of error."""

from __future__ import annotations

import pytest

from storemirror.apply.settle import (
    Settlement,
    clock_skew_us,
    decide_reread_settlement,
    decide_settlement,
    halves,
    latencies_us,
    one_of_each_kind,
    split_by_delivery,
)
from storemirror.errors import (
    BusRefused,
    BusUnavailable,
    ClockSkewed,
    DatabaseRefused,
    EntityUnknown,
    EnvelopeInvalid,
    EventRefused,
    KeyRefused,
    MappingFailed,
    MessageRefused,
    ParentMissing,
    SchemaMismatch,
    SourceUnavailable,
    SqlUnavailable,
)
from storemirror.event.change import Origin, Outcome
from tests.unit.apply.deliveries import a_conversation, a_deletion, a_message, taken

POISON = [
    EnvelopeInvalid("x"),
    EntityUnknown("x"),
    KeyRefused("x"),
    MappingFailed("x"),
    EventRefused("x"),
]
TRANSIENT = [
    SqlUnavailable("x"),
    ParentMissing("x"),
    BusUnavailable("x"),
    SourceUnavailable("x"),
]


@pytest.mark.parametrize("may_retry", [True, False])
@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.EXPIRED])
def test_a_committed_event_is_completed(outcome: Outcome, may_retry: bool) -> None:
    """Stale and duplicate are as final as applied: nothing else is to be done."""
    settlement = decide_settlement(outcome, event_count=2, may_retry=may_retry)
    assert settlement is Settlement.COMPLETE


def test_an_expired_event_has_its_document_read_again() -> None:
    """Completing it would lose a document that is newer than what was purged."""
    settlement = decide_settlement(Outcome.EXPIRED, event_count=1, may_retry=False)
    assert settlement is Settlement.REREAD


@pytest.mark.parametrize("error", POISON, ids=lambda e: type(e).__name__)
def test_a_bad_event_alone_is_dead_lettered(error: Exception) -> None:
    """It can never be applied, so no retry is spent on it."""
    assert decide_settlement(error, event_count=1, may_retry=True) is Settlement.DEAD_LETTER


@pytest.mark.parametrize("error", POISON, ids=lambda e: type(e).__name__)
def test_a_bad_event_among_others_is_searched(error: Exception) -> None:
    """Its neighbours must not be dead-lettered with it."""
    assert decide_settlement(error, event_count=2, may_retry=True) is Settlement.BISECT


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda e: type(e).__name__)
def test_a_transient_error_is_retried_while_the_locks_allow(error: Exception) -> None:
    """A blip costs no delivery."""
    assert decide_settlement(error, event_count=1, may_retry=True) is Settlement.RETRY


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda e: type(e).__name__)
def test_a_lasting_transient_error_never_dead_letters(error: Exception) -> None:
    """With the database down nothing is set aside."""
    assert decide_settlement(error, event_count=1, may_retry=False) is Settlement.ABANDON


@pytest.mark.parametrize("event_count", [1, 2])
def test_a_refusal_that_no_event_is_to_blame_for_is_given_back(event_count: int) -> None:
    """Missing rights or a full disk say nothing about an event."""
    error = DatabaseRefused("x")
    settlement = decide_settlement(error, event_count=event_count, may_retry=True)
    assert settlement is Settlement.ABANDON


@pytest.mark.parametrize(
    "error",
    [SchemaMismatch("x"), ClockSkewed("x"), BusRefused("x"), RuntimeError("x")],
    ids=lambda e: type(e).__name__,
)
def test_what_no_retry_can_help_stops_the_writer(error: Exception) -> None:
    """Going on could write wrong rows, or hide a defect."""
    assert decide_settlement(error, event_count=1, may_retry=True) is Settlement.STOP


@pytest.mark.parametrize(
    ("error", "settlement"),
    [
        (SourceUnavailable("x"), Settlement.ABANDON),
        (BusUnavailable("x"), Settlement.ABANDON),
        (KeyRefused("x"), Settlement.DEAD_LETTER),
        (MessageRefused("x"), Settlement.DEAD_LETTER),
        (BusRefused("x"), Settlement.ABANDON),
        (DatabaseRefused("x"), Settlement.ABANDON),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expired_event_that_cannot_be_renewed_is_kept(
    error: Exception, settlement: Settlement
) -> None:
    """It is never completed without a replacement on the bus."""
    assert decide_reread_settlement(error) is settlement


def test_from_its_third_delivery_on_an_event_is_applied_alone() -> None:
    """What it was with may be why it came back."""
    fresh, second = taken(a_message(), count=1), taken(a_message(), count=2)
    third, tenth = taken(a_message(), count=3), taken(a_message(), count=10)
    parts = split_by_delivery([third, fresh, tenth, second])
    assert parts == [[fresh, second], [third], [tenth]]


def test_a_batch_of_troubled_events_has_no_empty_part() -> None:
    """An empty call is one the procedures refuse."""
    third = taken(a_message(), count=3)
    assert split_by_delivery([third]) == [[third]]
    assert split_by_delivery([]) == []


def test_halves_lose_nothing() -> None:
    """Every event of a bisected batch is tried again."""
    batch = [taken(a_message(message=str(n))) for n in range(5)]
    first, second = halves(batch)
    assert [*first, *second] == batch
    assert first
    assert second


def test_one_event_of_each_procedure_is_a_canary() -> None:
    """A right missing on one procedure is not seen by an event for another."""
    first, again = taken(a_message(message="m1")), taken(a_message(message="m2"))
    gone, parent = taken(a_deletion()), taken(a_conversation())
    assert one_of_each_kind([first, again, gone, parent]) == [first, gone, parent]


@pytest.mark.parametrize(
    ("database_us", "skew_us"), [(90, -10), (100, 0), (150, 0), (200, 0), (230, 30)]
)
def test_skew_is_the_least_that_explains_the_answer(database_us: int, skew_us: int) -> None:
    """A slow answer is not taken for a wrong clock."""
    assert clock_skew_us(before_us=100, database_us=database_us, after_us=200) == skew_us


def test_only_live_events_that_were_applied_tell_a_latency() -> None:
    """A backfill reads documents that are years old; a duplicate was visible before."""
    events = [
        taken(a_message(at_us=40, origin=Origin.TRIGGER)),
        taken(a_message(at_us=40, origin=Origin.BACKFILL)),
        taken(a_message(at_us=40, origin=Origin.DUAL_WRITE)),
    ]
    outcomes = [Outcome.APPLIED, Outcome.APPLIED, Outcome.DUPLICATE]
    assert latencies_us(events, outcomes, now_us=100) == [("dmSqlMirror", 60)]


def test_a_latency_is_never_negative() -> None:
    """The store's clock may be a little ahead of ours."""
    late = taken(a_message(at_us=140))
    assert latencies_us([late], [Outcome.APPLIED], now_us=100) == [("dmSqlMirror", 0)]
