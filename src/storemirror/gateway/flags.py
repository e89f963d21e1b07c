"""
Cohorts: what is switched on for whom, as a server template of Remote Config says.

Whatever goes wrong means Firestore only: a flag that cannot be read must not move anybody's reads.
The template is read again now and then, in the background of calls: no call waits for it but the
first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from storemirror.clock import Clock
from storemirror.errors import SourceUnavailable
from storemirror.gateway.port import Caller, Cohort, Feature, ReadMode
from storemirror.gateway.repeats import Repeats
from storemirror.telemetry import LogEvent

#: A template that could not be read again is believed for so many refreshes, then no more.
STALE_REFRESHES: Final = 10
#: How long the first call waits for the template.
FIRST_READ_TIMEOUT_S: Final = 5.0

# What a user can write into their own profile, and a token then says.
_SELF_CHOSEN: Final = frozenset({"name", "picture"})

_log = structlog.get_logger(__name__)

#: What a condition of a template can look at.
Signal = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagNames:
    """Remote Config's keys for one part of the app."""

    read_mode: str
    dual_write: str


class Evaluated(Protocol):
    """A template's values for one caller."""

    def text(self, key: str) -> str:
        """Give a value as text; empty where there is none."""
        ...

    def is_on(self, key: str) -> bool:
        """Give a value as a truth value; False where there is none."""
        ...


class Template(Protocol):
    """A server template of Remote Config."""

    def evaluate(self, uid: str, signals: Mapping[str, Signal]) -> Evaluated:
        """
        Evaluate the template's conditions for one caller.

        Args:
            uid: decides percentages, the same for the same uid.
            signals: what conditions may look at.

        Raises:
            ValueError: the template is broken.
        """
        ...


class TemplateReader(Protocol):
    """Reads the template, from a file or from Firebase."""

    async def read(self) -> Template:
        """
        Read the template as it is.

        Raises:
            SourceUnavailable: it cannot be had; another time it may.
            ValueError: it is broken.
        """
        ...


def firestore_only() -> Cohort:
    """Give the cohort in which nothing is switched on."""
    return Cohort(read_mode=ReadMode.FIRESTORE, is_dual_write_on=False)


def signals_of(caller: Caller) -> Mapping[str, Signal]:
    """
    Give what conditions may look at: claims that Firebase or the team's own server vouches for.

    An e-mail address counts when it was verified; a display name, which users choose, never.

    >>> claims = {"tier": "gold", "name": "admin", "email": "a@b.c", "email_verified": False}
    >>> signals_of(Caller(uid="u1", claims=claims))
    {'tier': 'gold', 'email_verified': 'false'}
    """
    unproved = _SELF_CHOSEN
    if caller.claims.get("email_verified") is not True:
        unproved |= {"email"}
    signals: dict[str, Signal] = {}
    for name, claim in caller.claims.items():
        if name in unproved:
            continue
        if isinstance(claim, bool):
            signals[name] = str(claim).lower()
        elif isinstance(claim, str | int | float):
            signals[name] = claim
    return signals


def cohort_in(evaluated: Evaluated, names: FlagNames, *, is_mirror_on: bool) -> Cohort:
    """
    Read a caller's cohort; a read mode that is none means Firestore.

    Args:
        evaluated: the template's values for the caller.
        names: its keys.
        is_mirror_on: the master switch; off, there is no dual write for anybody.
    """
    written = evaluated.text(names.read_mode).strip()
    known = {mode.value: mode for mode in ReadMode}
    return Cohort(
        read_mode=known.get(written, ReadMode.FIRESTORE),
        is_dual_write_on=is_mirror_on and evaluated.is_on(names.dual_write),
    )


class FixedFlags:
    """The same cohort for everybody: where there is no Remote Config."""

    def __init__(self, cohort: Cohort) -> None:
        """Take the cohort."""
        self._cohort = cohort

    async def cohort_of(self, caller: Caller, feature: Feature) -> Cohort:
        """See `CohortFlags.cohort_of`."""
        return self._cohort


class TemplateFlags:
    """Cohorts by a template."""

    def __init__(
        self,
        reader: TemplateReader,
        *,
        names: Mapping[Feature, FlagNames],
        is_mirror_on: bool,
        refresh_s: float,
        clock: Clock,
    ) -> None:
        """
        Read nothing yet.

        Args:
            reader: reads the template.
            names: the keys of each part of the app.
            is_mirror_on: the master switch.
            refresh_s: after how long the template is read again.
            clock: for the template's age, and for how often something is logged.
        """
        self._reader = reader
        self._names = names
        self._is_mirror_on = is_mirror_on
        self._refresh_s = refresh_s
        self._clock = clock
        self._template: Template | None = None
        self._read_s: float | None = None
        self._tried_s: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_failing = False
        self._repeats = Repeats(clock)
        self._is_first_over = False

    async def cohort_of(self, caller: Caller, feature: Feature) -> Cohort:
        """See `CohortFlags.cohort_of`."""
        await self._see_to_it_that_it_is_fresh()
        template = self._believed()
        if template is None:
            return firestore_only()
        try:
            evaluated = template.evaluate(caller.uid, signals_of(caller))
        except ValueError as exc:
            self._note_caller(exc)
            return firestore_only()
        return cohort_in(evaluated, self._names[feature], is_mirror_on=self._is_mirror_on)

    async def refresh(self) -> None:
        """Read the template now; a failure is logged, and has the consequences said above."""
        self._tried_s = self._clock.monotonic_s()
        try:
            template = await self._reader.read()
        except SourceUnavailable as exc:
            # The last one is believed for a while: Firebase's outage is none of ours.
            self._note_failure(str(exc))
            return
        except ValueError as exc:
            self._template = None
            self._note_failure(str(exc))
            return
        self._template, self._read_s = template, self._clock.monotonic_s()
        if self._is_failing:
            self._is_failing = False
            _log.info(LogEvent.FLAGS_RECOVERED.value)

    async def aclose(self) -> None:
        """End a reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    async def _see_to_it_that_it_is_fresh(self) -> None:
        if self._reading is None or self._reading.done():
            if not self._is_due():
                return
            self._reading = asyncio.create_task(self.refresh())
        if not self._is_first_over:
            # All first calls wait for the same reading; it goes on when one of them is cancelled.
            await asyncio.wait({self._reading}, timeout=FIRST_READ_TIMEOUT_S)
            self._is_first_over = True

    def _is_due(self) -> bool:
        return self._tried_s is None or self._clock.monotonic_s() - self._tried_s >= self._refresh_s

    def _believed(self) -> Template | None:
        """Give the template, unless it could not be read for too long."""
        if self._template is None or self._read_s is None:
            return None
        age_s = self._clock.monotonic_s() - self._read_s
        return self._template if age_s <= self._refresh_s * STALE_REFRESHES else None

    def _note_caller(self, error: ValueError) -> None:
        """Log that a caller's cohort could not be told, which says nothing of others'."""
        # Its words may hold what the token claims.
        cause = error.__cause__ or error
        count = self._repeats.count_to_say(type(cause).__name__)
        if count is not None:
            _log.warning(LogEvent.FLAGS_UNEVALUATED.value, error=type(cause).__name__, times=count)

    def _note_failure(self, why: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.error(LogEvent.FLAGS_FAILED.value, reason=why)
