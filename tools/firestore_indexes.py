"""
Write deploy/firestore.indexes.json, or tell whether it is fresh.

usage: tools/firestore_indexes.py -r | --check      -r writes, as cog has it; ends with 1 when stale
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from storemirror.gateway.document_queries import all_queries
from storemirror.gateway.social import DirectMessages
from storemirror.model.load import load_model
from storemirror.source.firestore_indexes import composite_indexes

FILE = Path(__file__).parents[1] / "deploy" / "firestore.indexes.json"


def wanted() -> str:
    """Give the file for the built-in declarations."""
    indexes = composite_indexes(all_queries(DirectMessages.of(load_model())))
    return json.dumps({"indexes": indexes, "fieldOverrides": []}, indent=2) + "\n"


def main(mode: str) -> int:
    """Write or check the file, and give the exit status."""
    if mode == "-r":
        FILE.write_text(wanted(), encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == wanted():
        return 0
    sys.stderr.write(f"{FILE} is stale; run: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
