"""A pytest plugin: `--soak` lets the tests of faults go on for long, as `make soak` does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Scale:
    """How much a test does of what it does at random."""

    is_soaking: bool

    def of(self, usual: int, *, soaking: int) -> int:
        """Give a count: the one of `make test`, or that of `make soak`."""
        return soaking if self.is_soaking else usual


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--soak`."""
    parser.addoption("--soak", action="store_true", help="many more rounds of random faults")


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """How much to do."""
    return Scale(is_soaking=bool(pytestconfig.getoption("--soak")))
