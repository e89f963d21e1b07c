"""The demo's people do everything there is to do, from any seed, and nothing they must not."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from storemirror.demo.world import Shelf, SocialWorld, UserAction
from storemirror.event.value import canonical_fields
from storemirror.model.load import load_model
from storemirror.source.port import Precondition, Write

MODEL = load_model()


def lived(seed: int, write_count: int, *, start_us: int = 1_000_000) -> list[UserAction]:
    """Let a world live until so many documents are written, a millisecond an action."""
    world, actions, written = SocialWorld(seed), list[UserAction](), 0
    while written < write_count:
        actions.append(world.next_action(start_us + 1_000 * len(actions)))
        written += len(actions[-1].writes)
    return actions


def writes_of(actions: list[UserAction]) -> list[Write]:
    return [write for action in actions for write in action.writes]


def test_a_seed_decides_everything_but_the_times() -> None:
    """A run that failed can be run again."""
    one, other = lived(7, 1_000), lived(7, 1_000)
    assert one == other
    later = lived(7, 1_000, start_us=9_000_000_000)
    shape = [[(w.path, w.fields is None, w.precondition) for w in a.writes] for a in one]
    assert [[(w.path, w.fields is None, w.precondition) for w in a.writes] for a in later] == shape
    assert lived(8, 1_000) != one


@pytest.mark.parametrize("seed", range(40))
def test_even_a_short_run_deletes_and_recreates(seed: int) -> None:
    """The demo fails without; chance must not decide that."""
    actions = lived(seed, 200)
    assert sum(action.deleted_count for action in actions) >= 5
    assert sum(action.recreated_count for action in actions) >= 3


def test_every_kind_of_action_happens_many_times() -> None:
    """2,000 writes are what `make demo` is measured by."""
    kinds = Counter(action.kind for action in lived(1, 2_000))
    assert set(kinds) == set(SocialWorld(1).kinds)
    assert min(kinds.values()) >= 10


@pytest.mark.parametrize("seed", [1, 2])
def test_preconditions_always_hold_in_a_store_that_nobody_else_writes(seed: int) -> None:
    """So a failed one means that somebody else writes the app's documents."""
    there: set[str] = set()
    gone: set[str] = set()
    for action in lived(seed, 20_000):
        for write in action.writes:
            expected = Precondition.EXISTS if write.path in there else Precondition.ABSENT
            assert write.precondition is expected
            if write.fields is None:
                there.remove(write.path)
                gone.add(write.path)
            else:
                there.add(write.path)
        recreated = [w for w in action.writes if w.fields and w.precondition is Precondition.ABSENT]
        assert sum(w.path in gone for w in recreated) == action.recreated_count


def test_every_write_changes_something_even_while_the_clock_stands() -> None:
    """A write that changes nothing makes no event, and published would not be written."""
    world, contents = SocialWorld(3), dict[str, object]()
    for _ in range(3_000):
        for write in world.next_action(1_000_000).writes:
            assert contents.get(write.path) != write.fields
            contents[write.path] = write.fields


def test_every_document_belongs_to_a_declared_entity_with_its_required_fields() -> None:
    """What cannot be mapped would be dead letters."""
    seen: Counter[str] = Counter()
    for write in writes_of(lived(4, 3_000)):
        entity, _ = MODEL.match(write.path)
        seen[entity.name] += 1
        if write.fields is not None:
            assert canonical_fields(write.fields) == write.fields
            required = {column.field[0] for column in entity.columns if column.is_required}
            assert required <= set(write.fields)
    assert set(seen) == {entity.name for entity in MODEL}


def test_no_commit_writes_a_document_twice() -> None:
    """Firestore would make one change of it."""
    for action in lived(5, 3_000):
        paths = [write.path for write in action.writes]
        assert len(set(paths)) == len(paths)


def test_texts_hold_the_traps_of_real_text() -> None:
    """Emoji of many code points, both directions, long and empty ones, 64-bit sizes."""
    written = repr(writes_of(lived(6, 4_000)))
    traps = ["\U0001f469\U0001f3fd", "e\u0301", "9223372036854775807", "'stringValue': ''"]
    assert [trap for trap in traps if trap not in written] == []
    bodies = [
        str(write.fields["body"]["stringValue"])
        for write in writes_of(lived(6, 4_000))
        if write.fields is not None and "body" in write.fields
    ]
    assert max(map(len, bodies)) > 2_000


def test_ids_look_like_firebase_ids() -> None:
    """Twenty letters and digits a document, twenty-eight a person."""
    for write in writes_of(lived(9, 500)):
        ids = write.path.split("/")[1::2]
        expected = 28 if write.path.startswith("users/") else 20
        assert [len(part) for part in ids] == [expected] * len(ids)
        assert all(part.isascii() and part.isalnum() for part in ids)


def test_a_world_where_everyone_follows_everyone_goes_on() -> None:
    """A demo left running overnight must not stop for want of strangers."""
    world, edges = SocialWorld(10, person_count=7), set[str]()
    for number in range(5_000):
        edges |= {w.path for w in world.next_action(number).writes if "/following/" in w.path}
    assert len(edges) == 7 * 6


def test_a_full_shelf_forgets_and_stays_whole() -> None:
    """Memory stays flat however long the demo runs."""
    shelf = Shelf(random.Random(1), 3)
    for number in range(50):
        shelf.put(f"users/{number}", {"n": number})
    assert len(shelf) == 3
    kept = [shelf.any_path()]
    while len(shelf) > 0:
        kept.append(shelf.any_path())
        assert shelf.take(kept[-1]) == {"n": int(kept[-1].removeprefix("users/"))}
        assert kept[-1] not in shelf
    assert "users/49" in kept
