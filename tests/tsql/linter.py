"""
sqlfluff, run over batches: a second opinion on what can be parsed, and rules that find faults.

It does not know all of T-SQL.  What it rejects wrongly, and we need, lies in `unlinted/`, one
statement a file: a batch that is such a statement, but for its names, strings and numbers, is left
to Microsoft's parser.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.tsql.environment import ROOT, Tools
from tests.tsql.process import TIMEOUT_S, JsonProcess, own_folder, running_process
from tests.tsql.script import Batch, Finding

CONFIG: Final = Path(__file__).with_name("sqlfluff.cfg")
UNLINTED: Final = Path(__file__).with_name("unlinted")
SERVER: Final = ROOT / "tools" / "lint_tsql.py"
#: What sqlfluff calls its not being able to parse.
_UNPARSED: Final = "PRS"
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING: Final = re.compile(r"N?'(?:[^']|'')*'", re.IGNORECASE)
_NAME: Final = re.compile(r"\[(?:[^\]]|\]\])*\]")


def shape_of(text: str) -> str:
    """
    Give a statement without comments, and without what its names, strings and numbers say.

    >>> shape_of("ALTER TABLE [dbo].[T]  SET (A = 'x');  -- why")
    "ALTER TABLE [].[] SET (A = '')"
    """
    shape = _COMMENT.sub("", _NAME.sub("[]", _STRING.sub("''", text)))
    return " ".join(re.sub(r"\b\d+\b", "0", shape).split()).rstrip("; ").upper()


def unlinted_shapes(folder: Path = UNLINTED) -> set[str]:
    """Give the statements that the linter is known not to know."""
    return {shape_of(path.read_text()) for path in folder.glob("*.sql")}


class Linter:
    """A running linter."""

    def __init__(self, process: JsonProcess) -> None:
        """Take a process that was just started."""
        self.process = process
        self.unlinted = unlinted_shapes()

    def findings(self, batches: Sequence[Batch]) -> list[Finding]:
        """
        Give what sqlfluff finds, batch by batch: what it cannot parse in one hides no other.

        Raises:
            JudgeFailed: it ended, or is not done in time.
        """
        judged = [batch for batch in batches if shape_of(batch.text) not in self.unlinted]
        return [
            Finding(
                batch.first_line + violation["start_line_no"] - 1,
                violation["start_line_pos"],
                said_in(violation),
                "linter",
                rule="" if violation["code"] == _UNPARSED else violation["code"],
            )
            for batch in judged
            for violation in self.violations(batch.text)
        ]

    def violations(self, text: str) -> list[dict[str, Any]]:
        """Give what is wrong with a batch, in sqlfluff's own words."""
        self.process.send({"text": f"{text}\n"})
        return list(self.process.receive()["violations"])


def said_in(violation: Mapping[str, Any]) -> str:
    """Give a violation's text in one line, without the place that it begins with."""
    place = "Line {start_line_no}, Position {start_line_pos}: ".format_map(violation)
    return " ".join(violation["description"].removeprefix(place).split())


@contextlib.contextmanager
def running_linter(tools: Tools, timeout_s: float = TIMEOUT_S) -> Iterator[Linter]:
    """Start the linter, lend it, and end its process."""
    with own_folder() as folder:
        command = [tools.python, SERVER, CONFIG]
        with running_process("sqlfluff", command, folder, {}, timeout_s) as process:
            yield Linter(process)
