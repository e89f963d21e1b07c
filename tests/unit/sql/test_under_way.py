"""What is under way is told from the catalogue alone."""

from __future__ import annotations

import pytest

from storemirror.model.load import load_model
from storemirror.sql.catalogue import FoundIndex, FoundSchema, FoundTable
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.wanted import wanted_schema
from storemirror.sql.under_way import decide_under_way

LATEST = "dm_message_latest"
NEXT = "dm_message_latest_next"
WANTED = wanted_schema(
    Rendering(load_model(), schema_name="storemirror", procedures={}), project="p", store="d"
)
[WHOLE] = [t.indexes[LATEST] for t in WANTED.tables if LATEST in t.indexes]
EARLIER = "conversation_id, sent_at DESC, message_id DESC (partial)"


def told(indexes: dict[str, FoundIndex], builds: dict[str, str] | None = None) -> list[str]:
    """Say what is under way with these indexes of messages."""
    found = FoundSchema(tables={"dm_message": FoundTable(indexes=indexes)})
    return list(decide_under_way(WANTED, found, builds or {}))


def test_an_index_that_is_being_built_is_told_with_who_builds_it() -> None:
    """It may take an hour, and nothing else shows that anybody works."""
    indexes = {
        LATEST: FoundIndex(definition=EARLIER),
        NEXT: FoundIndex(definition=WHOLE, is_whole=False),
    }
    [sentence] = told(indexes, {NEXT: "by session 7: building index"})
    assert sentence == (
        f"index {NEXT}, which is to replace {LATEST}, is being built by session 7: building index"
    )


@pytest.mark.parametrize(
    ("now", "built", "words"),
    [
        pytest.param(EARLIER, FoundIndex(definition=WHOLE), "puts it in the place of", id="whole"),
        pytest.param(
            EARLIER, FoundIndex(definition=WHOLE, is_whole=False), "builds it anew", id="not whole"
        ),
        pytest.param(EARLIER, FoundIndex(definition=EARLIER), "builds it anew", id="of others"),
        pytest.param(WHOLE, FoundIndex(definition=WHOLE), "nothing needs it: drop it", id="left"),
    ],
)
def test_what_was_left_is_told_with_what_becomes_of_it(
    now: str, built: FoundIndex, words: str
) -> None:
    """An administrator who finds it must know whether to drop it."""
    [sentence] = told({LATEST: FoundIndex(definition=now), NEXT: built})
    assert words in sentence


def test_nothing_is_told_where_nothing_is_built() -> None:
    """Most of the time."""
    assert told({LATEST: FoundIndex(definition=WHOLE)}) == []
