"""
The peers: what a Python team would reach for, each in an environment of its own.

Both get the same documents as the others, as plain rows, in the order of arrival; neither knows of
versions, so that what they hold in the end is only counted, not compared.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench.databases import BenchServer
from bench.upserts import row_of
from bench.workload import Workload
from storemirror.errors import StoreMirrorError
from storemirror.sql.postgres.connection import MIRROR, Database, sql

_SCRIPTS: Final = Path(__file__).parent / "peer_scripts"
PEERS: Final = ("dlt", "target_postgres")


class PeerFailed(StoreMirrorError):
    """A peer ended with an error, or left out documents."""


async def measure_peers(server: BenchServer, workload: Workload, python: str) -> dict[str, float]:
    """
    Let each peer load the workload, and give events a second.

    Raises:
        PeerFailed: with the end of what it said.
    """
    found = {}
    for peer in PEERS:
        name = await server.create_database()
        try:
            found[peer] = await _measured(server.server.dsn(name), workload, python, peer)
        finally:
            await server.drop_database(name)
    return found


async def _measured(dsn: str, workload: Workload, python: str, peer: str) -> float:
    with tempfile.TemporaryDirectory(prefix="storemirror-peer-") as folder:
        rows = Path(folder) / "rows.jsonl"
        with rows.open("wb") as file:
            for event in workload.events:
                file.write(msgspec.json.encode(row_of(event)) + b"\n")
        process = await asyncio.create_subprocess_exec(
            python,
            str(_SCRIPTS / f"load_with_{peer}.py"),
            str(rows),
            dsn,
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, words = await process.communicate()
    if process.returncode != 0:
        raise PeerFailed(f"{peer} ended with {process.returncode}: {words.decode()[-2_000:]}")
    result = json.loads(printed.splitlines()[-1])
    await _refuse_missing(dsn, str(result["table"]), len(workload.newest()), peer)
    return len(workload.events) / float(result["duration_s"])


async def _refuse_missing(dsn: str, table: str, expected: int, peer: str) -> None:
    """See that every document has a row."""
    database = Database(dsn, MIRROR, max_size=1)
    await database.open()
    try:
        schema, _, name = table.partition(".")
        [(rows,)] = await database.fetch(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
        )
    finally:
        await database.aclose()
    if int(rows) != expected:
        raise PeerFailed(f"{peer} left {rows} rows of {expected} documents")
