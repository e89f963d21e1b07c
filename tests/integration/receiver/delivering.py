"""Google's emulator as it delivers: registers triggers, and calls whoever listens on a port."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storemirror.clock import wait_until
from storemirror.model.entity import Model
from storemirror.source.triggers import trigger_name_of
from tests.support.emulator import INSTALL_LINE, START_TIMEOUT_S, answers, found_jar
from tests.support.mirrors import PROJECT

_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_TYPE = "google.cloud.firestore.document.v1.written"


@dataclass(frozen=True)
class DeliveringEmulator:
    #: host:port of the emulator.
    host: str
    #: Where it delivers to.
    receiver_port: int

    def register(self, model: Model) -> None:
        """Have every declared document's changes delivered."""
        for entity in model:
            trigger = {
                "eventType": _TYPE,
                "database": "(default)",
                "namespace": "(default)",
                "document": {"value": entity.pattern, "matchType": "PATH_PATTERN"},
            }
            name = f"eventarcTrigger?eventarcTriggerId={trigger_name_of(entity)}"
            address = f"http://{self.host}/emulator/v1/projects/{PROJECT}/{name}"
            body, headers = json.dumps(trigger).encode(), {"Content-Type": "application/json"}
            request = urllib.request.Request(address, body, headers)
            urllib.request.urlopen(request, timeout=30.0).close()


@contextlib.contextmanager
def delivering_emulator(log: Path) -> Iterator[DeliveringEmulator]:
    """Start an emulator that delivers to a free port, and stop it."""
    jar = found_jar(os.environ, Path.home())
    if jar is None or shutil.which("java") is None:
        pytest.skip(INSTALL_LINE)
    port, receiver_port = _free_ports()
    host = f"127.0.0.1:{port}"
    command = ["java", "-Duser.language=en", "-Xmx512m", "-cp", str(jar), _MAIN_CLASS, "start"]
    command += ["--host=127.0.0.1", f"--port={port}"]
    command.append(f"--functions_emulator=127.0.0.1:{receiver_port}")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(host) or process.poll() is not None, START_TIMEOUT_S)
        if not answers(host):
            pytest.fail(f"the Firestore emulator did not start: {log.read_text()[-500:]}")
        yield DeliveringEmulator(host, receiver_port)
    finally:
        process.kill()
        process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
