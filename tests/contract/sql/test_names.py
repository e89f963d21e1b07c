"""Declared names that the procedures could take for their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.event.change import Outcome
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.sql.side_door import Server
from tests.support.events import deleted, written
from tests.support.reference import Reference

AWKWARD = """
[[entity]]
name     = "Select"
check    = "selects"
path     = "selects/{version}"
category = "sqlMirror"
[entity.columns]
delta  = { type = "string" }
creator = { type = "string" }

[[entity]]
name     = "Group"
check    = "groups"
path     = "selects/{version}/groups/{n}"
category = "sqlMirror"
audit    = true
[entity.columns]
order    = { type = "timestamp", required = true }
rank     = { type = "string" }
eventId  = { type = "string" }
digest   = { type = "string" }
revision = { type = "string" }
user     = { type = "string" }
[entity.rollup]
into   = "Select"
count  = "count"
latest = { by = "order", set = { limit = "n", table = "rank" } }
"""


@pytest.fixture
def awkward(tmp_path: Path) -> Model:
    """Two entities named after words of SQL and of the procedures."""
    file = tmp_path / "awkward.toml"
    file.write_text(AWKWARD)
    return load_model([file], with_builtin=False)


async def test_names_of_sql_and_of_the_procedures_are_names_like_others(
    server: Server, awkward: Model, base_us: int
) -> None:
    """A user's field may be called `version`; what is ours must not be taken for it."""
    installed = await server.installed(awkward)
    reference = Reference(awkward)
    parent = written(awkward, "Select", ("v",), base_us, delta="d", creator="o")
    children = [
        written(
            awkward, "Group", ("v", name), base_us + number,
            order=base_us + number, rank="r", eventId="e", digest="g", revision="x", user="u",
        )
        for number, name in enumerate("abc")
    ]  # fmt: skip
    gone = deleted(awkward, "Group", ("v", "c"), base_us + 2)
    for batch in ([children[1], parent], children, [gone], [children[2], gone]):
        assert await installed.mirror.apply(batch) == reference.apply(batch)
    await installed.assert_equal(reference)
    assert await installed.mirror.apply([gone]) == [Outcome.DUPLICATE]
    assert await installed.mirror.rollup_differences(awkward["Group"], limit=9) == []
    assert await installed.mirror.recompute_rollups(awkward["Group"]) == 0
