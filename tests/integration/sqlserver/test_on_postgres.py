"""
The contract suite of the SQL stage through SQL Server's adapter, on a stand-in that runs T-SQL.

Every batch of the adapter, and every procedure, is run by PostgreSQL, statement by statement
(tests/standins/tsql).  What that cannot show is left out: locks between connections, the
catalogue, what SQL Server converts and compares otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storemirror.clock import SystemClock
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from tests.contract.sql import (
    test_batches,
    test_children,
    test_parents,
    test_purge,
    test_reads,
    test_rebase,
    test_refusals,
    test_unfit,
    test_unverified,
    test_user_reads,
)
from tests.contract.sql.documents import Documents
from tests.faults.sql import test_planted_faults
from tests.schedules import test_random
from tests.standins.tsql.installed import OnPostgres, new_on_postgres
from tests.support.databases import Databases

pytestmark = pytest.mark.postgres

HOUR_US = 3_600_000_000
SUITES = (
    test_batches,
    test_children,
    test_parents,
    test_purge,
    test_reads,
    test_rebase,
    test_refusals,
    test_unfit,
    test_unverified,
    test_user_reads,
    test_planted_faults,
    test_random,
)
#: What it cannot show: locks between connections, triggers, the catalogue, and a JSON column's
#: check of its contents, which PostgreSQL does by itself.  And other declarations.
LEFT_OUT = frozenset(
    {
        "test_a_purge_beside_a_writer_raises_the_horizon_and_removes_nothing",
        "test_a_purge_command_outlasts_a_writer",
        "test_closing_waits_for_the_batch_in_hand",
        "test_two_rebases_at_once_are_refused",
        "test_a_child_row_that_stays_the_same_is_not_written",
        "test_installing_again_keeps_every_mark",
        "test_a_database_that_is_not_there_is_told",
        "test_one_mark_stands_for_all_where_ids_may_be_too_long",
    }
)

for _suite in SUITES:
    for _name, _test in vars(_suite).items():
        if _name.startswith("test_") and callable(_test) and _name not in LEFT_OUT:
            globals()[_name] = _test


@pytest.fixture
def dialect() -> str:
    """Have what is planted planted in T-SQL."""
    return "sqlserver"


@pytest.fixture(scope="module")
def model() -> Model:
    """The built-in entities."""
    return load_model()


@pytest.fixture
def docs(model: Model, base_us: int) -> Documents:
    """Events of the built-in entities, an hour ago."""
    return Documents(model, base_us)


@pytest.fixture
def base_us() -> int:
    """An hour ago: events may lie after it, and not in the future."""
    return SystemClock().now_us() - HOUR_US


@pytest.fixture
def example_count() -> int:
    """How many random schedules are run: a statement that is rewritten takes a while."""
    return 8


@pytest.fixture
async def sql(model: Model, new_database: Databases) -> AsyncIterator[OnPostgres]:
    """The built-in entities, installed as `schema apply` does."""
    async with new_on_postgres(model, new_database) as made:
        yield made
