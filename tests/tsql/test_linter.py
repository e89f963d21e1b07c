"""Each rule of the linter finds the fault that it is there for; what it does not know is listed."""

from __future__ import annotations

import configparser
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.tsql.environment import Tools
from tests.tsql.judge import Judge
from tests.tsql.linter import CONFIG, UNLINTED, running_linter, shape_of
from tests.tsql.process import JudgeFailed
from tests.tsql.script import Batch

#: A fault for each rule; Microsoft's parser takes all but one.
PLANTED: Final = {
    "AL02": "SELECT t.a b FROM dbo.t AS t;",
    "AL04": "SELECT x.a FROM dbo.t AS x, dbo.u AS x;",
    "AL05": "SELECT 1 AS a FROM dbo.t AS t WHERE EXISTS (SELECT 1 FROM dbo.u AS u WHERE t.a = 1);",
    "AL08": "SELECT t.a AS x, t.b AS x FROM dbo.t AS t;",
    "AL10": "SELECT a FROM (SELECT t.a FROM dbo.t AS t);",
    "AM04": "SELECT * INTO #x FROM dbo.t;",
    "AM07": "SELECT t.a FROM dbo.t AS t UNION ALL SELECT u.a, u.b FROM dbo.u AS u;",
    "CV05": "UPDATE dbo.t SET a = NULL WHERE b = NULL;",
    "RF01": "SELECT t.a FROM dbo.t AS t WHERE EXISTS (SELECT 1 FROM #s AS s WHERE s.k = z.k);",
    "RF02": "SELECT t.a FROM dbo.t AS t INNER JOIN dbo.u AS u ON u.a = t.a WHERE b = 1;",
    "RF04": "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION\nTHROW;",
    "ST03": "WITH a AS (SELECT 1 AS x) SELECT 1 AS y;",
    "ST08": "SELECT DISTINCT (t.a), t.b FROM dbo.t AS t;",
    "TQ04": "SELECT n = COUNT(*) FROM dbo.t;",
}


def test_each_rule_finds_its_fault(tsql_judge: Judge) -> None:
    """A rule that finds nothing costs time and trust."""
    lines = {rule: 10 * number for number, rule in enumerate(PLANTED, 1)}
    found = tsql_judge.linter.findings([Batch(lines[rule], text) for rule, text in PLANTED.items()])
    rules = {(finding.line // 10 * 10, finding.rule) for finding in found}
    assert {(line, rule) for rule, line in lines.items()} <= rules


def test_every_rule_has_a_fault() -> None:
    """Else nobody has seen it find one."""
    config = configparser.ConfigParser()
    config.read(CONFIG)
    assert config["sqlfluff"]["rules"].split(",") == list(PLANTED)


def test_a_batch_that_cannot_be_parsed_hides_no_other(tsql_judge: Judge) -> None:
    """The linter gives up the rest of a file at the first statement that it does not know."""
    batches = [Batch(1, "SELECT 1 AS a FROM;"), Batch(5, "SELECT 1 AS a\nWHERE 1 = NULL;")]
    found = tsql_judge.linter.findings(batches)
    assert [(finding.line, finding.rule) for finding in found] == [(1, ""), (6, "CV05")]
    assert found[0].message.startswith("Found unparsable section")


def test_a_long_batch_is_not_passed_over(tsql_judge: Judge) -> None:
    """By itself the linter leaves out files above 20,000 bytes, in silence."""
    text = "-- long\n" * 3_000 + "SELECT t.a FROM dbo.t AS t WHERE t.a = NULL;"
    assert [finding.line for finding in tsql_judge.linter.findings([Batch(1, text)])] == [3_001]


def test_a_linter_that_does_not_start_is_told(tsql_tools: Tools) -> None:
    """A Python without sqlfluff finds nothing, and that must not look like no mistakes."""
    broken = replace(tsql_tools, python=Path(sys.executable))
    batch = Batch(1, "SELECT 1 AS a;")
    with running_linter(broken) as linter, pytest.raises(JudgeFailed, match="No module named"):
        linter.findings([batch])


@pytest.mark.parametrize("path", sorted(UNLINTED.glob("*.sql")), ids=lambda path: path.stem)
def test_what_the_linter_does_not_know_is_t_sql(tsql_judge: Judge, path: Path) -> None:
    """When this fails, the linter has learnt it: the file can go."""
    batch = Batch(1, path.read_text())
    assert tsql_judge.parser.findings(batch.text) == []
    assert [one["code"] for one in tsql_judge.linter.violations(batch.text)] == ["PRS"]
    assert tsql_judge.linter.findings([batch]) == []


@pytest.mark.parametrize(
    "other",
    [
        "ALTER TABLE [dbo].[T] SET (LOCK_ESCALATION = AUTO);",
        "ALTER TABLE [dbo].[T] SET (LOCK_ESCALATION = DISABLE); SELECT 1;",
        "ALTER TABLE [dbo] SET (LOCK_ESCALATION = DISABLE);",
    ],
)
def test_nothing_else_is_left_out(tsql_judge: Judge, other: str) -> None:
    """What is left out is a statement, not whatever looks a little like it."""
    assert shape_of("ALTER TABLE [x].[y] SET (LOCK_ESCALATION = DISABLE)") != shape_of(other)
    assert tsql_judge.linter.findings([Batch(1, other)]) != []
