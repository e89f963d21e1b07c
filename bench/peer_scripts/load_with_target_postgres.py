"""
Load rows with Singer's target: `load_with_target_postgres.py ROWS.jsonl DSN`, from .venv-peers.

Prints one JSON line: seconds, and the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TABLE = "message"
SCHEMA = "peer"
_TEXT = {"type": ["string", "null"]}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_PROPERTIES: dict[str, Any] = {
    "conversation_id": {"type": "string"},
    "message_id": {"type": "string"},
    "row_state": _TEXT,
    "last_event_id": _TEXT,
    "last_event_time": _TIME,
    "last_event_version": {"type": "integer"},
    "last_event_digest": _TEXT,
    "sender_id": _TEXT,
    "body": _TEXT,
    "sent_at": _TIME,
    "edited_at": _TIME,
    "attachments": _TEXT,
}


def write_singer(source: Path, target: Path) -> None:
    """Write the rows as Singer messages."""
    schema = {
        "type": "SCHEMA",
        "stream": TABLE,
        "key_properties": ["conversation_id", "message_id"],
        "schema": {"type": "object", "properties": _PROPERTIES},
    }
    with source.open() as rows, target.open("w") as out:
        out.write(json.dumps(schema) + "\n")
        for line in rows:
            row = json.loads(line)
            row["attachments"] = json.dumps(row["attachments"]) if row["attachments"] else None
            out.write(json.dumps({"type": "RECORD", "stream": TABLE, "record": row}) + "\n")


def main() -> None:
    """Hand everything to the target's own command."""
    source, dsn = Path(sys.argv[1]), sys.argv[2]
    messages, config = source.with_name("singer.jsonl"), source.with_name("config.json")
    write_singer(source, messages)
    settings = {
        "sqlalchemy_url": dsn.replace("postgresql://", "postgresql+psycopg://", 1),
        "default_target_schema": SCHEMA,
        "add_record_metadata": False,
        "activate_version": False,
    }
    config.write_text(json.dumps(settings))
    command = Path(sys.executable).with_name("target-postgres")
    begun_s = time.monotonic()
    with messages.open("rb") as told:
        subprocess.run(  # noqa: S603 - the peer's own command
            [str(command), "--config", str(config)],
            stdin=told,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    print(json.dumps({"duration_s": time.monotonic() - begun_s, "table": f"{SCHEMA}.{TABLE}"}))


main()
