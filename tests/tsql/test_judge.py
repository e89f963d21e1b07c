"""What either judge finds in a deployment is told, with its line in the script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.rules import ROOT
from tests.tsql.environment import INSTALL_LINE, ToolMissing, Tools, found_tools
from tests.tsql.judge import Judge

DEPLOYMENT = """\
:on error exit
:setvar schema dbo
CREATE TABLE [$(schema)].[t] ([a] INT NOT NULL);
GO
CREATE OR ALTER PROCEDURE [$(schema)].[p] AS
BEGIN
    SELECT [a] FROM [$(schema)].[t];
END;
GO
IF 1 = 1
    EXEC (N'
ALTER TABLE [$(schema)].[t] SET (LOCK_ESCALATION = DISABLE)');
GO
"""


def run(*arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command that a person runs."""
    return subprocess.run(
        [sys.executable, "-m", "tests.tsql", *arguments],
        cwd=ROOT,
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_deployment_is_judged(tsql_judge: Judge) -> None:
    """Its commands and variables are sqlcmd's, and no mistakes."""
    assert tsql_judge.script(DEPLOYMENT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("[a] INT", "[a INT", 3),
        ("END;", "", 9),
        ("SELECT [a]", "SELECT [a],", 7),
        ("$(schema)].[p]", "$(schem)].[p]", 5),
        ("(LOCK_ESCALATION = DISABLE)", "(LOCK_ESCALATION DISABLE)", 12),
        ("IF 1 = 1", "IF @@ERROR = NULL", 10),
        (":on error exit", ":r other.sql", 1),
    ],
)
def test_a_mistake_is_found_in_its_line(
    tsql_judge: Judge, right: str, wrong: str, line: int
) -> None:
    """Whoever reads the finding has the script before them, not the batch."""
    assert right in DEPLOYMENT
    found = tsql_judge.script(DEPLOYMENT.replace(right, wrong))
    assert line in {finding.line for finding in found}, found


def test_batches_of_a_driver_are_judged(tsql_judge: Judge) -> None:
    """`storemirror schema apply` sends them without GO."""
    texts = ["SELECT 1 AS a;", "SELECT 1 AS a\nWHERE 1 = NULL;", "SELECT 1 AS a FROM;"]
    found = tsql_judge.batches(texts)
    assert [(finding.line, finding.rule) for finding in found if finding.rule] == [(4, "CV05")]
    assert {finding.line for finding in found if not finding.rule} == {6}


def test_the_command_prints_each_finding_with_its_place(tmp_path: Path, tsql_tools: Tools) -> None:
    """An editor jumps to `file:line:column`."""
    path = tmp_path / "wrong.sql"
    path.write_text("SELECT $(a) AS a;\nGO\nSELECT FROM x;\n")
    ended = run(str(path), "-v", "a=1")
    assert ended.returncode == 1, ended.stderr
    assert f"{path}:3:8: Incorrect syntax near 'FROM'. (parser)\n" in ended.stdout


def test_the_command_ends_with_0_when_nothing_is_wrong(tsql_tools: Tools) -> None:
    """Also of standard input; what was not judged is told beside."""
    ended = run("-", script=f"{DEPLOYMENT}DECLARE @a NVARCHAR(9) = N'PRINT 1';\nEXEC (@a);\n")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr == "-:15: put together while it runs: not judged\n"


def test_the_command_says_when_it_did_not_judge(tmp_path: Path, tsql_tools: Tools) -> None:
    """A file that is not there is not a file without mistakes."""
    ended = run(str(tmp_path / "none.sql"))
    assert ended.returncode == 2
    assert "none.sql" in ended.stderr


def test_what_is_missing_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    """It is what a skipped test says too."""
    with pytest.raises(ToolMissing, match=INSTALL_LINE):
        found_tools(tmp_path / ".venv-tsql")


def test_a_platform_without_the_parser_is_named(tmp_path: Path) -> None:
    """There the environment holds the linter alone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "storemirror-stamp").touch()
    with pytest.raises(ToolMissing, match="Linux on x86_64 alone"):
        found_tools(tmp_path)
