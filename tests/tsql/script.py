"""
A script for `sqlcmd`, as the server sees it: batches without `GO`, with variables filled in.

Pure.  `:setvar`, `:on error` and `GO` are done as sqlcmd does them; every other command of sqlcmd
is a finding, for what it would do is not done here.  As in sqlcmd, a command or `GO` counts only
where a line begins outside of strings, names and comments, and `$(name)` everywhere but in
comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_GO: Final = re.compile(r"\s*GO(?:\s+(?P<rest>.*\S))?\s*", re.IGNORECASE)
#: What sqlcmd takes as its own also without a colon.
_COMMAND: Final = re.compile(
    r"\s*(?:(?P<name>:\w*|:?!!)|(?P<bare>exit|quit|reset|ed|on\s+error)\b)(?P<rest>.*)",
    re.IGNORECASE,
)
_SETVAR: Final = re.compile(r'\s+(?P<name>[^\s"]+)(?:\s+(?P<value>"(?:[^"]|"")*"|[^\s"]\S*))?\s*')
_ON_ERROR: Final = re.compile(r"\s+(?:error\s+)?(?:exit|ignore)\s*", re.IGNORECASE)
#: Where the state changes, or a variable stands.
_MARK: Final = re.compile(r"--|/\*|\*/|['\"\[\]]|\$\((?P<variable>[^()\s]+)\)")
#: What opens a string or a name, and what closes it; doubled, it closes and opens at once.
_CLOSED_BY: Final = {"'": "'", '"': '"', "[": "]"}
#: A statement that is a string: the server runs it as a batch of its own.  Comments, strings and
#: names are matched too, so that none is looked for in them.
_RUN: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|N?'(?:[^']|'')*'|\[[^\]]*\]"
    r"|\b(?P<run>EXEC(?:UTE)?\s*(?:\(|\s(?:@\w+\s*=\s*)?(?:sys\.)?sp_executesql\b))"
    r"\s*(?:@stmt\s*=\s*)?(?:N?'(?P<text>(?:[^']|'')*+)'\s*+(?!\+))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake, and who found it."""

    #: Line and column, both from 1.  The column is that of the line with its variables filled in.
    line: int
    column: int
    message: str
    #: `sqlcmd`, `parser` or `linter`.
    found_by: str
    #: The linter's rule that is broken; "" of what is no T-SQL at all.
    rule: str = ""

    def __str__(self) -> str:
        """Give what stands after the file's name: line:column: message."""
        found_by = f"{self.found_by} {self.rule}".rstrip()
        return f"{self.line}:{self.column}: {self.message} ({found_by})"


@dataclass(frozen=True)
class Batch:
    """What is sent to the server at once."""

    #: The line of the script, from 1, that the text begins with.
    first_line: int
    text: str


@dataclass
class Reader:
    """Goes through a script line by line, as sqlcmd does."""

    variables: dict[str, str]
    batches: list[Batch] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    #: What closes the string or name that we are in; "*/" in a comment; "" in code.
    awaited: str = ""
    #: How many comments are open: they nest.
    depth: int = 0

    def note(self, line: int, column: int, message: str) -> None:
        """Keep a finding of our own."""
        self.findings.append(Finding(line, column, message, "sqlcmd"))

    def take(self, number: int, line: str) -> None:
        """Take one line: a separator, a command, or text of a batch."""
        if not self.awaited and (go := _GO.fullmatch(line)):
            if go["rest"] is not None and not go["rest"].isdigit():
                self.note(number, go.start("rest") + 1, "after GO stands a number or nothing")
            self.end_batch(number)
        elif not self.awaited and (command := _COMMAND.fullmatch(line)):
            self.obey(number, command)
            self.lines.append("")
        else:
            self.lines.append(self.filled_in(number, line))

    def end_batch(self, number: int) -> None:
        """Close the batch that ends before a line; one of white space alone is none."""
        text = "\n".join(self.lines)
        if text.strip():
            self.batches.append(Batch(number - len(self.lines), text))
        self.lines = []

    def obey(self, number: int, command: re.Match[str]) -> None:
        """Do a command of sqlcmd, or say that it is not done."""
        name = (command["name"] or command["bare"]).lower()
        rest = command["rest"]
        if name == ":setvar" and (setting := _SETVAR.fullmatch(rest)):
            value = setting["value"]
            if value is None:
                self.variables.pop(setting["name"].lower(), None)
            else:
                self.variables[setting["name"].lower()] = (
                    value[1:-1].replace('""', '"') if value[0] == '"' else value
                )
        elif not (name.startswith((":on", "on")) and _ON_ERROR.fullmatch(rest)):
            self.note(
                number, 1, f"a command of sqlcmd that is not understood: {command[0].strip()}"
            )

    def filled_in(self, number: int, line: str) -> str:
        """Give a line with its variables filled in, and follow strings, names and comments."""
        parts: list[str] = []
        end = 0
        for mark in _MARK.finditer(line):
            if mark.start() < end:
                continue
            if mark[0] == "--" and not self.awaited:
                break
            if mark["variable"] is None:
                self.follow(mark[0])
            elif self.awaited != "*/":
                parts += line[end : mark.start()], self.value_of(number, mark)
                end = mark.end()
        return "".join(parts) + line[end:]

    def value_of(self, number: int, mark: re.Match[str]) -> str:
        """Give a variable's value; its name when it has none, so that the rest can be judged."""
        value = self.variables.get(mark["variable"].lower())
        if value is None:
            self.note(number, mark.start() + 1, f"no :setvar gives {mark['variable']} a value")
            return mark["variable"]
        return value

    def follow(self, mark: str) -> None:
        """Note what a mark opens or closes."""
        if self.awaited == "*/":
            self.depth += {"/*": 1, "*/": -1}.get(mark, 0)
            self.awaited = "*/" if self.depth else ""
        elif self.awaited:
            self.awaited = "" if mark == self.awaited else self.awaited
        elif mark == "/*":
            self.awaited, self.depth = "*/", 1
        else:
            self.awaited = _CLOSED_BY.get(mark, "")

    def finish(self, number: int) -> None:
        """Close the last batch; nothing may be left open."""
        if self.awaited:
            self.note(number, 1, f"the script ends where {self.awaited} is awaited")
            self.lines[-1:] = [line + self.awaited * (self.depth or 1) for line in self.lines[-1:]]
        self.end_batch(number + 1)


@dataclass(frozen=True)
class Script:
    """A script as the server sees it."""

    batches: tuple[Batch, ...]
    findings: tuple[Finding, ...]


def read_script(text: str, variables: Mapping[str, str] | None = None) -> Script:
    r"""
    Split a script into its batches, as sqlcmd does.

    Args:
        text: the script.
        variables: what `sqlcmd -v` would give; `:setvar` in the script wins over it.

    >>> read_script(":setvar s dbo\nSELECT N'$(S)';\nGO\n").batches
    (Batch(first_line=1, text="\nSELECT N'dbo';"),)
    """
    given = {name.lower(): value for name, value in (variables or {}).items()}
    reader = Reader(given)
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        reader.take(number, line)
    reader.finish(len(lines))
    return Script(tuple(reader.batches), tuple(reader.findings))


def inner_batches(batch: Batch) -> Iterator[Batch]:
    """
    Give what a batch runs by `EXEC (N'...')` or `sp_executesql N'...'`, and what that runs.

    >>> [inner.text for inner in inner_batches(Batch(1, "EXEC (N'EXEC (N''SELECT 1'')')"))]
    ["EXEC (N'SELECT 1')", 'SELECT 1']
    """
    for run in _RUN.finditer(batch.text):
        if run["text"] is not None:
            inner = Batch(_line_of(batch, run.start("text")), run["text"].replace("''", "'"))
            yield inner
            yield from inner_batches(inner)


def unseen_lines(batch: Batch) -> Iterator[int]:
    r"""
    Give the lines on which a batch runs a statement that is put together only then.

    >>> list(unseen_lines(Batch(5, "SELECT 1;\nEXEC (@text); EXEC (N'DROP TABLE ' + @name);")))
    [6, 6]
    """
    for part in (batch, *inner_batches(batch)):
        for run in _RUN.finditer(part.text):
            if run["run"] is not None and run["text"] is None:
                yield _line_of(part, run.start())


def _line_of(batch: Batch, offset: int) -> int:
    """Give the line of the script that a place in a batch's text is on."""
    return batch.first_line + batch.text.count("\n", 0, offset)


def as_document(batches: Sequence[Batch]) -> str:
    """Give batches as one text with plain `GO` between them, each on the lines of its script."""
    return "\n".join(_document_lines(batches))


def _document_lines(batches: Sequence[Batch]) -> Iterator[str]:
    given = 0
    for batch in batches:
        blank = batch.first_line - 1 - given
        yield from [""] * blank
        yield batch.text
        yield "GO"
        given += blank + batch.text.count("\n") + 2
