"""
Whether SQL is the mirror of this app's Firestore: nothing is read from it or written before.

While a rebase is under way it is not: rows may be of a time that a restore has undone.

Tables that mirror another project have users of the same ids, and what they wrote is nobody's here.
The look takes several round trips, so it is taken beside the calls, once for all of them, and again
now and then: the address may lead to another database meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from storemirror.clock import Clock
from storemirror.errors import RebaseUnderWay, StoreMirrorError, TransientError
from storemirror.gateway.deadline import within
from storemirror.sql.port import SqlMirror
from storemirror.telemetry import LogEvent

#: How long a look may take.
LOOK_TIMEOUT_S: Final = 10.0
#: After how long to look again: at a schema that is the mirror, and at one of which nobody knows.
LOOK_AGAIN_S: Final = 30.0
RETRY_S: Final = 1.0

_log = structlog.get_logger(__name__)


async def verify_mirror(mirror: SqlMirror) -> None:
    """
    See that a mirror is one that users may read from.

    Raises:
        SchemaMismatch: it is installed otherwise, or of another Firestore.
        RebaseUnderWay: not each of its rows was looked at since commit times went backwards.
        SqlUnavailable: it does not answer.
    """
    await mirror.verify_schema()
    rebase = await mirror.rebase_state()
    if rebase is not None and rebase.is_under_way:
        raise RebaseUnderWay(
            f"rebase {rebase.run} is under way, step {rebase.step.value} is done; rows may be of"
            " the undone time, and nobody is served by them."
        )


class SchemaWatch:
    """Tells whether reads and dual writes may ask SQL."""

    def __init__(self, verify: Callable[[], Awaitable[object]], clock: Clock) -> None:
        """
        Look at nothing yet.

        Args:
            verify: see `verify_mirror`.
            clock: for the age of what is known.
        """
        self._verify = verify
        self._clock = clock
        self._is_verified = False
        self._is_first_over = False
        self._tried_s: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self._told: str | None = None

    async def holds(self, *, waits_s: float) -> bool:
        """
        Tell whether SQL was seen to be the mirror.

        Args:
            waits_s: how long to wait for the first look; later ones nobody waits for.
        """
        if self._is_due():
            self._tried_s = self._clock.monotonic_s()
            self._looking = asyncio.create_task(self._look())
        if not self._is_first_over and self._looking is not None:
            await asyncio.wait({self._looking}, timeout=waits_s)
        return self._is_verified

    async def aclose(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def _is_due(self) -> bool:
        if self._tried_s is None:
            return True
        if self._looking is not None and not self._looking.done():
            return False
        age_s = self._clock.monotonic_s() - self._tried_s
        return age_s >= (LOOK_AGAIN_S if self._is_verified else RETRY_S)

    async def _look(self) -> None:
        try:
            await within(LOOK_TIMEOUT_S, self._verify)
        except RebaseUnderWay as exc:
            self._is_verified = False
            self._tell(f"{exc} {exc.hint}")
        except TransientError as exc:
            # What was seen stands: a database that is away answers no reads either.
            self._tell(str(exc))
        except (TimeoutError, OSError) as exc:
            self._tell(str(exc) or f"no answer in {LOOK_TIMEOUT_S:g} s")
        except StoreMirrorError as exc:
            self._is_verified = False
            self._tell(f"{exc} {exc.hint}".rstrip())
        else:
            self._is_verified = True
            self._tell(None)
        finally:
            self._is_first_over = True

    def _tell(self, problem: str | None) -> None:
        """Log what is wrong, once, and that it is over."""
        if problem is not None and problem != self._told:
            _log.error(LogEvent.SCHEMA_UNVERIFIED.value, error=problem, is_read=self._is_verified)
        elif problem is None and self._told is not None:
            _log.info(LogEvent.SCHEMA_VERIFIED.value)
        self._told = problem
