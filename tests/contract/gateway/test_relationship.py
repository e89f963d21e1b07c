"""What every source promises of how two users stand; see `FollowReader.relationship`."""

from __future__ import annotations

import pytest

from storemirror.gateway.port import Edge, Relationship
from tests.contract.gateway.moments import at
from tests.contract.gateway.sides import Side, delete, write

ME, YOU = "me", "you"
NONE = Edge(exists=False, version=None)
EDGES = {
    "outgoing": f"users/{ME}/following/{YOU}",
    "incoming": f"users/{YOU}/following/{ME}",
    "outgoing_block": f"users/{ME}/blocks/{YOU}",
    "incoming_block": f"users/{YOU}/blocks/{ME}",
}


def edges_of(relationship: Relationship) -> dict[str, Edge]:
    return {name: getattr(relationship, name) for name in EDGES}


async def test_strangers_have_no_edges(side: Side) -> None:
    """No error: most people are."""
    found = await side.follow.relationship(ME, YOU)
    assert edges_of(found) == dict.fromkeys(EDGES, NONE)


@pytest.mark.parametrize("name", EDGES)
async def test_each_edge_is_told_with_its_version(side: Side, name: str) -> None:
    """And no other with it."""
    version = await write(side, EDGES[name], createdAt=at(1))
    await write(side, f"users/{ME}/following/zoe", createdAt=at(1))
    await write(side, f"users/zoe/blocks/{ME}", createdAt=at(1))
    expected = {**dict.fromkeys(EDGES, NONE), name: Edge(exists=True, version=version)}
    assert edges_of(await side.follow.relationship(ME, YOU)) == expected


async def test_the_other_side_sees_it_the_other_way_round(side: Side) -> None:
    """Viewer and target decide which is outgoing."""
    for path in EDGES.values():
        await write(side, path, createdAt=at(1))
    mine = edges_of(await side.follow.relationship(ME, YOU))
    yours = edges_of(await side.follow.relationship(YOU, ME))
    assert (yours["incoming"], yours["incoming_block"]) == (
        mine["outgoing"],
        mine["outgoing_block"],
    )
    assert (yours["outgoing"], yours["outgoing_block"]) == (
        mine["incoming"],
        mine["incoming_block"],
    )
    assert all(edge.exists for edge in mine.values())


async def test_an_edge_that_was_deleted_does_not_exist(side: Side) -> None:
    """Written again it does, with a newer version."""
    for path in EDGES.values():
        await write(side, path, createdAt=at(1))
        await delete(side, path)
    found = edges_of(await side.follow.relationship(ME, YOU))
    assert not any(edge.exists for edge in found.values())
    version = await write(side, EDGES["outgoing"], createdAt=at(2))
    found = edges_of(await side.follow.relationship(ME, YOU))
    assert found["outgoing"] == Edge(exists=True, version=version)


async def test_an_edge_without_contents_exists(side: Side) -> None:
    """That it is there is all that it says."""
    version = await write(side, EDGES["outgoing"])
    found = await side.follow.relationship(ME, YOU)
    assert found.outgoing == Edge(exists=True, version=version)


async def test_an_edge_that_does_not_fit_its_declaration_does_not_exist(side: Side) -> None:
    """The mirror has set it aside."""
    await write(side, EDGES["outgoing"], createdAt="yesterday")
    assert not (await side.follow.relationship(ME, YOU)).outgoing.exists


@pytest.mark.parametrize(
    "target",
    ["", "a/b", "/", "..", "__x__", "x" * 129, "x" * 5_000, "a\0b", "\ud800"],
    ids=range(9),
)
async def test_an_id_that_cannot_be_a_key_has_no_edges(side: Side, target: str) -> None:
    """A client may send anything; it is answered, and not with an error."""
    found = edges_of(await side.follow.relationship(ME, target))
    assert found == dict.fromkeys(EDGES, NONE)


async def test_a_relationship_says_up_to_when_it_shows_everything(side: Side) -> None:
    """Where the source knows it."""
    version = await write(side, EDGES["outgoing"], createdAt=at(1))
    found = await side.follow.relationship(ME, YOU)
    assert (found.as_of_us is not None) == side.knows_its_time
    assert found.as_of_us is None or found.as_of_us > version // 2
