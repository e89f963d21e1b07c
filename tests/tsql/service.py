"""
Microsoft's parser of T-SQL: one process of SqlToolsService, spoken to by JSON-RPC on its pipes.

It is a language server for editors: a text is opened, and about 0.75 s later, a delay it has for
people who type, its errors come.  So one text with many batches costs as much as one with one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from tests.tsql.environment import Tools
from tests.tsql.script import Finding

START_TIMEOUT_S: Final = 60.0
#: For one text, however long; 8,600 lines took 2.2 s.
PARSE_TIMEOUT_S: Final = 120.0
#: Always a mistake.  The parser gives no findings for a text that it failed to judge, and for what
#: stands after a comment that nobody closes; where this is not found, nothing was judged.
_CANARY: Final = ")"


class ParserFailed(Exception):
    """The parser did not judge a text: it ended, did not answer in time, or passed over it."""


class SqlParser:
    """A running parser.  One text at a time: a second would cancel the first."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Take a process that was just started."""
        self.process = process
        self.log = log
        self.numbers = itertools.count(1)
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert process.stdin is not None
        assert process.stdout is not None
        self.to_service: IO[bytes] = process.stdin
        threading.Thread(target=self._listen, args=[process.stdout], daemon=True).start()

    def initialize(self) -> None:
        """Wait until the service answers."""
        params: dict[str, Any] = {"processId": os.getpid(), "rootUri": None, "capabilities": {}}
        self._send({"id": 1, "method": "initialize", "params": params})
        self._next(START_TIMEOUT_S)

    def findings(self, text: str) -> list[Finding]:
        """
        Parse a text of batches with `GO` between them, and give all its errors.

        Raises:
            ParserFailed: the text was not judged.
        """
        uri = f"file:///text-{next(self.numbers)}.sql"
        document = f"{text}\nGO\n{_CANARY}\n"
        canary_line = document.count("\n")
        opened = {"uri": uri, "languageId": "SQL", "version": 1, "text": document}
        self._notify("textDocument/didOpen", {"textDocument": opened})
        found = [
            Finding(
                entry["range"]["start"]["line"] + 1,
                entry["range"]["start"]["character"] + 1,
                entry["message"],
                "parser",
            )
            for entry in self._diagnostics(uri)
        ]
        self._notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        kept = [finding for finding in found if finding.line != canary_line]
        if not found:
            raise ParserFailed("Microsoft's parser passed over a text: it missed a planted mistake")
        return kept

    def _diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Wait for what the service says of one text."""
        while True:
            message = self._next(PARSE_TIMEOUT_S)
            params = message.get("params") or {}
            is_of_text = params.get("uri") == uri
            if is_of_text and message.get("method") == "textDocument/publishDiagnostics":
                return list(params["diagnostics"])

    def _next(self, timeout_s: float) -> dict[str, Any]:
        try:
            message = self.messages.get(timeout=timeout_s)
        except queue.Empty:
            raise ParserFailed(f"Microsoft's parser said nothing for {timeout_s:.0f} s") from None
        if message is None:
            said = self.log.read_text(errors="replace").strip()[-500:]
            raise ParserFailed(f"Microsoft's parser ended ({self.process.wait()}): {said}")
        return message

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        # A service that is gone is reported by `_next`, with its last words.
        with contextlib.suppress(BrokenPipeError):
            self.to_service.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            self.to_service.flush()

    def _listen(self, output: IO[bytes]) -> None:
        """Put every message into the queue, and None when no more come."""
        with contextlib.suppress(ValueError):  # the pipe was closed under us
            while headers := list(iter(output.readline, b"\r\n")):
                if headers[-1] == b"":
                    break
                named = dict(line.decode().lower().split(":", 1) for line in headers)
                self.messages.put(json.loads(output.read(int(named["content-length"]))))
        self.messages.put(None)


@contextlib.contextmanager
def running_parser(tools: Tools) -> Iterator[SqlParser]:
    """
    Start the parser, lend it, and end its process.

    Raises:
        ParserFailed: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="storemirror-tsql-") as name:
        folder = Path(name)
        log = folder / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [tools.service],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(tools, folder),
                start_new_session=True,
            )
        try:
            parser = SqlParser(process, log)
            parser.initialize()
            yield parser
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(tools: Tools, folder: Path) -> dict[str, str]:
    """Let .NET find an OpenSSL 1.1 by the name it looks for, need no ICU, and write here alone."""
    for library in ("libssl", "libcrypto"):
        (folder / f"{library}.so.1.1").symlink_to(
            next(tools.libraries.glob(f"{library}-*.so.1.1*"))
        )
    return {
        "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
        "COMPlus_EnableDiagnostics": "0",
        "LD_LIBRARY_PATH": f"{folder}:{tools.libraries}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PATH": os.environ.get("PATH", ""),
    }
