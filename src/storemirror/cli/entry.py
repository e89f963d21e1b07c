"""Where the command `storemirror` begins: Ctrl-C is heard while the modules still load."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line, run it, and end the process with its status."""
    try:
        from storemirror.cli.main import main as run_main  # noqa: PLC0415 - the loading is the point

        run_main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)  # noqa: T201 - the command line speaks
        sys.exit(130)
