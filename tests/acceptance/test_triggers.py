"""`storemirror triggers`, a process of its own."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.conftest import Operator, going_command

pytestmark = pytest.mark.postgres


async def test_a_receiver_that_others_could_reach_asks_who_may_deliver(operator: Operator) -> None:
    """A forged event would write rows."""
    ended = await operator.runs("triggers", STOREMIRROR_TRIGGERS_HOST="0.0.0.0")
    assert ended.status == 4
    assert "triggers.audience" in ended.err
    assert "Traceback" not in ended.err


async def test_a_receiver_listens_and_stops_with_its_counts(deployed: Operator) -> None:
    """SIGTERM is how a container is stopped."""
    environment = {**deployed.environment, "STOREMIRROR_TRIGGERS_PORT": "0"}
    async with going_command(
        "triggers", environment=environment, folder=deployed.folder
    ) as process:
        assert process.stdout is not None
        assert b"listening on 127.0.0.1:" in await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"published" in out
