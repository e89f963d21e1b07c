"""
App Check: whether a user calls from the team's own app.

Optional, since it must be rolled out in the app first.  Its tokens say which app it is, and nothing
of the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from storemirror.clock import Clock
from storemirror.errors import CallRefused, ConfigError
from storemirror.gateway.protocol import CallStatus
from storemirror.gateway.tokens import TokenRules, TokenVerifier
from storemirror.source.issuer_keys import refuse_unsafe_address

#: Google's keys of App Check tokens, as a JSON Web Key Set.
APP_CHECK_KEYS_URL: Final = "https://firebaseappcheck.googleapis.com/v1/jwks"
APP_CHECK_ISSUER: Final = "https://firebaseappcheck.googleapis.com/"
HEADER: Final = "x-firebase-appcheck"

_CLAIMS: Final = ("exp", "iat", "aud", "iss", "sub")
_APP_ID_MAX_LENGTH: Final = 256


class AppCheck:
    """Verifies App Check's tokens."""

    def __init__(self, *, project_number: str, keys_url: str | None, clock: Clock) -> None:
        """
        Fetch nothing yet.

        Args:
            project_number: the Firebase project's number, not its id.
            keys_url: where the keys are; None for Google's.
            clock: for the age of keys.

        Raises:
            ConfigError: the number is none, or keys would come over an open line.
        """
        if not (project_number.isascii() and project_number.isdigit()):
            raise ConfigError(
                f"gateway.app_check_project_number is {project_number!r}: the project's number is"
                " wanted, which the Firebase console shows beside its id"
            )
        keys_url = keys_url or APP_CHECK_KEYS_URL
        refuse_unsafe_address("gateway.app_check_keys_url", keys_url)
        self._verifier = TokenVerifier(
            TokenRules(
                noun="App Check token",
                issuer=f"{APP_CHECK_ISSUER}{project_number}",
                audience=f"projects/{project_number}",
                is_audience_single=False,
                required=_CLAIMS,
                keys_url=keys_url,
                subject_max_length=_APP_ID_MAX_LENGTH,
            ),
            clock,
        )

    async def app_id_of(self, headers: Mapping[str, str]) -> str:
        """
        Give the id of the app that calls.

        Args:
            headers: names in lower case.

        Raises:
            CallRefused: UNAUTHENTICATED without a valid token; UNAVAILABLE when the keys cannot
                be had.
        """
        token = headers.get(HEADER, "")
        if not token:
            raise CallRefused(CallStatus.UNAUTHENTICATED, "There is no App Check token.")
        claims = await self._verifier.claims_of(token)
        return str(claims["sub"])
