"""
A pytest plugin: Google's Firestore emulator, one a test process, and a project a test.

One that delivers triggers is started for a test of its own (`delivering_emulator`): whom it
delivers to is fixed when it starts.

`FIRESTORE_EMULATOR_HOST` names one that runs already.  Else it is started from its jar, which is
looked for where `STOREMIRROR_TEST_FIRESTORE_JAR` says, where Debian's package puts it, in a Google
Cloud SDK, and where firebase-tools keeps it.  Without it the tests that need it are skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from storemirror.clock import wait_until
from storemirror.model.entity import Model
from storemirror.source.triggers import trigger_name_of
from tests.support.mirrors import PROJECT

START_TIMEOUT_S: Final = 60.0
INSTALL_LINE: Final = (
    "needs Google's Firestore emulator and Java:"
    " apt-get install google-cloud-cli-firestore-emulator (from Google's apt repository),"
    " or firebase setup:emulators:firestore, or name its jar in STOREMIRROR_TEST_FIRESTORE_JAR"
)
_MAIN_CLASS: Final = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
#: Where Debian's package puts it.
SDK_ROOT: Final = Path("/usr/lib/google-cloud-sdk")
_IN_SDK: Final = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
#: Option of Linux's prctl(2).
_PR_SET_PDEATHSIG: Final = 1
_NUMBERS: Final = itertools.count(1)


def found_jar(environment: Mapping[str, str], home: Path) -> Path | None:
    """Find the emulator's jar; None when there is none.  What is named must be there."""
    named = environment.get("STOREMIRROR_TEST_FIRESTORE_JAR")
    if named:
        return Path(named)
    gcloud = shutil.which("gcloud", path=environment.get("PATH"))
    roots = [SDK_ROOT, home / "google-cloud-sdk"]
    if gcloud is not None:
        roots.append(Path(gcloud).resolve().parents[1])
    candidates = [root / _IN_SDK for root in roots]
    kept = (home / ".cache" / "firebase" / "emulators").glob("cloud-firestore-emulator-*.jar")
    candidates += sorted(kept, key=_version_of, reverse=True)
    return next((jar for jar in candidates if jar.exists()), None)


def _version_of(jar: Path) -> list[int]:
    """Give the numbers in a jar's name, to be compared."""
    return [int(digits) for digits in re.findall(r"[0-9]+", jar.stem)]


@contextlib.contextmanager
def running_emulator(log: Path, *, delivers_to: int | None = None) -> Iterator[str]:
    """
    Start an emulator on a free port, lend its host:port, and stop it with all it started.

    Args:
        log: where its output goes.
        delivers_to: the port of this machine that trigger deliveries go to; None: nowhere.
    """
    jar = found_jar(os.environ, Path.home())
    if jar is None or shutil.which("java") is None:
        pytest.skip(INSTALL_LINE)
    port = free_port()
    command = ["java", "-Duser.language=en", "-Xmx512m", "-cp", str(jar), _MAIN_CLASS]
    command += ["start", "--host=127.0.0.1", f"--port={port}"]
    if delivers_to is not None:
        command.append(f"--functions_emulator=127.0.0.1:{delivers_to}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    host = f"127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(host) or process.poll() is not None, START_TIMEOUT_S)
        if not answers(host):
            pytest.fail(f"the Firestore emulator did not start: {log.read_text()[-500:]}")
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Give a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent() -> None:
    """Have the kernel end a process when the tests' process is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def answers(host: str) -> bool:
    """Tell whether an emulator listens there."""
    try:
        with urllib.request.urlopen(f"http://{host}/", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


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

    def register(self, model: Model) -> None:
        """Have every declared document's changes delivered, each trigger's to a path of its own."""
        for entity in model:
            trigger = {
                "eventType": "google.cloud.firestore.document.v1.written",
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
    with contextlib.ExitStack() as stack:
        # Held until the emulator listens, which would else be given the same port.
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            receiver_port = held.getsockname()[1]
            host = stack.enter_context(running_emulator(log, delivers_to=receiver_port))
        yield DeliveringEmulator(host, receiver_port)
