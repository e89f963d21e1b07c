"""
A pytest plugin: Google's Firestore emulator, one a test process, and a project a test.

One that delivers triggers is started for a test of its own (`delivering_emulator`): whom it
delivers to is fixed when it starts.

`FIRESTORE_EMULATOR_HOST` names one that runs already; else one is started.  Where there is none
the tests that need it are skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from storemirror.model.entity import Model
from storemirror.source.triggers import trigger_name_of
from tests.support.emulator_process import EmulatorMissing, running_process
from tests.support.mirrors import PROJECT

_NUMBERS: Final = itertools.count(1)


@contextlib.contextmanager
def running_emulator(log: Path, *, delivers_to: int | None = None) -> Iterator[str]:
    """Start an emulator, or skip the test; see `running_process`."""
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(running_process(log, delivers_to=delivers_to))
        except EmulatorMissing as exc:
            pytest.skip(str(exc))
        yield host


@pytest.fixture(scope="session")
def emulator_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of an emulator that lives as long as this test process."""
    running = os.environ.get("FIRESTORE_EMULATOR_HOST")
    if running:
        yield running
        return
    with running_emulator(tmp_path_factory.mktemp("emulator") / "emulator.log") as host:
        yield host


@pytest.fixture
def firestore_project(emulator_host: str) -> Iterator[str]:
    """Id of a project that no other test has; its documents are removed at the end."""
    project = f"demo-test-{os.getpid()}-{next(_NUMBERS)}"
    yield project
    address = f"http://{emulator_host}/emulator/v1/projects/{project}/databases/(default)/documents"
    urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30.0).close()


@dataclass(frozen=True)
class DeliveringEmulator:
    """An emulator that posts trigger deliveries."""

    #: host:port of the emulator.
    host: str
    #: Where it delivers to, on this machine.
    receiver_port: int

    def register(self, model: Model, project: str = PROJECT) -> None:
        """Have every declared document's changes delivered, each trigger's to a path of its own."""
        for entity in model:
            trigger = {
                "eventType": "google.cloud.firestore.document.v1.written",
                "database": "(default)",
                "namespace": "(default)",
                "document": {"value": entity.pattern, "matchType": "PATH_PATTERN"},
            }
            name = f"eventarcTrigger?eventarcTriggerId={trigger_name_of(entity)}"
            self._send("POST", f"{project}/{name}", trigger)

    def load_rules(self, rules: str, project: str) -> None:
        """Have clients, unlike servers, held to security rules."""
        files = [{"name": "firestore.rules", "content": rules}]
        self._send("PUT", f"{project}:securityRules", {"rules": {"files": files}})

    def _send(self, method: str, path: str, data: object) -> None:
        address = f"http://{self.host}/emulator/v1/projects/{path}"
        body, headers = json.dumps(data).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(address, body, headers, method=method)
        urllib.request.urlopen(request, timeout=30.0).close()


@contextlib.contextmanager
def delivering_emulator(log: Path) -> Iterator[DeliveringEmulator]:
    """Start an emulator that delivers to a free port, and stop it."""
    with contextlib.ExitStack() as stack:
        # Held until the emulator listens, which would else be given the same port.
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            receiver_port = held.getsockname()[1]
            host = stack.enter_context(running_emulator(log, delivers_to=receiver_port))
        yield DeliveringEmulator(host, receiver_port)
