"""
Microsoft's parser of T-SQL: one process of SqlToolsService, spoken to by JSON-RPC.

It is a language server for editors: a text is opened, and about 0.75 s later, a delay it has for
people who type, its errors come.  So one text with many batches costs as much as one with one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.tsql.environment import Tools
from tests.tsql.process import TIMEOUT_S, JsonProcess, JudgeFailed, own_folder, running_process
from tests.tsql.script import Finding

#: Always a mistake.  The parser gives no findings for a text that it failed to judge, and for what
#: stands after a comment that nobody closes; where this is not found, nothing was judged.
_CANARY: Final = ")"


class SqlParser:
    """A running parser.  One text at a time: a second would cancel the first."""

    def __init__(self, process: JsonProcess) -> None:
        """Take a process that was just started, and wait until it answers."""
        self.process = process
        self.numbers = itertools.count(1)
        params: dict[str, Any] = {"processId": os.getpid(), "rootUri": None, "capabilities": {}}
        process.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        process.receive()

    def findings(self, text: str) -> list[Finding]:
        """
        Parse a text of batches with `GO` between them, and give all its errors.

        Raises:
            JudgeFailed: the text was not judged.
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
                " ".join(entry["message"].split()),
                "parser",
            )
            for entry in self._diagnostics(uri)
        ]
        self._notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        if not found:
            raise JudgeFailed("Microsoft's parser passed over a text: it missed a planted mistake")
        return [finding for finding in found if finding.line != canary_line]

    def _diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Wait for what the service says of one text."""
        while True:
            message = self.process.receive()
            params = message.get("params") or {}
            is_of_text = params.get("uri") == uri
            if is_of_text and message.get("method") == "textDocument/publishDiagnostics":
                return list(params["diagnostics"])

    def _notify(self, method: str, params: dict[str, object]) -> None:
        self.process.send({"jsonrpc": "2.0", "method": method, "params": params})


@contextlib.contextmanager
def running_parser(tools: Tools, timeout_s: float = TIMEOUT_S) -> Iterator[SqlParser]:
    """
    Start the parser, lend it, and end its process.

    Raises:
        JudgeFailed: it did not start.
    """
    with own_folder() as folder:
        environment = dotnet_environment(tools, folder)
        name = "Microsoft's parser"
        with running_process(name, [tools.service], folder, environment, timeout_s) as process:
            yield SqlParser(process)


def dotnet_environment(tools: Tools, folder: Path) -> dict[str, str]:
    """Let .NET find an OpenSSL 1.1 by the name it looks for, and need no ICU."""
    for library in ("libssl", "libcrypto"):
        (file,) = tools.libraries.glob(f"{library}-*.so.1.1*")
        (folder / f"{library}.so.1.1").symlink_to(file)
    return {
        "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
        "COMPlus_EnableDiagnostics": "0",
        "LD_LIBRARY_PATH": f"{folder}:{tools.libraries}",
    }
