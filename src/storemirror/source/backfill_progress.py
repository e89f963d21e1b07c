"""
The progress file of a backfill: what lets another process go on after a kill.

A file and not a table: it is needed wherever the backfill runs, whatever bus and database there
are, it holds no documents (but their keys), and whoever wants to begin anew removes it.
It is replaced as a whole, so that it is always the progress of some moment; that moment is never
later than the events on the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from storemirror.errors import ConfigError
from storemirror.source.backfill_plan import BackfillState

DEFAULT_FILE: Final = Path(".storemirror-backfill.json")

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(BackfillState)


class ProgressFile:
    """One backfill's progress on disk.  Safe for concurrent use, in one event loop."""

    def __init__(self, path: Path) -> None:
        """
        Name the file; it need not be there.

        Args:
            path: a file beside it, with `.lock` at the end of its name, says who works with it.
        """
        self.path = path
        self._turn = asyncio.Lock()
        self._asked_count = 0
        self._saved_count = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """
        Have the file for oneself; the system lets go of it when the process ends, however.

        Raises:
            ConfigError: another process works with it, or its folder cannot be written.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        descriptor = self._taken(lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def _taken(self, lock: Path) -> int:
        """Open and lock the file that stands for the right to work; gives its descriptor."""
        while True:
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                raise ConfigError(f"{lock} cannot be written: {exc.strerror}") from exc
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have removed it since it was opened here.
                if os.fstat(descriptor).st_nlink > 0:
                    return descriptor
            except OSError as exc:
                os.close(descriptor)
                raise ConfigError(f"another backfill works with {self.path}") from exc
            os.close(descriptor)

    def load(self) -> BackfillState | None:
        """
        Read the progress; None when there is none.

        Raises:
            ConfigError: the file cannot be read, or is not what we wrote.
        """
        try:
            return _DECODER.decode(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ConfigError(f"{self.path} cannot be read: {exc.strerror}") from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{self.path} is no progress of a backfill: {exc}") from exc

    async def save(self, state: BackfillState) -> None:
        """
        Write the progress; when it returns, that or a later one is durable.

        What is asked for while a save is under way is done by one further save.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._asked_count += 1
        number = self._asked_count
        async with self._turn:
            if self._saved_count >= number:
                return
            covered_count = self._asked_count
            body = _ENCODER.encode(state)
            await asyncio.to_thread(self._replace, body, covered_count)
            self._saved_count = covered_count

    def remove(self) -> None:
        """Take the file away: there is nothing left to go on with."""
        self.path.unlink(missing_ok=True)

    def _replace(self, body: bytes, number: int) -> None:
        # A name of its own: a save whose task was cancelled may still be writing.
        written = self.path.with_name(f"{self.path.name}.{number}.tmp")
        try:
            with written.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self.path)
        except OSError as exc:
            written.unlink(missing_ok=True)
            raise ConfigError(f"{self.path} cannot be written: {exc.strerror}") from exc
