"""When a difference is proved, and when the backlog has passed."""

from __future__ import annotations

import dataclasses

import pytest

from storemirror.bus.port import SubscriptionStats
from storemirror.check.backlog import MARGIN_S, decide_is_passed
from storemirror.check.recheck import Candidate, decide_grace_left_s, decide_is_proved
from tests.unit.check.samples import KEY, ORDER

EMPTY = SubscriptionStats(
    subscription="sql-writer",
    depth=0,
    locked_count=0,
    dead_letter_count=0,
    acknowledged_count=0,
    completed_count=0,
    oldest_age_s=None,
    oldest_enqueued_at_us=None,
)


def seen(*, document: int | None, row: int | None, at_us: int = 100) -> Candidate:
    """Give one look: version of the document, version of the row, moment."""
    return Candidate(
        entity=ORDER,
        key=KEY,
        read_time_us=at_us,
        document_version=document,
        seen_s=100.0,
        row_version=row,
    )


@pytest.mark.parametrize(
    ("before", "after", "is_proved"),
    [
        (seen(document=20, row=None), seen(document=20, row=18), True),
        (seen(document=20, row=None), seen(document=20, row=None), True),
        (seen(document=20, row=None), seen(document=22, row=20), False),
        (seen(document=20, row=None), seen(document=None, row=20), False),
        (seen(document=None, row=None), seen(document=20, row=None), False),
        (seen(document=None, row=None), seen(document=None, row=200), True),
        (seen(document=None, row=None), seen(document=None, row=201), True),
        (seen(document=None, row=None), seen(document=None, row=202), False),
        (seen(document=None, row=202), seen(document=None, row=202), True),
        (seen(document=None, row=202), seen(document=None, row=204), False),
    ],
    ids=[
        "unchanged, row behind",
        "unchanged, no row",
        "changed since",
        "deleted since",
        "created since",
        "absent, row from before",
        "absent, tombstone made live",
        "absent, row from after: created and deleted in between",
        "absent, same row at both looks",
        "absent, another row",
    ],
)
def test_a_difference_is_proved_only_where_lag_cannot_be_the_cause(
    before: Candidate, after: Candidate, *, is_proved: bool
) -> None:
    """A false alarm and a missed one both end the trust in a checker."""
    assert decide_is_proved(before, after) is is_proved


@pytest.mark.parametrize(
    ("look", "now_s", "left_s"),
    [
        (seen(document=2 * 5_000_000, row=None, at_us=9_000_000), 100.0, 6.0),
        (seen(document=2 * 5_000_000, row=None, at_us=9_000_000), 107.0, 3.0),
        (seen(document=2 * 5_000_000, row=None, at_us=9_000_000), 110.0, 0.0),
        (seen(document=2 * 5_000_000, row=None, at_us=99_000_000), 100.0, 0.0),
        (seen(document=None, row=20, at_us=9_000_000), 100.0, 10.0),
        (seen(document=None, row=20, at_us=9_000_000), 104.0, 6.0),
        (seen(document=None, row=20, at_us=9_000_000), 111.0, 0.0),
    ],
    ids=["young", "growing old", "grown old", "old", "gone", "gone for 4 s", "gone for long"],
)
def test_a_difference_may_be_lag_until_its_commit_is_as_old_as_the_grace(
    look: Candidate, now_s: float, left_s: float
) -> None:
    """No longer: a loss must not hide behind a trigger that is always just about to deliver."""
    assert decide_grace_left_s(look, grace_s=10.0, now_s=now_s) == left_s


@pytest.mark.parametrize(
    ("oldest_age_s", "elapsed_s", "is_passed"),
    [(None, 0.0, True), (5.0, 1.0, False), (1.0, 1.0, False), (1.0, 1.0 + 2 * MARGIN_S, True)],
)
def test_a_message_younger_than_the_moment_does_not_hold_the_check_up(
    oldest_age_s: float | None, elapsed_s: float, *, is_passed: bool
) -> None:
    """Else a check would never end while the application writes."""
    stats = dataclasses.replace(EMPTY, oldest_age_s=oldest_age_s)
    assert decide_is_passed(stats, elapsed_s) is is_passed
