"""The version, the id and the outcome rule: what every other stage leans on."""

from __future__ import annotations

import itertools

import pytest

from storemirror.event.change import (
    Change,
    EventType,
    Incoming,
    Origin,
    Outcome,
    RowState,
    StoredRow,
    decide_outcome,
    event_id_of,
    version_of,
)

FULL_OBSERVATIONS = (
    Origin.TRIGGER,
    Origin.LISTENER,
    Origin.BACKFILL,
    Origin.RECONCILE,
    Origin.MIRROR,
    Origin.REREAD,
)


def an_event(**given: object) -> Incoming:
    """Make an event of version 20, by a trigger, of mapping revision 2, with some things other."""
    usual: dict[str, object] = {
        "version": 20,
        "origin": Origin.TRIGGER,
        "observed_at_us": 10,
        "digest": "d",
        "mapping_revision": 2,
    }
    return Incoming(**(usual | given))  # type: ignore[arg-type]


def a_row(**given: object) -> StoredRow:
    """Make the live row that `an_event` leaves behind, with some things other."""
    usual: dict[str, object] = {
        "state": RowState.LIVE,
        "version": 20,
        "digest": "d",
        "mapping_revision": 2,
    }
    return StoredRow(**(usual | given))  # type: ignore[arg-type]


def the_table(
    incoming: Incoming, row: StoredRow | None, horizon_us: int | None, mark_us: int | None
) -> Outcome:
    """Read the outcome off ADR 2, line by line, as a person would."""
    is_absent_or_stub = row is None or row.state is RowState.STUB
    stored = StoredRow(state=RowState.STUB, version=-1, digest="", mapping_revision=0)
    stored = row or stored
    is_repair = incoming.origin is Origin.REPAIR
    newer_mapping = incoming.mapping_revision > stored.mapping_revision
    other_digest = (
        incoming.mapping_revision == stored.mapping_revision and incoming.digest != stored.digest
    )
    is_full = incoming.origin in FULL_OBSERVATIONS
    lines = (
        (mark_us is not None and incoming.observed_at_us <= mark_us, Outcome.EXPIRED),
        (
            is_absent_or_stub and horizon_us is not None and incoming.observed_at_us <= horizon_us,
            Outcome.EXPIRED,
        ),
        (is_absent_or_stub, Outcome.APPLIED),
        (stored.version < incoming.version, Outcome.APPLIED),
        (
            stored.version == incoming.version
            and (is_repair or (is_full and (newer_mapping or other_digest))),
            Outcome.REPAIRED,
        ),
        (stored.version == incoming.version, Outcome.DUPLICATE),
        (is_repair and incoming.expected_version == stored.version, Outcome.REPAIRED),
        (True, Outcome.STALE),
    )
    return next(outcome for holds, outcome in lines if holds)


def test_every_combination_has_the_outcome_that_the_table_gives_it() -> None:
    """The procedures are held to `decide_outcome`; so it must be the table itself."""
    events = [
        an_event(
            version=version,
            origin=origin,
            observed_at_us=observed_at_us,
            digest=digest,
            mapping_revision=revision,
            expected_version=expected,
        )
        for version, origin, observed_at_us, digest, revision, expected in itertools.product(
            (20, 21), Origin, (9, 10, 11), ("d", "e"), (1, 2, 3), (None, 20, 30)
        )
    ]
    rows = [None] + [
        a_row(state=state, version=version)
        for state, version in itertools.product(RowState, (0, 10, 20, 21, 22, 30))
    ]
    seen = set()
    for event, row, horizon_us, mark_us in itertools.product(
        events, rows, (None, 10), (None, 9, 10)
    ):
        outcome = decide_outcome(event, row, purge_horizon_us=horizon_us, rebase_mark_us=mark_us)
        expected = the_table(event, row, horizon_us, mark_us)
        assert outcome is expected, (event, row, horizon_us, mark_us)
        seen.add(outcome)
    assert seen == set(Outcome)


def test_an_event_seen_exactly_at_the_horizon_is_expired() -> None:
    """A tombstone purged at that very moment may have been newer; it must be read again."""
    assert decide_outcome(an_event(), None, purge_horizon_us=10) is Outcome.EXPIRED


def test_an_event_seen_after_the_horizon_is_applied_to_an_absent_row() -> None:
    """Else nothing new could be written once a purge has run."""
    assert decide_outcome(an_event(), None, purge_horizon_us=9) is Outcome.APPLIED


def test_a_stub_counts_as_absent() -> None:
    """A message that came before its conversation must not make the conversation stale."""
    stub = a_row(state=RowState.STUB, version=0)
    assert decide_outcome(an_event(), stub, purge_horizon_us=None) is Outcome.APPLIED
    assert decide_outcome(an_event(), stub, purge_horizon_us=10) is Outcome.EXPIRED


@pytest.mark.parametrize("version", [10, 20, 30], ids=["lower", "equal", "higher"])
def test_what_was_seen_before_a_rebase_is_expired_whatever_the_row_says(version: int) -> None:
    """The commit times of before a restore cannot be compared with those after it."""
    marked = {"purge_horizon_us": None, "rebase_mark_us": 10}
    assert decide_outcome(an_event(), a_row(version=version), **marked) is Outcome.EXPIRED
    assert decide_outcome(an_event(), None, **marked) is Outcome.EXPIRED
    later = an_event(observed_at_us=11)
    assert decide_outcome(later, None, **marked) is Outcome.APPLIED


def test_a_row_that_is_there_is_never_expired_by_a_purge() -> None:
    """Its version says all that the horizon could only guess."""
    assert decide_outcome(an_event(), a_row(version=10), purge_horizon_us=99) is Outcome.APPLIED


def test_a_late_write_does_not_revive_a_deleted_document() -> None:
    """The tombstone's version is that of the write it removed, plus one."""
    tombstone = a_row(state=RowState.TOMBSTONE, version=21, digest="")
    assert decide_outcome(an_event(), tombstone, purge_horizon_us=None) is Outcome.STALE


def test_a_re_creation_wins_over_the_tombstone() -> None:
    """A document may be deleted and created anew; the creation's commit time is later."""
    tombstone = a_row(state=RowState.TOMBSTONE, version=21, digest="")
    event = an_event(version=22)
    assert decide_outcome(event, tombstone, purge_horizon_us=None) is Outcome.APPLIED


def test_a_later_delete_raises_the_version_of_a_tombstone() -> None:
    """Two deletes seen at different moments end at the later one, whatever their order."""
    tombstone = a_row(state=RowState.TOMBSTONE, version=21, digest="")
    event = an_event(version=31, digest="")
    assert decide_outcome(event, tombstone, purge_horizon_us=None) is Outcome.APPLIED


@pytest.mark.parametrize("origin", FULL_OBSERVATIONS)
def test_a_full_observation_of_other_contents_repairs(origin: Origin) -> None:
    """A dual write sent what the client knew; the trigger knows what the server made of it."""
    event = an_event(origin=origin, digest="e")
    assert decide_outcome(event, a_row(), purge_horizon_us=None) is Outcome.REPAIRED


@pytest.mark.parametrize("origin", FULL_OBSERVATIONS)
def test_a_full_observation_under_a_newer_mapping_repairs(origin: Origin) -> None:
    """So that a backfill fills a column that was declared later."""
    event = an_event(origin=origin, mapping_revision=3)
    assert decide_outcome(event, a_row(), purge_horizon_us=None) is Outcome.REPAIRED


def test_a_full_observation_under_an_older_mapping_is_a_duplicate() -> None:
    """A worker that was not restarted yet must not take the new column's values away."""
    event = an_event(mapping_revision=1, digest="e")
    assert decide_outcome(event, a_row(), purge_horizon_us=None) is Outcome.DUPLICATE


def test_a_plain_dual_write_never_repairs() -> None:
    """It has not seen the server's contents, so it cannot contradict them."""
    event = an_event(origin=Origin.DUAL_WRITE, digest="e", mapping_revision=3)
    assert decide_outcome(event, a_row(), purge_horizon_us=None) is Outcome.DUPLICATE


def test_a_repair_rewrites_a_row_of_its_own_version() -> None:
    """A row damaged by hand keeps version and digest; nothing else would touch it."""
    event = an_event(origin=Origin.REPAIR)
    assert decide_outcome(event, a_row(), purge_horizon_us=None) is Outcome.REPAIRED


def test_a_repair_that_names_the_higher_version_mends_it() -> None:
    """A version damaged upwards would else make every later event stale."""
    event = an_event(origin=Origin.REPAIR, expected_version=30)
    row = a_row(version=30)
    assert decide_outcome(event, row, purge_horizon_us=None) is Outcome.REPAIRED


def test_a_repair_that_names_another_version_is_stale() -> None:
    """The row has moved on since it was seen damaged; the newer event is right."""
    event = an_event(origin=Origin.REPAIR, expected_version=30)
    row = a_row(version=40)
    assert decide_outcome(event, row, purge_horizon_us=None) is Outcome.STALE


def test_only_a_repair_may_lower_a_version() -> None:
    """The expected version is a repair's word; from any other origin it means nothing."""
    event = an_event(expected_version=30)
    row = a_row(version=30)
    assert decide_outcome(event, row, purge_horizon_us=None) is Outcome.STALE


def test_a_delete_sorts_after_the_write_it_removed_and_before_a_re_creation() -> None:
    """The whole rule of versions rests on this order."""
    write = version_of(10, is_deleted=False)
    delete = version_of(10, is_deleted=True)
    re_creation = version_of(11, is_deleted=False)
    assert write < delete < re_creation


def test_a_commit_time_before_the_epoch_is_refused() -> None:
    """No Firestore commit has one: the caller has lost its units."""
    with pytest.raises(ValueError, match="commit_time_us must be >= 0, got -1"):
        version_of(-1, is_deleted=False)


def test_the_id_tells_paths_and_versions_apart() -> None:
    """Two changes with one id would be one message to the bus."""
    ids = {event_id_of(path, version) for path in ("a/1", "a/12", "a/1\n2") for version in (2, 22)}
    assert len(ids) == 6


def test_a_change_says_what_its_version_says() -> None:
    """Whether it is a delete, when it was committed, its id and its type have one source."""
    delete = Change(
        path="users/a", version=21, origin=Origin.TRIGGER, observed_at_us=10, fields=None, digest=""
    )
    assert delete.is_deleted
    assert delete.commit_time_us == 10
    assert delete.event_id == event_id_of("users/a", 21)
    assert delete.event_type is EventType.DELETED


def test_origins_that_saw_the_servers_contents_are_the_full_observations() -> None:
    """A new origin must be put on one side or the other on purpose."""
    assert tuple(origin for origin in Origin if origin.is_full_observation) == FULL_OBSERVATIONS
