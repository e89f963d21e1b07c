"""Takes a batch of T-SQL apart into statements, and what decides over them.  Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: A string, a comment, a quoted name, a word, space, or one character.
_TOKEN: Final = re.compile(r"N?'(?:[^']|'')*'|--[^\n]*|\[[^\]]*\]|[@#\w$]+|\s+|.", re.DOTALL)
#: Words that a statement begins with, so that a condition ends before them.
_BEGINS: Final = frozenset(
    {
        *("BEGIN", "COMMIT", "ROLLBACK", "THROW", "IF", "WHILE", "DECLARE", "SET", "EXEC"),
        *("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP"),
    }
)


@dataclass(frozen=True)
class Plain:
    """One statement without its semicolon."""

    text: str


@dataclass(frozen=True)
class Block:
    """Statements one after the other; of TRY and CATCH those of TRY."""

    body: tuple[Node, ...]


@dataclass(frozen=True)
class If:
    """One statement or the other."""

    condition: str
    then: Node
    otherwise: Node | None


@dataclass(frozen=True)
class While:
    """One statement again and again."""

    condition: str
    body: Node


Node = Plain | Block | If | While


def tokens_of(text: str) -> list[str]:
    """Give the tokens of a text, without its comments."""
    return [token for token in _TOKEN.findall(text) if not token.startswith("--")]


@functools.lru_cache(maxsize=1_024)
def statements_of(text: str) -> tuple[Node, ...]:
    """Read a batch.  Kept, since one text is installed by many tests."""
    reader = _Reader(tokens_of(text))
    found = []
    while reader.peek() != "":
        found.append(reader.node())
    return tuple(found)


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self, skip: int = 0) -> str:
        """Give the next word in capitals; empty at the end."""
        words = (t for t in self._tokens[self._at :] if not t.isspace())
        for _ in range(skip):
            next(words, "")
        return next(words, "").upper()

    def take(self, *words: str) -> None:
        """Pass over words that must be there."""
        for word in words:
            while self._tokens[self._at].isspace():
                self._at += 1
            found = self._tokens[self._at].upper()
            assert found == word, f"{word} was expected, and {found} is there"
            self._at += 1

    def until(self, ends: Callable[[str], bool]) -> str:
        """Take everything up to a token outside parentheses."""
        depth, begin = 0, self._at
        while depth or not ends(self._tokens[self._at].upper()):
            depth += {"(": 1, ")": -1}.get(self._tokens[self._at], 0)
            self._at += 1
        return "".join(self._tokens[begin : self._at]).strip()

    def node(self) -> Node:
        """Take one statement."""
        word, following = self.peek(), self.peek(1)
        if word == "BEGIN" and following == "TRY":
            return self._tried()
        if word == "BEGIN" and following != "TRANSACTION":
            self.take("BEGIN")
            return Block(self._body())
        if word in ("IF", "WHILE"):
            return self._conditional(word)
        text = self.until(lambda token: token == ";")
        self.take(";")
        return Plain(text)

    def _tried(self) -> Node:
        self.take("BEGIN", "TRY")
        tried = Block(self._body("TRY"))
        self.take("BEGIN", "CATCH")
        self._body("CATCH")
        return tried

    def _body(self, word: str = "") -> tuple[Node, ...]:
        found = []
        while self.peek() != "END":
            found.append(self.node())
        self.take("END")
        if word:
            self.take(word)
        if self.peek() == ";":
            self.take(";")
        return tuple(found)

    def _conditional(self, word: str) -> Node:
        self.take(word)
        condition = self.until(lambda token: token in _BEGINS)
        then = self.node()
        if word == "WHILE":
            return While(condition, then)
        if self.peek() != "ELSE":
            return If(condition, then, None)
        self.take("ELSE")
        return If(condition, then, self.node())
