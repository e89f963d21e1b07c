"""The benchmark's pipeline ends its writers only after they have begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.databases import bench_server
from bench.world import PipelineFailed, running_world
from storemirror.sql.postgres.server import EmbeddedServer

pytestmark = pytest.mark.postgres


async def test_every_writer_gives_figures_however_soon_it_is_stopped(
    postgres: EmbeddedServer, tmp_path: Path
) -> None:
    """One that was still starting when another had settled all was ended without a word."""
    async with (
        bench_server(postgres, is_durable=False) as server,
        running_world(server, tmp_path, writer_count=3) as world,
    ):
        await world.stop_writers()
        assert sum(writer.result["settled"] for writer in world.writers) == 1


async def test_a_writer_that_was_killed_is_named(postgres: EmbeddedServer, tmp_path: Path) -> None:
    """A measurement without its figures is none."""
    async with (
        bench_server(postgres, is_durable=False) as server,
        running_world(server, tmp_path, writer_count=1) as world,
    ):
        world.writers[0].process.kill()
        with pytest.raises(PipelineFailed, match="did not end well"):
            await world.stop_writers()
