"""
A program that answers in JSON on its pipes, framed as language servers do it.

A frame is `Content-Length: N`, an empty line, and N bytes of JSON.  The program is waited for no
longer than it may take, and ends with us, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.support.emulator_process import end_with_parent

#: For one answer, however long the text; 8,600 lines took the parser 2.2 s.
TIMEOUT_S: Final = 120.0


class JudgeFailed(Exception):
    """A text was not judged: this says nothing of it."""


class JsonProcess:
    """A running program: what is sent to it, and what it says."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float
    ) -> None:
        """Take a process that was just started, and wait this long for each of its answers."""
        self.name = name
        self.process = process
        self.log = log
        self.timeout_s = timeout_s
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert process.stdin is not None
        assert process.stdout is not None
        self.to_process: IO[bytes] = process.stdin
        self.listening = threading.Thread(target=self._listen, args=[process.stdout], daemon=True)
        self.listening.start()

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message."""
        body = json.dumps(message).encode()
        # That the program is gone is told by `receive`, with its last words.
        with contextlib.suppress(BrokenPipeError):
            self.to_process.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            self.to_process.flush()

    def receive(self) -> dict[str, Any]:
        """
        Wait for the next message.

        Raises:
            JudgeFailed: the program ended, or says nothing.
        """
        try:
            message = self.messages.get(timeout=self.timeout_s)
        except queue.Empty:
            raise JudgeFailed(f"{self.name} said nothing for {self.timeout_s:g} s") from None
        if message is None:
            raise JudgeFailed(f"{self.name} {self._end_of_output()}")
        return message

    def _end_of_output(self) -> str:
        """Tell why no more comes, with the program's last words."""
        said = self.log.read_text(errors="replace").strip()[-500:]
        try:
            return f"ended ({self.process.wait(self.timeout_s)}): {said}"
        except subprocess.TimeoutExpired:
            return f"runs, but closed its output: {said}"

    def _listen(self, output: IO[bytes]) -> None:
        """Put every message into the queue, and None when no more come."""
        length = 0
        with output:
            for line in output:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                elif not line.strip():
                    body = output.read(length)
                    if len(body) == length:
                        self.messages.put(json.loads(body))
        self.messages.put(None)

    def end(self) -> None:
        """Kill the program and what it started, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.listening.join()
        with contextlib.suppress(BrokenPipeError):
            self.to_process.close()


@contextlib.contextmanager
def running_process(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
) -> Iterator[JsonProcess]:
    """
    Start a program, lend it, and end it with all that it started.

    Args:
        name: what it is called in errors.
        command: the program and its arguments.
        folder: where it may write; its last words go there too.
        environment: beside PATH, HOME and TMPDIR.
        timeout_s: how long each answer may take.
    """
    log = folder / "log"
    own = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "TMPDIR": str(folder)}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**own, **environment},
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    program = JsonProcess(name, process, log, timeout_s)
    try:
        yield program
    finally:
        program.end()


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Lend a folder that is removed afterwards."""
    # What a program is still writing when it is killed may come between.
    with tempfile.TemporaryDirectory(prefix="storemirror-tsql-", ignore_cleanup_errors=True) as it:
        yield Path(it)
