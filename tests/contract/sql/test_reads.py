"""Rows are read back by key range, and the follow graph by two users."""

from __future__ import annotations

import itertools

import pytest

from storemirror.errors import DatabaseRefused, SqlUnavailable
from storemirror.event.change import RowState
from storemirror.sql.port import FollowRelationship
from tests.contract.sql.documents import Documents
from tests.contract.sql.side_door import Installed, Server
from tests.support.reference import Key


async def keys(
    sql: Installed, entity: str, after: Key | None = None, up_to: Key | None = None
) -> list[Key]:
    """Give the keys of a range as they come."""
    rows = sql.mirror.rows(sql.model[entity], after=after, up_to=up_to)
    return [row.key async for row in rows]


async def test_rows_come_in_the_order_of_their_keys_bytes(sql: Installed, docs: Documents) -> None:
    """The checker walks both sides side by side; another order would be a mismatch a row."""
    names = ["a", "B", "Z", "z", "a b", "a-b", "é", "\uffee", "\U0001f600", "10", "9"]
    pairs = list(itertools.product(names, names[:3]))
    await sql.mirror.apply([docs.follow(*pair, 1) for pair in pairs])
    assert await keys(sql, "FollowEdge") == sorted(
        pairs, key=lambda pair: (pair[0].encode(), pair[1].encode())
    )


async def test_a_range_is_open_below_and_closed_above(sql: Installed, docs: Documents) -> None:
    """So that ranges side by side cover each row once."""
    await sql.mirror.apply([docs.follow(a, b, 1) for a in "abc" for b in "xyz"])
    assert await keys(sql, "FollowEdge", after=("a", "y"), up_to=("b", "y")) == [
        ("a", "z"),
        ("b", "x"),
        ("b", "y"),
    ]
    assert await keys(sql, "FollowEdge", after=("c", "y")) == [("c", "z")]
    assert await keys(sql, "FollowEdge", up_to=("a", "x")) == [("a", "x")]
    assert await keys(sql, "FollowEdge", after=("z", "z")) == []


async def test_rows_beyond_a_page_come_with_their_children(sql: Installed, docs: Documents) -> None:
    """Each once, and none with the children of its neighbour."""
    count = 2_345
    names = [f"c{number:05}" for number in range(count)]
    for start in range(0, count, 1_000):
        await sql.mirror.apply(
            [
                docs.conversation(name, 1, participants={f"u-{name}": None, "all": None})
                for name in names[start : start + 1_000]
            ]
        )
    seen = []
    async for row in sql.mirror.rows(sql.model["DmConversation"], after=None, up_to=None):
        seen.append(row.key[0])
        assert set(row.children["DmParticipant"]) == {f"u-{row.key[0]}", "all"}
    assert seen == names


async def test_rows_in_every_state_are_read(sql: Installed, docs: Documents) -> None:
    """Readers go by the state; the checker needs the tombstones too."""
    await sql.mirror.apply([docs.conversation("live", 1), docs.message("stub", "m", 1)])
    await sql.mirror.apply([docs.gone("DmConversation", ("tombstone",), 1)])
    rows = sql.mirror.rows(sql.model["DmConversation"], after=None, up_to=None)
    assert {row.key[0]: row.state async for row in rows} == {
        "live": RowState.LIVE,
        "stub": RowState.STUB,
        "tombstone": RowState.TOMBSTONE,
    }


async def test_an_absent_row_is_none(sql: Installed) -> None:
    """Not an error: most documents are not there yet."""
    assert await sql.mirror.row(sql.model["DmMessage"], ("c", "m")) is None


async def test_a_key_of_the_wrong_length_is_the_caller_s_bug(sql: Installed) -> None:
    """It must not quietly find nothing."""
    with pytest.raises(ValueError, match="2 key parts"):
        await sql.mirror.row(sql.model["DmMessage"], ("c",))


async def test_lossy_fields_are_kept_by_name(sql: Installed, docs: Documents) -> None:
    """The checker must not take the nearest value for a mismatch."""
    event = docs.message("c", "m", 1)
    assert event.row is not None
    lossy = type(event.row)(
        columns=event.row.columns, children={}, raw=None, lossy_fields=("body", "x.y")
    )
    await sql.mirror.apply(
        [type(event)(entity=event.entity, change=event.change, key=event.key, row=lossy)]
    )
    row = await sql.mirror.row(sql.model["DmMessage"], ("c", "m"))
    assert row is not None
    assert row.lossy_fields == ("body", "x.y")


@pytest.mark.parametrize("edges", list(itertools.product((False, True), repeat=4)), ids=str)
async def test_a_relationship_has_four_sides(
    edges: tuple[bool, bool, bool, bool], sql: Installed, docs: Documents
) -> None:
    """Each by its own live row; tombstones and stubs are no relationship."""
    follows, is_followed, blocks, is_blocked = edges
    wanted = [
        (follows, docs.follow("v", "t", 1), docs.gone("FollowEdge", ("v", "t"), 1)),
        (is_followed, docs.follow("t", "v", 1), docs.gone("FollowEdge", ("t", "v"), 1)),
        (blocks, docs.block("v", "t", 1), docs.gone("UserBlock", ("v", "t"), 1)),
        (is_blocked, docs.block("t", "v", 1), docs.gone("UserBlock", ("t", "v"), 1)),
    ]
    await sql.mirror.apply([written for _, written, _ in wanted])
    await sql.mirror.apply([gone for is_there, _, gone in wanted if not is_there])
    assert await sql.mirror.follow_relationship("v", "t") == FollowRelationship(
        is_following=follows,
        is_followed_by=is_followed,
        has_blocked=blocks,
        is_blocked_by=is_blocked,
    )


async def test_strangers_have_no_relationship(sql: Installed, docs: Documents) -> None:
    """Nor does a stub make one."""
    await sql.make_stubs(sql.model["FollowEdge"], [("v", "t")])
    found = await sql.mirror.follow_relationship("v", "t")
    assert not found.is_following
    assert not found.is_followed_by


async def test_a_probe_tells_the_database_s_clock(sql: Installed, docs: Documents) -> None:
    """A worker whose own clock is off must be able to see it."""
    hour_us = 3_600_000_000
    assert abs(await sql.mirror.probe() - (docs.base_us + hour_us)) < 60_000_000


async def test_a_database_that_is_not_there_is_told(server: Server, sql: Installed) -> None:
    """The writer then receives nothing; whether it waits or ends is the server's word."""
    gone = await server.opened(await server.absent_database(), sql.model)
    with pytest.raises((SqlUnavailable, DatabaseRefused)):
        await gone.mirror.probe()
