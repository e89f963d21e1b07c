"""
Who calls: a user with a Firebase ID token, or an allow-listed service account.

What this cannot see: a user who was disabled, or whose sessions were revoked, keeps a valid token
for at most an hour; asking Firebase at every call would cost more than the call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from storemirror.clock import Clock
from storemirror.errors import CallRefused, ConfigError
from storemirror.gateway.app_check import AppCheck
from storemirror.gateway.port import Caller
from storemirror.gateway.protocol import CallStatus
from storemirror.gateway.tokens import TokenRules, TokenVerifier, issuer_claimed_by
from storemirror.source.issuer_keys import refuse_unsafe_address
from storemirror.source.receiver_auth import (
    GOOGLE_CERTS_URL,
    ISSUERS,
    CallerRules,
    CallerVerifier,
    Refusal,
)

#: Google's keys of Firebase ID tokens, as a JSON Web Key Set.
USER_KEYS_URL: Final = (
    "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
)
USER_ISSUER: Final = "https://securetoken.google.com/"
#: Longest Firebase uid.
UID_MAX_LENGTH: Final = 128
#: Projects that are no real ones: Firebase's emulators keep this beginning to themselves.
DEMO_PREFIX: Final = "demo-"

_USER_CLAIMS: Final = ("exp", "iat", "aud", "iss", "sub", "auth_time")
_BEARER: Final = re.compile(r"[Bb]earer +([^ ]+) *")
_STATUSES: Final[Mapping[int, CallStatus]] = {
    401: CallStatus.UNAUTHENTICATED,
    403: CallStatus.PERMISSION_DENIED,
    503: CallStatus.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """Whose calls are taken.  Made by `identity_rules`."""

    #: The Firebase project whose users call.
    project: str
    keys_url: str = USER_KEYS_URL
    #: Whether tokens come from the Auth emulator, which signs none.
    is_emulated: bool = False
    #: Services that may call; None for none.
    services: CallerRules | None = None


def identity_rules(
    *,
    project: str,
    keys_url: str | None = None,
    emulator_host: str | None = None,
    service_audience: str | None = None,
    service_accounts: Collection[str] = (),
    service_certs_url: str | None = None,
) -> IdentityRules:
    """
    Decide whose calls are taken.

    Args:
        project: the Firebase project's id.
        keys_url: where the keys of ID tokens are; None for Google's.
        emulator_host: the Auth emulator's, when its unsigned tokens are to be taken.
        service_audience: what services' tokens must be for.
        service_accounts: e-mail addresses of services.
        service_certs_url: where the keys of services' tokens are; None for Google's.

    Raises:
        ConfigError: anybody could sign in as anybody to a real project, one half of what is said
            of services is missing, or keys would come over a line that anybody can write to.
    """
    if emulator_host and not project.startswith(DEMO_PREFIX):
        raise ConfigError(
            f"FIREBASE_AUTH_EMULATOR_HOST is set, and firestore.project is {project!r}: the Auth"
            " emulator's tokens are unsigned, and anybody could call as anybody. Take the variable"
            f" out, or name a project that begins with {DEMO_PREFIX!r}"
        )
    keys_url = keys_url or USER_KEYS_URL
    refuse_unsafe_address("gateway.auth_keys_url", keys_url)
    services = None
    if service_audience or service_accounts:
        if not service_audience or not service_accounts:
            missing = "service_accounts" if service_audience else "service_audience"
            raise ConfigError(f"gateway.{missing} is not set; a service is known by both")
        certs_url = service_certs_url or GOOGLE_CERTS_URL
        refuse_unsafe_address("gateway.service_certs_url", certs_url)
        services = CallerRules(
            audience=service_audience,
            service_accounts=frozenset(service_accounts),
            certs_url=certs_url,
        )
    return IdentityRules(
        project=project, keys_url=keys_url, is_emulated=bool(emulator_host), services=services
    )


class Identity:
    """Tells who calls."""

    def __init__(self, rules: IdentityRules, clock: Clock, *, app_check: AppCheck | None) -> None:
        """
        Fetch nothing yet.

        Args:
            rules: see `identity_rules`.
            clock: for the age of keys, and of sign-ins.
            app_check: verifies the app that a user calls from; None where that is off.
        """
        self._is_emulated = rules.is_emulated
        self._users = TokenVerifier(
            TokenRules(
                noun="ID token",
                issuer=f"{USER_ISSUER}{rules.project}",
                audience=rules.project,
                is_audience_single=True,
                required=_USER_CLAIMS,
                keys_url=rules.keys_url,
                subject_max_length=UID_MAX_LENGTH,
            ),
            clock,
        )
        self._services = None if rules.services is None else CallerVerifier(rules.services, clock)
        self._app_check = app_check

    async def caller_of(self, headers: Mapping[str, str]) -> Caller:
        """
        Tell who calls, from the request's headers.

        Args:
            headers: names in lower case.

        Raises:
            CallRefused: UNAUTHENTICATED without a valid token, or without App Check's where that
                is on; PERMISSION_DENIED for a service that is not allow-listed; UNAVAILABLE when
                the issuer's keys cannot be had.
        """
        authorization = headers.get("authorization", "")
        bearer = _BEARER.fullmatch(authorization)
        if bearer is None:
            raise CallRefused(CallStatus.UNAUTHENTICATED, "Sign in first: there is no ID token.")
        token = bearer[1]
        claims = self._users.known_claims(token)
        if claims is None:
            if self._services is not None and issuer_claimed_by(token) in ISSUERS:
                return await self._service_of(self._services, authorization)
            claims = (
                self._users.claims_of_unsigned(token)
                if self._is_emulated
                else await self._users.claims_of(token)
            )
        app_id = None if self._app_check is None else await self._app_check.app_id_of(headers)
        return Caller(uid=claims["sub"], claims=claims, app_id=app_id)

    async def _service_of(self, verifier: CallerVerifier, authorization: str) -> Caller:
        account = await verifier.account_of(authorization)
        if isinstance(account, Refusal):
            status = _STATUSES.get(account.status, CallStatus.UNAUTHENTICATED)
            raise CallRefused(status, "The service's token is not valid, or not allow-listed.")
        return Caller(uid=account, is_service=True)
