"""Keeps the demo's writer process running, and adds up what it reports."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from storemirror.demo.writer import WriterReport
from storemirror.errors import StoreMirrorError
from storemirror.telemetry import LatencyHistogram

_STOP_TIMEOUT_S: Final = 20.0
_LINE_LIMIT_BYTES: Final = 16 * 1024 * 1024
_REPORT = msgspec.json.Decoder(WriterReport)


class WriterFailed(StoreMirrorError):
    """The demo's writer process ended by itself."""

    hint = "Its last words are above; run the demo again with --debug and report them."


class WriterTally:
    """What all writer processes of a run reported."""

    def __init__(self) -> None:
        """Start at nothing."""
        #: Ids of the events that were settled for good.
        self.settled_ids: set[str] = set()
        #: Ids of events of which a bus gave no answer.  Is none of them on the bus any more, they
        #: were settled.
        self.unsure_ids: set[str] = set()
        #: Outcome -> deliveries.
        self.outcomes: Counter[str] = Counter()
        self.latency = LatencyHistogram()

    def add(self, line: bytes) -> None:
        """Add one line of a writer."""
        report = _REPORT.decode(line)
        # A repeated delivery has the event's id and a suffix of its own.
        self.settled_ids.update(i.split(".", 1)[0] for i in report.message_ids)
        self.unsure_ids.update(i.split(".", 1)[0] for i in report.unsure_ids)
        self.outcomes.update(report.outcomes)
        for latency_us in report.latencies_us:
            self.latency.add(latency_us)


class WriterProcess:
    """Starts the writer, and starts it again after it was killed."""

    def __init__(self, environment: Mapping[str, str], folder: Path, *, seed: int) -> None:
        """
        Name the parts; nothing is started.

        Args:
            environment: the settings, as variables.
            folder: where the log goes.
            seed: of the bus's faults.
        """
        self.tally = WriterTally()
        #: Set once the first process is ready to receive.
        self.is_ready = asyncio.Event()
        #: How often the process was killed and started again.
        self.restart_count = 0
        self._environment = dict(environment)
        self._log = folder / "writer.log"
        self._seed = seed
        self._is_stopping = False
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, *, die_after_events: int) -> None:
        """
        Keep a writer running until `stop`; the first one kills itself after some events.

        Raises:
            WriterFailed: it ended in another way; carries the end of its log.
        """
        arguments = [str(self._seed), str(die_after_events)]
        while True:
            status = await self._run_once(arguments)
            if self._is_stopping and status == 0:
                return
            if status != -signal.SIGKILL:
                words = self._log.read_text(errors="replace").strip()[-2_000:]
                raise WriterFailed(f"the writer process ended with status {status}:\n{words}")
            self.restart_count += 1
            arguments = [str(self._seed + self.restart_count)]

    async def stop(self) -> None:
        """Ask the writer to finish what it has in hand; `run` then returns."""
        self._is_stopping = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once, when the demo itself has failed."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _run_once(self, arguments: list[str]) -> int:
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "storemirror.demo.writer",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                limit=_LINE_LIMIT_BYTES,
                # Ctrl-C is the demo's to handle.
                start_new_session=True,
            )
        self._process = process
        if self._is_stopping:
            await self.stop()
        assert process.stdout is not None
        async for line in process.stdout:
            # A killed process may leave half a line: that batch was not settled.
            if line.endswith(b"\n"):
                self.tally.add(line)
                self.is_ready.set()
        return await process.wait()
