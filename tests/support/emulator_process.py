"""
Google's Firestore emulator as a process: found, started, and stopped.

`FIRESTORE_EMULATOR_HOST` is its user's to look at.  The jar is looked for where
`STOREMIRROR_TEST_FIRESTORE_JAR` says, where Debian's package puts it, in a Google Cloud SDK, and
where firebase-tools keeps it.
"""

from __future__ import annotations

import contextlib
import ctypes
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
from pathlib import Path
from typing import Final

from storemirror.clock import wait_until

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
#: No emulator lives long enough to win back what the second compiler costs: without it the start
#: and the first thousand calls take 8 s of processor time instead of 12.
_QUICK: Final = "-XX:TieredStopAtLevel=1"
#: Option of Linux's prctl(2).
_PR_SET_PDEATHSIG: Final = 1


class EmulatorMissing(Exception):
    """There is no emulator or no Java on this machine; the message is the line that installs it."""


class EmulatorFailed(Exception):
    """The emulator did not start; the message is the end of what it wrote."""


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
def running_process(log: Path, *, delivers_to: int | None = None) -> Iterator[str]:
    """
    Start an emulator on a free port, lend its host:port, and stop it with all it started.

    Args:
        log: where its output goes.
        delivers_to: the port of this machine that trigger deliveries go to; None: nowhere.

    Raises:
        EmulatorMissing, EmulatorFailed: nothing runs.
    """
    jar = found_jar(os.environ, Path.home())
    if jar is None or shutil.which("java") is None:
        raise EmulatorMissing(INSTALL_LINE)
    port = free_port()
    command = ["java", "-Duser.language=en", "-Xmx512m", _QUICK, "-cp", str(jar), _MAIN_CLASS]
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
            raise EmulatorFailed(f"the Firestore emulator did not start: {log.read_text()[-500:]}")
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
