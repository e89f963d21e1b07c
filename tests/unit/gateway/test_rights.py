"""Rights, by documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.errors import CallRefused
from storemirror.gateway.rights import Rights
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.model.load import load_model
from storemirror.source.port import Document
from tests.support.long_keys import USER_LENGTH, declared_with_long_keys

#: Longer than any of both declarations lets a user's id be.
LONGER = "u" * (USER_LENGTH + 1)


class Blocks:
    """One block that is there."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def get(self, path: str) -> Document | None:
        if path != self._path:
            return None
        return Document(path=path, fields={}, create_time_us=1, update_time_us=1)


@pytest.mark.parametrize(("blocker", "blocked"), [("you", LONGER), (LONGER, "me")])
async def test_a_block_holds_also_where_its_id_is_longer_than_declared(
    tmp_path: Path, blocker: str, blocked: str
) -> None:
    """SQL cannot have it, and Firestore does: rights are decided there (issue 7)."""
    model = load_model([declared_with_long_keys(tmp_path)], with_builtin=False)
    rights = Rights(DirectMessages.of(model), FollowGraph.of(model))
    reads = Blocks(f"users/{blocker}/blocks/{blocked}")
    with pytest.raises(CallRefused, match="cannot be written to"):
        await rights.refuse_blocked(reads, blocked, [blocker])
    await rights.refuse_blocked(reads, blocked, ["somebody else"])


@pytest.mark.parametrize("odd", ["", "a/b", "..", "__x__"])
async def test_what_can_be_no_id_blocks_nobody(odd: str) -> None:
    """Such a path is none, and is not read."""
    model = load_model()
    rights = Rights(DirectMessages.of(model), FollowGraph.of(model))
    await rights.refuse_blocked(Blocks(f"users/{odd}/blocks/me"), "me", [odd])
