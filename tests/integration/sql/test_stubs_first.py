"""Where new parents are usual, their stubs are made before a batch is tried, not after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from storemirror.sql.postgres.mirror import PostgresMirror
from tests.contract.sql.documents import Documents
from tests.support.mirrors import MirrorUnderTest, installed_mirror

pytestmark = pytest.mark.postgres

MODEL = load_model()
DOCS = Documents(MODEL, SystemClock().now_us() - 3_600_000_000)


class Calls:
    """What was asked of the database, in order."""

    def __init__(self, mirror: PostgresMirror, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self._watch(mirror, monkeypatch, "_apply_once", "try")
        self._watch(mirror, monkeypatch, "_ensure_parents", "stubs")

    def _watch(
        self, mirror: PostgresMirror, monkeypatch: pytest.MonkeyPatch, method: str, name: str
    ) -> None:
        called = getattr(mirror, method)

        async def noted(*given: Any) -> Any:
            self.made.append(name)
            return await called(*given)

        monkeypatch.setattr(mirror, method, noted)

    def since(self) -> list[str]:
        """Give what was asked since the last question."""
        made, self.made = self.made, []
        return made


async def test_new_parents_cost_no_vain_try_once_they_are_usual(
    new_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the small batches of a busy stream failed first, and all that was done for them."""
    async with installed_mirror(MODEL, await new_database()) as under_test:
        calls = Calls(under_test.mirror, monkeypatch)
        asked = []
        for at, conversation in enumerate(("c1", "c2", "c2", "c3"), start=1):
            event = DOCS.message(conversation, f"m{at}", at)
            assert await under_test.mirror.apply([event]) == [Outcome.APPLIED]
            asked.append(calls.since())
    assert asked == [["try", "stubs", "try"], ["stubs", "try"], ["try"], ["stubs", "try"]]


async def test_a_parent_that_a_purge_took_is_made_anew(
    new_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the writer remembers of it is no promise: the procedures say what is missing."""
    async with installed_mirror(MODEL, await new_database()) as under_test:
        calls = Calls(under_test.mirror, monkeypatch)
        await _applied(under_test, 1)
        await under_test.database.fetch(
            "WITH m AS (DELETE FROM storemirror.dm_message)"
            " DELETE FROM storemirror.dm_conversation RETURNING 1"
        )
        calls.since()
        await _applied(under_test, 2)
    assert calls.since() == ["try", "stubs", "try"]


async def _applied(under_test: MirrorUnderTest, at: int) -> None:
    [outcome] = await under_test.mirror.apply([DOCS.message("c1", f"m{at}", at)])
    assert outcome is Outcome.APPLIED
