"""Both judges together: what either of them finds is a finding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.tsql.environment import Tools
from tests.tsql.linter import Linter, running_linter
from tests.tsql.parser import SqlParser, running_parser
from tests.tsql.script import Batch, Finding, as_document, inner_batches, read_script


@dataclass(frozen=True)
class Judge:
    """Tells what is wrong with T-SQL."""

    parser: SqlParser
    linter: Linter

    def script(self, text: str, variables: Mapping[str, str] | None = None) -> list[Finding]:
        """
        Judge a script for sqlcmd.

        Args:
            text: the script.
            variables: what `sqlcmd -v` would give.

        Raises:
            JudgeFailed: it was not judged.
        """
        script = read_script(text, variables)
        return sorted([*script.findings, *self._found_in(script.batches)])

    def batches(self, texts: Sequence[str]) -> list[Finding]:
        """Judge batches as a driver sends them; lines are those of the texts, joined by `GO`."""
        placed: list[Batch] = []
        for text in texts:
            first_line = placed[-1].first_line + placed[-1].text.count("\n") + 2 if placed else 1
            placed.append(Batch(first_line, text))
        return sorted(self._found_in(placed))

    def _found_in(self, batches: Sequence[Batch]) -> Iterator[Finding]:
        """Judge batches that have lines of their own, and what they run from strings."""
        yield from self.parser.findings(as_document(batches))
        inner = [found for batch in batches for found in inner_batches(batch)]
        yield from self.linter.findings([*batches, *inner])
        if inner:
            yield from self._parsed_alone(inner)

    def _parsed_alone(self, batches: Sequence[Batch]) -> Iterator[Finding]:
        """Parse batches that share lines with others: one after the other, then put in place."""
        placed, first_lines = [], [1]
        for batch in batches:
            placed.append(replace(batch, first_line=first_lines[-1]))
            first_lines.append(first_lines[-1] + batch.text.count("\n") + 2)
        for finding in self.parser.findings(as_document(placed)):
            number = sum(first <= finding.line for first in first_lines[1:-1])
            line = finding.line - first_lines[number] + batches[number].first_line
            yield replace(finding, line=line)


@contextlib.contextmanager
def running_judge(tools: Tools) -> Iterator[Judge]:
    """
    Start parser and linter, and lend a judge.

    Raises:
        JudgeFailed: the parser did not start.
    """
    with running_parser(tools) as parser, running_linter(tools) as linter:
        yield Judge(parser, linter)
