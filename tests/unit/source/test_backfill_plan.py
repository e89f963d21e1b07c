"""What a backfill costs and how far it is; and how the keys are divided."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storemirror.model.load import load_model
from storemirror.source.backfill_plan import (
    FORMAT,
    BackfillState,
    Estimate,
    contradiction,
    estimate_left,
    progress_of,
)
from storemirror.source.key_ranges import even_ranges, key_of_path, path_of_key
from storemirror.source.port import KeyRange

MODEL = load_model()


def a_state(*, counted: int = 10) -> BackfillState:
    entity = MODEL["DmMessage"]
    halves = [KeyRange(up_to=("c", "m")), KeyRange(after=("c", "m"))]
    return BackfillState(
        format=FORMAT,
        source="//here",
        run="backfill-1",
        read_time_us=None,
        read_count=0,
        entities=[progress_of(entity, counted, halves)],
    )


def test_an_estimate_counts_what_counting_costs() -> None:
    """The sum is what Firestore will bill; an empty collection costs a read too."""
    estimate = Estimate(
        document_counts={"A": 99_990, "B": 0}, counting_reads=9, price_per_100k_usd=0.06
    )
    assert estimate.read_count == 100_000
    assert estimate.price_usd == pytest.approx(0.06)


def test_what_is_done_is_not_paid_for_again() -> None:
    """An estimate for the rest says what the rest costs."""
    state = a_state(counted=10)
    first, second = state.entities[0].ranges
    first.document_count, first.is_done = 6, True
    assert estimate_left(state, 0.06).read_count == 4
    second.document_count = 9
    assert estimate_left(state, 0.06).read_count == 1
    second.is_done = True
    assert estimate_left(state, 0.06).read_count == 0
    assert state.is_finished


def test_a_range_goes_on_behind_its_last_document() -> None:
    """From its lower bound before the first."""
    second = a_state().entities[0].ranges[1]
    assert second.rest == KeyRange(after=("c", "m"))
    second.position = ("d", "x")
    assert second.rest == KeyRange(after=("d", "x"))


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"format": 2}, "format"), ({"source": "//there"}, "//there"), ({"entities": []}, "declared")],
)
def test_progress_of_something_else_is_not_gone_on_with(
    changed: dict[str, object], word: str
) -> None:
    """Half of one thing and half of another would look finished."""
    state = a_state()
    for name, value in changed.items():
        setattr(state, name, value)
    problem = contradiction(state, source="//here", entities=[MODEL["DmMessage"]])
    assert problem is not None
    assert word in problem


def test_progress_of_the_same_is_gone_on_with() -> None:
    """Same Firestore, same entities, same patterns."""
    assert contradiction(a_state(), source="//here", entities=[MODEL["DmMessage"]]) is None


@given(part_count=st.integers(1, 3), max_count=st.integers(1, 200))
def test_even_ranges_meet_and_rise(part_count: int, max_count: int) -> None:
    """No gap, no overlap, from the first key to the last."""
    ranges = even_ranges(part_count, max_count)
    assert 1 <= len(ranges) <= max_count
    assert (ranges[0].after, ranges[-1].up_to) == (None, None)
    for before, after in itertools.pairwise(ranges):
        assert before.up_to == after.after
    bounds = [r.up_to for r in ranges if r.up_to is not None]
    assert bounds == sorted(set(bounds))
    assert all(len(bound) == part_count for bound in bounds)


@pytest.mark.parametrize("key", [(), ("a",), ("a", "b", "c")])
def test_a_key_of_another_length_is_no_path(key: tuple[str, ...]) -> None:
    """A bound with a part too few would be a collection."""
    with pytest.raises(ValueError, match="parameters"):
        path_of_key(["users", "{a}", "blocks", "{b}"], key)


@given(st.lists(st.text("ab/é", min_size=1).filter(lambda t: "/" not in t), min_size=2, max_size=2))
def test_a_key_survives_the_way_through_its_path(key: list[str]) -> None:
    """Positions are kept as keys, and asked for as paths."""
    pattern = ["users", "{a}", "blocks", "{b}"]
    path = path_of_key(pattern, tuple(key))
    assert key_of_path(pattern, path.split("/")) == tuple(key)
