"""Faults planted in the rendered procedures, to see that a test would find them."""

from __future__ import annotations

from tests.support.mirrors import MirrorUnderTest


def planted(text: str, *changes: tuple[str, str]) -> str:
    """Give the procedures' text with parts replaced; each must occur."""
    for sound, faulty in changes:
        assert sound in text, f"the procedures no longer have {sound!r}"
        text = text.replace(sound, faulty)
    return text


async def plant(under_test: MirrorUnderTest, *changes: tuple[str, str]) -> None:
    """
    Install the procedures with some of their text replaced.

    Args:
        under_test: whose procedures are replaced.
        changes: what is replaced, and by what; each must occur.
    """
    text = planted(under_test.rendering.procedures_sql(), *changes)
    async with under_test.database.connection() as conn:
        await conn.execute(text.encode())
