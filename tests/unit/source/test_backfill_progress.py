"""The progress file: whole at every moment, and one backfill's alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from storemirror.errors import ConfigError
from storemirror.source.backfill_plan import FORMAT, BackfillState, EntityProgress, RangeProgress
from storemirror.source.backfill_progress import ProgressFile


def a_state() -> BackfillState:
    reading = RangeProgress(after=("a", "\U0001f600"), position=("b", "c"), document_count=3)
    entity = EntityProgress(name="DmMessage", pattern="a/{b}", counted=7, ranges=[reading])
    return BackfillState(
        format=FORMAT, source="//s", run="r", read_time_us=5, read_count=3, entities=[entity]
    )


def list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Keys of any characters, and bounds that are not there."""
    file = ProgressFile(tmp_path / "p.json")
    assert file.load() is None
    await file.save(a_state())
    assert file.load() == a_state()
    assert list_names(tmp_path) == ["p.json"]
    file.remove()
    file.remove()
    assert file.load() is None


async def test_saves_at_the_same_time_end_with_the_newest(tmp_path: Path) -> None:
    """Each returns only when what it was given, or something later, is on disk."""
    file = ProgressFile(tmp_path / "p.json")
    state = a_state()
    seen: list[bool] = []

    async def advance(count: int) -> None:
        state.entities[0].ranges[0].document_count = count
        await file.save(state)
        loaded = file.load()
        assert loaded is not None
        seen.append(loaded.document_count >= count)

    await asyncio.gather(*[advance(count) for count in range(10, 40)])
    assert seen == [True] * 30


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format": "one"}', b"[]"])
def test_what_we_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    """Guessing would skip documents."""
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"p\.json"):
        ProgressFile(path).load()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before anything is read, not after."""
    file = ProgressFile(tmp_path / "gone" / "p.json")
    with pytest.raises(ConfigError, match="gone"), file.locked():
        pass
    with pytest.raises(ConfigError, match="gone"):
        await file.save(a_state())


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    """A slip of the hand with --progress-file."""
    with pytest.raises(ConfigError, match="cannot be read"):
        ProgressFile(tmp_path).load()


def test_one_at_a_time_works_with_a_file(tmp_path: Path) -> None:
    """The lock is let go of at the end, and leaves nothing behind."""
    file = ProgressFile(tmp_path / "p.json")
    with file.locked(), pytest.raises(ConfigError, match="another backfill"), file.locked():
        pass
    with file.locked():
        pass
    assert list(tmp_path.iterdir()) == []
