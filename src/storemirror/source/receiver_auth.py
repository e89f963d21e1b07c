"""
Who may deliver: the caller's OIDC token, signed by Google, verified offline with cached keys.

A forged event would write rows.  Eventarc calls with a token of the trigger's service account: its
signature, issuer, time, audience and account must all be right.  Google's own library verifies
signature and time; it would fetch the keys for each token, so they are kept here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from google.auth import jwt

from storemirror.clock import Clock
from storemirror.errors import ConfigError, SourceUnavailable
from storemirror.source.issuer_keys import IssuerKeys, is_loopback, refuse_unsafe_address

#: Google's keys as X.509 certificates by key id.
GOOGLE_CERTS_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
#: How far the caller's clock may be away from ours.
CLOCK_SKEW_S: Final = 10

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
    refuse_unsafe_address("triggers.certs_url", certs_url)
    return CallerRules(
        audience=audience, service_accounts=frozenset(service_accounts), certs_url=certs_url
    )


class CallerVerifier:
    """Tells whether a request may deliver."""

    def __init__(self, rules: CallerRules, clock: Clock) -> None:
        """Take `rules`; nothing is fetched before the first token."""
        self._rules = rules
        self._certs = IssuerKeys(rules.certs_url, clock, read=_certs_in, what="certificates")

    async def refusal_of(self, authorization: str) -> Refusal | None:
        """
        Verify the header `Authorization`; gives why the caller is refused, None when it is not.

        Args:
            authorization: empty when there is none.
        """
        account = await self.account_of(authorization)
        return account if isinstance(account, Refusal) else None

    async def account_of(self, authorization: str) -> str | Refusal:
        """
        Verify the header `Authorization`; gives the service account that calls.

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
        return self._account_in(_verified(bearer[1], certs[key_id]))

    def _account_in(self, claims: Mapping[str, Any] | None) -> str | Refusal:
        if claims is None:
            return Refusal(status=401, reason="the token is tampered with, or not valid now")
        if claims.get("iss") not in ISSUERS:
            return Refusal(status=401, reason="the token is of another issuer")
        if claims.get("aud") != self._rules.audience:
            return Refusal(status=401, reason=f"the token is for {claims.get('aud')!r}")
        if claims.get("email_verified") is not True:
            return Refusal(status=403, reason="the token names no verified account")
        for account in self._rules.service_accounts:
            if claims.get("email") == account:
                return account
        return Refusal(status=403, reason=f"{claims.get('email')!r} is not allow-listed")


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


def _certs_in(body: bytes) -> Mapping[str, str]:
    """Read certificates by key id; none where the body is something else."""
    try:
        return msgspec.json.decode(body, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
