"""
Judge files of T-SQL: `python -m tests.tsql FILE ...`; `-` is standard input.

Prints `file:line:column: message (who found it)`, and on the standard error the statements that
nobody can judge before they run.  Ends with 1 when anything was found, with 2 when it failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.tsql.environment import ToolMissing, found_tools
from tests.tsql.judge import running_judge
from tests.tsql.process import JudgeFailed
from tests.tsql.script import read_script, unseen_lines


def main() -> int:
    """Judge what the command line names, and give the exit status."""
    parser = argparse.ArgumentParser(prog="tests.tsql", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("-v", metavar="NAME=VALUE", action="append", default=[], dest="variables")
    options = parser.parse_args()
    variables = dict(setting.split("=", 1) for setting in options.variables)
    texts = {name: text_of(name) for name in options.files}
    is_clean = True
    with running_judge(found_tools()) as judge:
        for name, text in texts.items():
            for finding in judge.script(text, variables):
                is_clean = False
                sys.stdout.write(f"{name}:{finding}\n")
            for line in unseen(text):
                sys.stderr.write(f"{name}:{line}: put together while it runs: not judged\n")
    return 0 if is_clean else 1


def unseen(text: str) -> list[int]:
    """Give the lines of a script that run what nobody can judge before."""
    return [line for batch in read_script(text).batches for line in unseen_lines(batch)]


def text_of(name: str) -> str:
    """Read a file; sqlcmd takes one with a byte order mark too."""
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ToolMissing, JudgeFailed, OSError) as error:
        sys.stderr.write(f"not judged: {error}\n")
        sys.exit(2)
