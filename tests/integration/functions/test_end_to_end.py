"""Google's client, Google's emulator, Google's functions framework, PostgreSQL: all are real."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from storemirror.model.load import load_model
from tests.integration.functions.deployment import Deployment
from tests.integration.functions.framework import SCHEDULE, Function, running_functions
from tests.integration.functions.router import routed
from tests.integration.functions.test_deliveries import NAMES
from tests.integration.receiver.hosted import A_MESSAGE
from tests.integration.receiver.test_emulator import a_message, live_an_hour
from tests.support.deliveries import told
from tests.support.emulator import DeliveringEmulator, delivering_emulator
from tests.support.googles_client import googles_client

pytestmark = pytest.mark.postgres


@pytest.fixture
def emulator(functions_folder: Path, tmp_path: Path) -> Iterator[DeliveringEmulator]:
    with delivering_emulator(tmp_path / "emulator.log") as running:
        yield running


@pytest.fixture
def client(
    emulator: DeliveringEmulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[firestore.Client]:
    with googles_client(emulator.host, monkeypatch) as opened:
        yield opened


async def drained(function: Function) -> Any:
    """Run the schedule once; gives the figures that it logged."""
    answer = await function.is_scheduled()
    assert answer.status == 200, answer.body
    return function.logged("drain.finished")[-1]


async def test_what_googles_client_writes_arrives_and_is_equal(
    functions_folder: Path,
    deployment: Deployment,
    emulator: DeliveringEmulator,
    client: firestore.Client,
    tmp_path: Path,
) -> None:
    """The whole path as deployed: every trigger, then the schedule, then the proof."""
    deployment.variables["FIRESTORE_EMULATOR_HOST"] = emulator.host
    names = (*NAMES, SCHEDULE)
    with running_functions(functions_folder, names, deployment.environment, tmp_path) as started:
        triggers = {name: started[name] for name in NAMES}
        async with routed(triggers, emulator.receiver_port) as router:
            await asyncio.to_thread(emulator.register, load_model())
            made = await asyncio.to_thread(live_an_hour, client, 11)
            odd = client.document("conversations/c %2F#?ä'\"/messages/.m~\U0001f600")
            await asyncio.to_thread(odd.set, a_message(7))
            await router.delivered(made + 1)
            assert all(answers.keys() == {204} for answers in router.answers.values())
            counts = [await function.counts() for function in triggers.values()]
        assert not any("unreadable_count" in count for count in counts)
        figures = await drained(started[SCHEDULE])
    published = sum(count["published_count"] for count in counts)
    assert figures["received"] == published > 0
    assert (figures["dead_lettered"], figures["depth"], figures["is_drained"]) == (0, 0, True)
    assert figures["severity"] == "INFO"
    result = await deployment.checked()
    assert result.is_clean, result.to_json()
    assert all(counts.document_count > 0 for counts in result.counts.values())


async def test_the_schedule_applies_what_waits(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """A row is there a minute after its event, without any writer; the next run finds nothing."""
    names = ("mirrorDmMessages", SCHEDULE)
    with running_functions(functions_folder, names, deployment.environment, tmp_path) as started:
        body = told(A_MESSAGE).SerializeToString()
        assert await started["mirrorDmMessages"].post(body) == 204
        first = await drained(started[SCHEDULE])
        second = await drained(started[SCHEDULE])
    assert (first["received"], second["received"]) == (1, 0)


async def test_a_mirror_that_is_switched_off_receives_nothing(
    functions_folder: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """The master switch holds here too, and its being off is seen."""
    deployment.variables["USE_SQL_DM_WRITE_MIRROR"] = "false"
    names = ("mirrorDmMessages", SCHEDULE)
    with running_functions(functions_folder, names, deployment.environment, tmp_path) as started:
        assert await started["mirrorDmMessages"].post(told(A_MESSAGE).SerializeToString()) == 204
        answer = await started[SCHEDULE].is_scheduled()
    assert answer.status == 500
    assert "switched off" in answer.body.decode()
    assert await deployment.depth() == 1
