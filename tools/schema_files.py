"""
Write the schemas of docs/reference, or tell whether they are fresh.

usage: tools/schema_files.py -r | --check      -r writes, as cog has it; ends with 1 when stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from callables_reference import openapi_text
from reference import event_schema

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "reference"
FILES: Final = {
    REFERENCE / "event.schema.json": event_schema,
    REFERENCE / "callables.openapi.json": openapi_text,
}


def main(mode: str) -> int:
    """Write or check the files, and give the exit status."""
    stale = 0
    for file, text in FILES.items():
        wanted = text()
        if mode == "-r":
            file.write_text(wanted, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != wanted:
            sys.stderr.write(f"{file} is stale; run: make docs\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
