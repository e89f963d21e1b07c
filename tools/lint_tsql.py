"""
Lint texts for another process: run by the Python of `.venv-tsql`, which has sqlfluff.

usage: tools/lint_tsql.py CONFIG      {"text": ...} is answered by {"violations": [...]}, framed
                                      as tests/tsql/process.py says

One process for all texts: to start sqlfluff takes longer than to lint a procedure.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sqlfluff.core import FluffConfig, Linter


def serve(config_path: str) -> None:
    """Answer until the input ends."""
    # Whatever lies in the folders above is not asked.
    config = FluffConfig.from_path(".", extra_config_path=config_path, ignore_local_config=True)
    linter = Linter(config=config)
    while (request := read_frame()) is not None:
        linted = linter.lint_string(request["text"])
        violations = [violation.to_dict() for violation in linted.get_violations()]
        body = json.dumps({"violations": violations}).encode()
        sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        sys.stdout.buffer.flush()


def read_frame() -> dict[str, Any] | None:
    """Give the next request; None when no more come."""
    header = sys.stdin.buffer.readline()
    if not header:
        return None
    sys.stdin.buffer.readline()
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read(int(header.split(b":")[1])))
    return request


if __name__ == "__main__":
    serve(sys.argv[1])
