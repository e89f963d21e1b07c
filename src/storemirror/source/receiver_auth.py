"""
Who may deliver: the caller's OIDC token, signed by Google, verified offline with cached keys.

A forged event would write rows.  Eventarc calls with a token of the trigger's service account: its
signature, issuer, time, audience and account must all be right.  Google's own library verifies
signature and time; it would fetch the keys for each token, so they are kept here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from google.auth import jwt
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request

from storemirror.clock import Clock
from storemirror.errors import ConfigError, SourceUnavailable

#: Google's keys as X.509 certificates by key id.
GOOGLE_CERTS_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
#: How far the caller's clock may be away from ours.
CLOCK_SKEW_S: Final = 10
#: How long keys are kept when the answer does not say, and at most.
CERTS_DEFAULT_AGE_S: Final = 3_600.0
CERTS_MAX_AGE_S: Final = 86_400.0
#: Least time between two fetches: a token may name any key, and must not make us ask Google.
CERTS_MIN_AGE_S: Final = 30.0
CERTS_TIMEOUT_S: Final = 10.0
#: Least time between two fetches when the first one failed.
CERTS_RETRY_S: Final = 2.0

_BEARER: Final = re.compile(r"[Bb]earer +([A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRules:
    """Whose tokens are taken."""

    #: What the trigger's tokens are for: the service's URL, unless set otherwise.
    audience: str
    #: E-mail addresses.
    service_accounts: frozenset[str]
    #: Where the keys are: a JSON object, key id -> X.509 certificate in PEM.
    certs_url: str = GOOGLE_CERTS_URL


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a caller is not let in."""

    #: HTTP: 401 no valid token, 403 not allowed, 503 the keys cannot be had.
    status: int
    #: One sentence; nothing of the token but its audience or account.
    reason: str


def caller_rules(
    *,
    host: str,
    audience: str | None,
    service_accounts: Collection[str],
    certs_url: str = GOOGLE_CERTS_URL,
) -> CallerRules | None:
    """
    Decide whether callers must prove who they are.

    Args:
        host: the address to listen on.
        audience: what tokens must be for.
        service_accounts: e-mail addresses of those who may deliver.
        certs_url: see `CallerRules`.

    Returns:
        None: only this machine can call, and nothing was said of callers.

    Raises:
        ConfigError: others can call and nothing says who may, or one half of the answer is
            missing, or the keys would come over a line that anybody can write to.

    >>> caller_rules(host="127.0.0.1", audience=None, service_accounts=()) is None
    True
    """
    if not audience and not service_accounts:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"{host} can be reached from other machines, and nothing says who may deliver: set"
            " triggers.audience and triggers.service_accounts, or listen on 127.0.0.1"
        )
    if not audience or not service_accounts:
        missing = "triggers.service_accounts" if audience else "triggers.audience"
        raise ConfigError(f"{missing} is not set; a caller's token is known by both")
    address = urlsplit(certs_url)
    is_safe = address.scheme == "https" or (
        address.scheme == "http" and is_loopback(address.hostname or "")
    )
    if not is_safe:
        raise ConfigError(f"triggers.certs_url is {certs_url!r}: keys come by https alone")
    return CallerRules(
        audience=audience, service_accounts=frozenset(service_accounts), certs_url=certs_url
    )


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


class CallerVerifier:
    """Tells whether a request may deliver."""

    def __init__(self, rules: CallerRules, clock: Clock) -> None:
        """Take `rules`; nothing is fetched before the first token."""
        self._rules = rules
        self._certs = _Certs(rules.certs_url, clock)

    async def refusal_of(self, authorization: str) -> Refusal | None:
        """
        Verify the header `Authorization`; gives why the caller is refused, None when it is not.

        Args:
            authorization: empty when there is none.
        """
        bearer = _BEARER.fullmatch(authorization)
        if bearer is None:
            return Refusal(status=401, reason="no bearer token")
        key_id = _key_id_of(bearer[1])
        if key_id is None:
            return Refusal(status=401, reason="the token is not signed by RS256 with a named key")
        try:
            certs = await self._certs.having(key_id)
        except SourceUnavailable as exc:
            return Refusal(status=503, reason=str(exc))
        if key_id not in certs:
            return Refusal(status=401, reason="the token's key is not one of the issuer's")
        return self._refusal_of_claims(_verified(bearer[1], certs[key_id]))

    def _refusal_of_claims(self, claims: Mapping[str, Any] | None) -> Refusal | None:
        if claims is None:
            return Refusal(status=401, reason="the token is tampered with, or not valid now")
        if claims.get("iss") not in ISSUERS:
            return Refusal(status=401, reason="the token is of another issuer")
        if claims.get("aud") != self._rules.audience:
            return Refusal(status=401, reason=f"the token is for {claims.get('aud')!r}")
        if claims.get("email_verified") is not True:
            return Refusal(status=403, reason="the token names no verified account")
        if not any(claims.get("email") == account for account in self._rules.service_accounts):
            return Refusal(status=403, reason=f"{claims.get('email')!r} may not deliver")
        return None


def _key_id_of(token: str) -> str | None:
    """Give the key that a token says it is signed with; None when it cannot be verified."""
    try:
        header = jwt.decode_header(token)  # type: ignore[no-untyped-call]
    except (ValueError, RecursionError):
        return None
    key_id = header.get("kid")
    # Named here, not left to the token: whoever picks the algorithm picks what is verified.
    return key_id if header.get("alg") == "RS256" and isinstance(key_id, str) else None


def _verified(token: str, cert: str) -> Mapping[str, Any] | None:
    """Give the claims of a token with a good signature that is valid now; None of any other."""
    try:
        claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
            token, certs=cert, clock_skew_in_seconds=CLOCK_SKEW_S
        )
    except (ValueError, TypeError, RecursionError):
        # The library's words hold the token: they are neither kept nor logged.
        return None
    return claims


class _Certs:
    """The issuer's keys, fetched when they are old or a new one is named."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._lock = asyncio.Lock()
        self._by_key_id: Mapping[str, str] = {}
        self._fetched_s: float | None = None
        self._max_age_s = 0.0
        self._failure: tuple[float, SourceUnavailable] | None = None

    async def having(self, key_id: str) -> Mapping[str, str]:
        """
        Give the keys, with `key_id` among them if the issuer has it.

        Raises:
            SourceUnavailable: there are no keys that are young enough, and none could be fetched.
        """
        if self._is_due(key_id):
            async with self._lock:
                if self._is_due(key_id):
                    await self._fetch_unless_just_failed()
        return self._by_key_id

    def _is_due(self, key_id: str) -> bool:
        if self._fetched_s is None:
            return True
        age_s = self._clock.monotonic_s() - self._fetched_s
        return age_s > self._max_age_s or (
            key_id not in self._by_key_id and age_s > CERTS_MIN_AGE_S
        )

    async def _fetch_unless_just_failed(self) -> None:
        """Fetch; callers that waited for a fetch that failed share its failure."""
        now_s = self._clock.monotonic_s()
        if self._failure is not None and now_s - self._failure[0] < CERTS_RETRY_S:
            raise SourceUnavailable(str(self._failure[1]))
        try:
            await self._fetch()
        except SourceUnavailable as exc:
            self._failure = (self._clock.monotonic_s(), exc)
            raise
        self._failure = None

    async def _fetch(self) -> None:
        status, cache_control, body = await asyncio.to_thread(self._answer)
        try:
            certs = msgspec.json.decode(body, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            certs = {}
        if status != 200 or not certs:
            raise SourceUnavailable(
                f"{self._url} answered {status}, and not with certificates by key id"
            )
        said = re.search(r"max-age=(\d{1,9})", cache_control)
        age_s = float(said[1]) if said else CERTS_DEFAULT_AGE_S
        self._max_age_s = min(max(age_s, CERTS_MIN_AGE_S), CERTS_MAX_AGE_S)
        self._by_key_id = certs
        self._fetched_s = self._clock.monotonic_s()

    def _answer(self) -> tuple[int, str, bytes]:
        """Ask for the keys: status, Cache-Control, body.  Blocks."""
        try:
            answer = Request()(self._url, timeout=CERTS_TIMEOUT_S)
        except TransportError as exc:
            raise SourceUnavailable(f"{self._url}: {exc}") from exc
        return answer.status, answer.headers.get("cache-control", ""), answer.data
