"""
Judge files of T-SQL: `python -m tests.tsql FILE ...`; `-` is standard input.

Prints `file:line:column: message (who found it)`, and ends with 1 when anything was found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.tsql.environment import ToolMissing
from tests.tsql.judge import running_judge
from tests.tsql.linter import LinterFailed
from tests.tsql.service import ParserFailed


def main() -> int:
    """Judge what the command line names, and give the exit status."""
    parser = argparse.ArgumentParser(prog="tests.tsql", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("-v", metavar="NAME=VALUE", action="append", default=[], dest="variables")
    options = parser.parse_args()
    variables = dict(setting.split("=", 1) for setting in options.variables)
    is_clean = True
    with running_judge() as judge:
        for name in options.files:
            text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
            for finding in judge.script(text, variables):
                is_clean = False
                sys.stdout.write(f"{name}:{finding}\n")
    return 0 if is_clean else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ToolMissing, ParserFailed, LinterFailed) as error:
        sys.exit(f"not judged: {error}")
