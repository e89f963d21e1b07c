"""`storemirror demo`, as a newcomer runs it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import going_command, run_command

pytestmark = [pytest.mark.postgres, pytest.mark.demo]

KEYS = {
    "written",
    "deleted",
    "recreated",
    "published",
    "settled",
    "applied",
    "repaired",
    "duplicate",
    "stale",
    "expired",
    "dead_lettered",
    "mismatches",
    "latency_ms",
    "duration_s",
}


async def test_the_demo_ends_with_both_sides_equal(tmp_path: Path) -> None:
    """The main job: faults, a killed writer, and nothing lost, revived or doubled."""
    ended = await run_command(
        "demo", "--events", "1000", "--rate", "500", "--json", environment={}, folder=tmp_path
    )
    assert ended.status == 0, ended.err
    found = ended.json()
    assert set(found) == KEYS
    assert found["written"] >= 1000
    assert found["published"] == found["settled"] == found["written"]
    assert found["mismatches"] == found["dead_lettered"] == 0
    assert min(found[name] for name in ("duplicate", "stale", "deleted", "recreated")) > 0
    assert set(found["latency_ms"]) == {"p50", "p95", "p99"}


async def test_a_run_too_short_to_show_anything_fails_and_says_so(tmp_path: Path) -> None:
    """Success must mean that the faults happened and were overcome."""
    ended = await run_command("demo", "--events", "2", environment={}, folder=tmp_path)
    assert ended.status == 1
    assert "too short" in ended.out


async def test_ctrl_c_stops_cleanly_compares_and_says_the_result(tmp_path: Path) -> None:
    """A person who stops the demo still gets the proof."""
    unbuffered = {"PYTHONUNBUFFERED": "1"}
    async with going_command("demo", environment=unbuffered, folder=tmp_path) as process:
        assert process.stdout is not None
        assert b"live" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert "Both sides agree" in out.decode()
    assert err == b""


async def test_a_port_that_is_taken_is_named(tmp_path: Path, postgres: object) -> None:
    """The message says what is taken and what to do instead."""
    port = str(getattr(postgres, "port"))  # noqa: B009 - the fixture's type is the server's own
    ended = await run_command(
        "demo", "--events", "2", "--port", port, environment={}, folder=tmp_path
    )
    assert ended.status == 5
    assert f"port {port} on 127.0.0.1 cannot be used" in ended.err
    assert "Traceback" not in ended.err
