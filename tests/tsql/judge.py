"""Both judges together: what either of them finds is a finding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.tsql.environment import Tools, found_tools
from tests.tsql.linter import lint
from tests.tsql.script import Batch, Finding, as_document, read_script
from tests.tsql.service import SqlParser, running_parser


@dataclass(frozen=True)
class Judge:
    """Tells what is wrong with T-SQL."""

    parser: SqlParser
    tools: Tools

    def script(self, text: str, variables: Mapping[str, str] | None = None) -> list[Finding]:
        """Judge a script for sqlcmd; lines are those of the script."""
        script = read_script(text, variables)
        found = [*script.findings, *self.parser.findings(as_document(script.batches))]
        return sorted([*found, *lint(script.batches, self.tools)])

    def batches(self, texts: Sequence[str]) -> list[Finding]:
        """Judge batches as a driver sends them; lines are those of the texts, joined by `GO`."""
        placed, line = [], 1
        for text in texts:
            placed.append(Batch(line, text))
            line += text.count("\n") + 2
        batches = tuple(placed)
        return sorted([*self.parser.findings(as_document(batches)), *lint(batches, self.tools)])


@contextlib.contextmanager
def running_judge() -> Iterator[Judge]:
    """
    Start the parser, and lend a judge.

    Raises:
        ToolMissing: parser or linter is not there.
        ParserFailed: the parser did not start.
    """
    tools = found_tools()
    with running_parser(tools) as parser:
        yield Judge(parser, tools)
