"""Faults planted in the rendered procedures, to see that a test would find them."""

from __future__ import annotations

from tests.support.mirrors import MirrorUnderTest


async def plant(under_test: MirrorUnderTest, *changes: tuple[str, str]) -> None:
    """
    Install the procedures with some of their text replaced.

    Args:
        under_test: whose procedures are replaced.
        changes: what is replaced, and by what; each must occur.
    """
    text = under_test.rendering.procedures_sql()
    for sound, faulty in changes:
        assert sound in text, f"the procedures no longer have {sound!r}"
        text = text.replace(sound, faulty)
    async with under_test.database.connection() as conn:
        await conn.execute(text.encode())
