"""A pytest plugin: a judge of T-SQL a test process; without one its tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tsql.environment import ToolMissing, Tools, found_tools
from tests.tsql.judge import Judge, running_judge


@pytest.fixture(scope="session")
def tsql_tools() -> Tools:
    """Where parser and linter are."""
    try:
        return found_tools()
    except ToolMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tsql_judge(tsql_tools: Tools) -> Iterator[Judge]:
    """Lend Microsoft's parser and the linter; the parser's process ends with the tests."""
    with running_judge(tsql_tools) as judge:
        yield judge
