"""
Write docs/reference/event.schema.json, or tell whether it is fresh.

usage: tools/event_schema.py -r | --check      -r writes, as cog has it; ends with 1 when stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from reference import event_schema

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "event.schema.json"


def main(mode: str) -> int:
    """Write or check the page, and give the exit status."""
    wanted = event_schema()
    if mode == "-r":
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
        return 0
    sys.stderr.write(f"{PAGE} is stale; run: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
