"""`storemirror triggers`, a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from tests.acceptance.conftest import Operator, clean_environment

pytestmark = pytest.mark.postgres


async def test_a_receiver_that_others_could_reach_asks_who_may_deliver(operator: Operator) -> None:
    """A forged event would write rows."""
    ended = await operator.runs("triggers", STOREMIRROR_TRIGGERS_HOST="0.0.0.0")
    assert ended.status == 4
    assert "triggers.audience" in ended.err
    assert "Traceback" not in ended.err


async def test_a_receiver_listens_and_stops_with_its_counts(deployed: Operator) -> None:
    """SIGTERM is how a container is stopped."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from storemirror.cli.entry import main; main()",
        "triggers",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment({**deployed.environment, "STOREMIRROR_TRIGGERS_PORT": "0"}),
        cwd=deployed.folder,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"listening on 127.0.0.1:" in await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"published" in out
