"""
The least that a server over HTTP costs: the bare query, and its rows as JSON.

On the gateway's own server and loop, in a process of its own, called as the gateway is.  Without
callers' identity, rights, rates, routing and shapes: what the gateway takes beyond this is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import typer
from starlette.types import Receive, Scope, Send

from bench.databases import SCHEMA
from bench.gateway import PAGE, Answer, Call, GatewayContestant, GatewayWorld, Opened
from bench.gateway_readers import bare_rows
from bench.gateway_workload import Ask
from bench.http_client import HttpClient, connected, post
from bench.served import served
from bench.verify import ResultsWrong
from storemirror import loop
from storemirror.collector import calm_collector
from storemirror.model.load import load_model
from storemirror.serving import body_of, serve
from storemirror.sql.postgres.connection import Database
from storemirror.sql.postgres.reads import PostgresReads, ReadStatements, reading_database
from storemirror.sql.postgres.rendering import Rendering

_BODY_MAX_BYTES = 65_536


class _Question(msgspec.Struct):
    """One call, as it is posted."""

    call: Call
    ask: Ask


def bare_http(rate_per_s: float) -> GatewayContestant:
    """Give one process that serves the bare queries over HTTP."""

    @contextlib.asynccontextmanager
    async def opened(world: GatewayWorld) -> AsyncIterator[Opened]:
        with tempfile.TemporaryDirectory(prefix="storemirror-bench-") as folder:
            command = (sys.executable, "-m", "bench.bare_http", world.mirror.dsn)
            async with (
                served(command, Path(folder) / "bare.log") as (port, process_id),
                connected("127.0.0.1", port) as client,
            ):
                yield Opened(answer=_answer_over(client), process_id=process_id)

    return GatewayContestant(name="bare_http", opened=opened, rate_per_s=rate_per_s)


def _answer_over(client: HttpClient) -> Answer:
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(list[msgspec.Raw])

    async def answer(call: Call, ask: Ask) -> int:
        body = encoder.encode(_Question(call=call, ask=ask))
        status, told = await client.ask(post("/", "content-type: application/json\r\n", body))
        if status != 200:
            raise ResultsWrong(f"{call} of {ask} was answered {status}")
        return min(PAGE, len(decoder.decode(told)))

    return answer


class _App:
    """Answers every request with rows."""

    def __init__(self, database: Database, statements: ReadStatements) -> None:
        self._database = database
        self._statements = statements
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(_Question)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await body_of(receive, max_bytes=_BODY_MAX_BYTES)
        question = self._decoder.decode(body)
        rows = await bare_rows(self._database, self._statements, question.call, question.ask)
        answer = self._encoder.encode(rows)
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def _serve(dsn: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = reading_database(dsn)
    await database.open()
    try:
        rendering = Rendering(load_model(), schema_name=SCHEMA, procedures={})
        app = _App(database, PostgresReads(database, rendering).statements)
        await serve(app, "127.0.0.1", 0, stop, on_listening=_tell)
    finally:
        await database.aclose()


def _tell(port: int) -> None:
    print(f"listening on 127.0.0.1:{port}", flush=True)  # noqa: T201 - what starts it reads this


def main(dsn: str) -> None:
    """Serve until SIGTERM."""
    calm_collector()
    loop.run(_serve(dsn))


if __name__ == "__main__":
    typer.run(main)
