"""
Load rows into PostgreSQL with dlt: `load_with_dlt.py ROWS.jsonl DSN`, by Python of .venv-peers.

Prints one JSON line: seconds, and the table.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.pop(0)

import dlt

TABLE = "message"
DATASET = "peer"


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows; attachments as text, else dlt makes a table of its own for them."""
    with path.open() as file:
        for line in file:
            row = json.loads(line)
            row["attachments"] = json.dumps(row["attachments"]) if row["attachments"] else None
            yield row


def main() -> None:
    """Merge everything by key, the highest version of a load first."""
    path, dsn = Path(sys.argv[1]), sys.argv[2]
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(path.parent / "dlt"),
        destination=dlt.destinations.postgres(dsn),
        dataset_name=DATASET,
    )
    resource = dlt.resource(
        rows(path),
        name=TABLE,
        primary_key=("conversation_id", "message_id"),
        write_disposition="merge",
        columns={"last_event_version": {"dedup_sort": "desc"}},
    )
    begun_s = time.monotonic()
    pipeline.run(resource)
    print(json.dumps({"duration_s": time.monotonic() - begun_s, "table": f"{DATASET}.{TABLE}"}))


main()
