"""Microsoft's parser says what is wrong and where, or that it did not judge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from storemirror.clock import wait_until
from tests.house.rules import ROOT
from tests.tsql.environment import Tools
from tests.tsql.judge import Judge
from tests.tsql.parser import running_parser
from tests.tsql.process import JudgeFailed

#: A process that starts a parser, and is killed.
KILLED: Final = """
import os, signal
from tests.tsql.environment import found_tools
from tests.tsql.parser import running_parser
with running_parser(found_tools()) as parser:
    print(parser.process.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for yet has."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def program(folder: Path, text: str) -> Path:
    """Write a program that stands where the service should."""
    path = folder / "service"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_mistake_is_found_with_line_and_column(tsql_judge: Judge) -> None:
    """Whoever mends it must not search."""
    (finding,) = tsql_judge.parser.findings("SELECT 1;\nGO\nSELECT\n  1 FROM;\n")
    assert (finding.line, finding.column, finding.found_by) == (4, 9, "parser")
    assert "';'" in finding.message


def test_mistakes_of_all_batches_are_found(tsql_judge: Judge) -> None:
    """One run tells all, not the first."""
    text = "SELECT 1 FROM;\nGO\nSELECT 2;\nGO\nCREATE PROCEDURE p AS BEGIN SELECT 3;\nGO\n"
    assert sorted({finding.line for finding in tsql_judge.parser.findings(text)}) == [1, 6]


def test_what_is_right_has_no_findings(tsql_judge: Judge) -> None:
    """The mistake that is planted behind every text is not told."""
    assert tsql_judge.parser.findings("SELECT 1;") == []
    assert tsql_judge.parser.findings("") == []


def test_a_long_text_is_judged_to_its_end(tsql_judge: Judge) -> None:
    """A deployment is thousands of lines."""
    text = "SELECT N'é', 1;\nGO\n" * 5_000 + "SELECT 1 FROM;\n"
    assert [finding.line for finding in tsql_judge.parser.findings(text)] == [10_001]


def test_a_text_that_is_passed_over_is_not_judged_clean(tsql_judge: Judge) -> None:
    """The parser is silent about a comment that nobody closes, and about all that follows."""
    with pytest.raises(JudgeFailed, match="passed over"):
        tsql_judge.parser.findings("SELECT 1;\nGO\n/* open\nGO\nSELECT 1 FROM;\n")


def test_the_next_text_is_judged_after_one_that_was_not(tsql_judge: Judge) -> None:
    """The process is one for all."""
    with pytest.raises(JudgeFailed):
        tsql_judge.parser.findings("/*")
    assert tsql_judge.parser.findings("SELECT 1;") == []


def test_a_parser_that_ended_is_told_with_its_last_words(tsql_tools: Tools, tmp_path: Path) -> None:
    """No findings because nobody answers would look like no mistakes."""
    broken = replace(tsql_tools, service=program(tmp_path, "echo no libssl >&2; exit 3"))
    with pytest.raises(JudgeFailed, match=r"ended \(3\): no libssl"), running_parser(broken):
        raise AssertionError("it started")


def test_a_parser_that_is_killed_is_told(tsql_tools: Tools) -> None:
    """The machine may need its memory for something else."""
    with running_parser(tsql_tools) as parser:
        os.killpg(parser.process.process.pid, signal.SIGKILL)
        with pytest.raises(JudgeFailed, match=r"ended \(-9\)"):
            parser.findings("SELECT 1;")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("while read -r line; do :; done", "said nothing"),
        ("exec cat >/dev/null", "closed its output"),
    ],
)
def test_a_parser_that_says_nothing_is_not_waited_for_for_ever(
    tsql_tools: Tools, tmp_path: Path, text: str, told: str
) -> None:
    """A run must end, and say why."""
    silent = replace(tsql_tools, service=program(tmp_path, text))
    with pytest.raises(JudgeFailed, match=told), running_parser(silent, timeout_s=0.1):
        raise AssertionError("it started")


def test_the_process_ends_with_its_use(tsql_tools: Tools) -> None:
    """It would keep 70 MB for ever: closing its input does not end it."""
    with running_parser(tsql_tools) as parser:
        pid = parser.process.process.pid
        assert not is_gone(pid)
    assert is_gone(pid)


@pytest.mark.usefixtures("tsql_tools")
def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """Also when that one was killed."""
    run = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=ROOT,
        # What a killed process leaves behind goes with the test.
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    wait_until(lambda: is_gone(int(run.stdout)), 60.0)
    assert is_gone(int(run.stdout))
