"""
An issuer's public keys: fetched when they are old or a new one is named, kept in between.

Whoever calls names the key its token is signed with, and so could make us fetch for each call:
that is bounded here.  What the keys look like is for the caller to read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request

from storemirror.clock import Clock
from storemirror.errors import ConfigError, SourceUnavailable

#: How long keys are kept when the answer does not say, and at most.
KEYS_DEFAULT_AGE_S: Final = 3_600.0
KEYS_MAX_AGE_S: Final = 86_400.0
#: Least time between two fetches: a token may name any key, and must not make us ask the issuer.
KEYS_MIN_AGE_S: Final = 30.0
#: Shorter than a caller waits: "try again" is a better answer than none.
KEYS_TIMEOUT_S: Final = 5.0
#: Least time between two fetches when the first one failed.
KEYS_RETRY_S: Final = 2.0

K = TypeVar("K")


def is_loopback(host: str) -> bool:
    """
    Tell whether only this machine can reach an address.

    >>> [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "example.com")]
    [True, True, True, False, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_unsafe_address(setting: str, url: str) -> None:
    """
    See that nobody on the way can put keys of their own in.

    Args:
        setting: its name, for the message.
        url: where keys are.

    Raises:
        ConfigError: it is neither https nor on this machine.
    """
    address = urlsplit(url)
    is_safe = address.scheme == "https" or (
        address.scheme == "http" and is_loopback(address.hostname or "")
    )
    if not is_safe:
        raise ConfigError(f"{setting} is {url!r}: keys come by https alone")


class IssuerKeys(Generic[K]):
    """The keys of one issuer, by key id."""

    def __init__(
        self, url: str, clock: Clock, *, read: Callable[[bytes], Mapping[str, K]], what: str
    ) -> None:
        """
        Fetch nothing yet.

        Args:
            url: where the keys are.
            clock: for their age.
            read: gives the keys of an answer's body, by key id; empty when it holds none.
            what: what is wanted there, for the message: "certificates".
        """
        self._url = url
        self._clock = clock
        self._read = read
        self._what = what
        self._fetching: asyncio.Task[None] | None = None
        self._by_key_id: Mapping[str, K] = {}
        self._fetched_s: float | None = None
        self._max_age_s = 0.0
        self._failure: tuple[float, SourceUnavailable] | None = None

    async def having(self, key_id: str) -> Mapping[str, K]:
        """
        Give the keys, with `key_id` among them if the issuer has it.

        Raises:
            SourceUnavailable: there are no keys that are young enough, and none could be fetched.
        """
        if self._is_due(key_id):
            fetching = self._fetching
            if fetching is None or fetching.done():
                fetching = asyncio.create_task(self._fetch_unless_just_failed())
                fetching.add_done_callback(_look_at)
                self._fetching = fetching
            # One fetch for all who wait; it goes on when one of them gives up.
            await asyncio.wait({fetching})
            try:
                fetching.result()
            except SourceUnavailable as exc:
                raise SourceUnavailable(str(exc)) from exc
        return self._by_key_id

    def _is_due(self, key_id: str) -> bool:
        if self._fetched_s is None:
            return True
        age_s = self._clock.monotonic_s() - self._fetched_s
        return age_s > self._max_age_s or (key_id not in self._by_key_id and age_s > KEYS_MIN_AGE_S)

    async def _fetch_unless_just_failed(self) -> None:
        """Fetch; callers that come soon after a fetch that failed share its failure."""
        now_s = self._clock.monotonic_s()
        if self._failure is not None and now_s - self._failure[0] < KEYS_RETRY_S:
            raise SourceUnavailable(str(self._failure[1]))
        try:
            await self._fetch()
        except SourceUnavailable as exc:
            self._failure = (self._clock.monotonic_s(), exc)
            raise
        self._failure = None

    async def _fetch(self) -> None:
        status, cache_control, body = await asyncio.to_thread(self._answer)
        keys = self._read(body) if status == 200 else {}
        if not keys:
            raise SourceUnavailable(
                f"{self._url} answered {status}, and not with {self._what} by key id"
            )
        said = re.search(r"max-age=(\d{1,9})", cache_control)
        age_s = float(said[1]) if said else KEYS_DEFAULT_AGE_S
        self._max_age_s = min(max(age_s, KEYS_MIN_AGE_S), KEYS_MAX_AGE_S)
        self._by_key_id = keys
        self._fetched_s = self._clock.monotonic_s()

    def _answer(self) -> tuple[int, str, bytes]:
        """Ask for the keys: status, Cache-Control, body.  Blocks."""
        try:
            answer = Request()(self._url, timeout=KEYS_TIMEOUT_S)
        except TransportError as exc:
            raise SourceUnavailable(f"{self._url}: {exc}") from exc
        return answer.status, answer.headers.get("cache-control", ""), answer.data


def _look_at(fetching: asyncio.Task[None]) -> None:
    """See a failure that nobody waited for: it is no news to the event loop."""
    if not fetching.cancelled():
        fetching.exception()
