"""The tests' own emulator: found where people have it, and gone when the tests are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storemirror.clock import wait_until
from tests.support import emulator_process

ROOT = Path(__file__).parents[3]
STARTS_AN_EMULATOR = """
import sys
from pathlib import Path
from tests.support.emulator import running_emulator
with running_emulator(Path(sys.argv[1])) as host:
    print(host, flush=True)
    sys.stdin.read()
"""


def test_a_jar_that_is_named_is_the_one_taken(tmp_path: Path) -> None:
    """Also when it is not there: a slip of the pen must not go on with another one."""
    named = {"STOREMIRROR_TEST_FIRESTORE_JAR": "/nowhere/emulator.jar"}
    assert emulator_process.found_jar(named, tmp_path) == Path("/nowhere/emulator.jar")


def test_the_newest_jar_of_firebase_tools_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their releases leaves one behind; 1.20.0 is newer than 1.9.9."""
    monkeypatch.setattr(emulator_process, "SDK_ROOT", tmp_path / "none")
    folder = tmp_path / ".cache" / "firebase" / "emulators"
    folder.mkdir(parents=True)
    for version in ("1.9.9", "1.20.0", "1.19.8"):
        (folder / f"cloud-firestore-emulator-v{version}.jar").touch()
    found = emulator_process.found_jar({"PATH": ""}, tmp_path)
    assert found == folder / "cloud-firestore-emulator-v1.20.0.jar"


def test_a_jar_in_a_google_cloud_sdk_on_the_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gcloud components install cloud-firestore-emulator` puts it there."""
    monkeypatch.setattr(emulator_process, "SDK_ROOT", tmp_path / "none")
    jar = (
        tmp_path / "sdk" / "platform" / "cloud-firestore-emulator" / "cloud-firestore-emulator.jar"
    )
    gcloud = tmp_path / "sdk" / "bin" / "gcloud"
    for path in (jar, gcloud):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    assert emulator_process.found_jar({"PATH": str(gcloud.parent)}, tmp_path) == jar
    assert emulator_process.found_jar({"PATH": ""}, tmp_path) is None


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_the_emulator_ends_with_the_tests_that_were_killed(tmp_path: Path) -> None:
    """Each one left behind holds 350 MB of a laptop."""
    if emulator_process.found_jar(os.environ, Path.home()) is None:
        pytest.skip(emulator_process.INSTALL_LINE)
    command = [sys.executable, "-c", STARTS_AN_EMULATOR, str(tmp_path / "log")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        host = tests.stdout.readline().strip()
        assert emulator_process.answers(host)
        tests.kill()
    assert wait_until(lambda: not emulator_process.answers(host), 60.0)
