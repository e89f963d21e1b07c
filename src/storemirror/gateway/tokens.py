"""
Tokens of clients: JSON Web Tokens signed by Google, verified offline with cached keys.

The only algorithm is RS256, by a key that the issuer has published: whoever may choose the
algorithm chooses what is verified.  Nothing of a token is logged or told but why it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from storemirror.clock import SECOND_US, Clock
from storemirror.errors import CallRefused, SourceUnavailable
from storemirror.gateway.protocol import CallStatus
from storemirror.source.issuer_keys import IssuerKeys

#: How far the issuer's clock may be away from ours.
CLOCK_SKEW_S: Final = 10
#: Longer ones are not looked at; those of Firebase have some 1,200 characters.
TOKEN_MAX_LENGTH: Final = 16_384

#: A client sends one token for an hour: verified once, it is known for so long, and then again.
KNOWN_FOR_S: Final = 300.0
#: Tokens that are known at a time; the first ones are forgotten first.
KNOWN_MAX_COUNT: Final = 4_096

_RS256: Final = "RS256"
_NONE: Final = "none"
#: The library raises its own errors; of claims of the wrong type, those of Python.
_INVALID: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Which tokens of one kind are taken."""

    #: What it is, for messages: "ID token".
    noun: str
    issuer: str
    #: Whom it must be for.
    audience: str
    #: Whether the audience is one text, and no list that holds it.
    is_audience_single: bool
    #: Claims that must be there.
    required: tuple[str, ...]
    #: Where the issuer's keys are: a JSON Web Key Set.
    keys_url: str
    #: Longest `sub`, in code points.
    subject_max_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A token that was verified."""

    claims: Mapping[str, Any]
    #: By the monotonic clock.
    until_s: float
    expires_us: int


class TokenVerifier:
    """Verifies tokens of one kind."""

    def __init__(self, rules: TokenRules, clock: Clock) -> None:
        """Take `rules`; nothing is fetched before the first token."""
        self._rules = rules
        self._clock = clock
        self._keys = IssuerKeys(rules.keys_url, clock, read=_keys_in, what="JSON Web Keys")
        self._known: dict[bytes, _Known] = {}

    async def claims_of(self, token: str) -> Mapping[str, Any]:
        """
        Verify a token's signature, issuer, audience and times; gives its claims.

        Raises:
            CallRefused: UNAUTHENTICATED when it is not valid; UNAVAILABLE when the keys cannot be
                had, and nobody can tell.
        """
        known = self.known_claims(token)
        if known is not None:
            return known
        key_id = self._key_id_of(token)
        try:
            keys = await self._keys.having(key_id)
        except SourceUnavailable as exc:
            raise CallRefused(
                CallStatus.UNAVAILABLE, f"The {self._rules.noun} cannot be verified now; try again."
            ) from exc
        key = keys.get(key_id)
        if key is None:
            raise self._refused("it is signed with a key that is not the issuer's")
        claims = self._checked(self._decoded(token, key))
        self._remember(token, claims)
        return claims

    def known_claims(self, token: str) -> Mapping[str, Any] | None:
        """Give the claims of a token that was verified a short while ago, and is valid still."""
        known = self._known.get(_digest_of(token))
        if known is None or self._clock.monotonic_s() > known.until_s:
            return None
        is_valid = self._clock.now_us() < known.expires_us
        return known.claims if is_valid else None

    def _remember(self, token: str, claims: Mapping[str, Any]) -> None:
        while len(self._known) >= KNOWN_MAX_COUNT:
            del self._known[next(iter(self._known))]
        self._known[_digest_of(token)] = _Known(
            claims=claims,
            until_s=self._clock.monotonic_s() + KNOWN_FOR_S,
            expires_us=(int(claims["exp"]) + CLOCK_SKEW_S) * SECOND_US,
        )

    def claims_of_unsigned(self, token: str) -> Mapping[str, Any]:
        """
        Read a token of the Auth emulator, which signs none; all but the signature is verified.

        Raises:
            CallRefused: UNAUTHENTICATED when it is not valid, or signed.
        """
        if self._header_of(token).get("alg") != _NONE or not token.endswith("."):
            raise self._refused("the Auth emulator's tokens are unsigned, and this one is signed")
        return self._checked(self._decoded(token, None))

    def _key_id_of(self, token: str) -> str:
        header = self._header_of(token)
        key_id = header.get("kid")
        if header.get("alg") != _RS256 or not isinstance(key_id, str):
            raise self._refused("it is not signed by RS256 with a named key")
        return key_id

    def _header_of(self, token: str) -> Mapping[str, Any]:
        if len(token) > TOKEN_MAX_LENGTH:
            raise self._refused("it is too long")
        try:
            return jwt.get_unverified_header(token)
        except _INVALID as exc:
            raise self._refused("it is no JSON Web Token") from exc

    def _decoded(self, token: str, key: jwt.PyJWK | None) -> Mapping[str, Any]:
        rules = self._rules
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key if key is not None else "",
                algorithms=[_RS256],
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=CLOCK_SKEW_S,
                options={
                    "verify_signature": key is not None,
                    # Without the signature the library would verify nothing else either.
                    "verify_exp": True,
                    "verify_iat": True,
                    "verify_nbf": True,
                    "verify_aud": True,
                    "verify_iss": True,
                    "verify_sub": True,
                    "strict_aud": rules.is_audience_single,
                    "require": list(rules.required),
                },
            )
        except jwt.ExpiredSignatureError as exc:
            raise self._refused("it has expired") from exc
        except _INVALID as exc:
            # The library's words may hold the token's.
            raise self._refused("it is tampered with, not valid yet, or for somebody else") from exc
        return claims

    def _checked(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """See to what the library does not know of."""
        subject = claims["sub"]
        if not 0 < len(subject) <= self._rules.subject_max_length:
            raise self._refused("it names nobody")
        signed_in_s = claims.get("auth_time")
        if signed_in_s is not None:
            now_s = self._clock.now_us() / SECOND_US
            is_number = isinstance(signed_in_s, int | float)
            if not is_number or signed_in_s > now_s + CLOCK_SKEW_S:
                raise self._refused("its sign-in lies in the future")
        return claims

    def _refused(self, why: str) -> CallRefused:
        return CallRefused(
            CallStatus.UNAUTHENTICATED, f"The {self._rules.noun} is not valid: {why}."
        )


def issuer_claimed_by(token: str) -> str:
    """
    Give the issuer that a token names, unverified: it only tells who is to verify it.

    Empty when it names none, or is no token.
    """
    if len(token) > TOKEN_MAX_LENGTH:
        return ""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except _INVALID:
        return ""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def _digest_of(token: str) -> bytes:
    """Stand for a token: what is kept of it here is worth nothing to whoever reads the memory."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _keys_in(body: bytes) -> Mapping[str, jwt.PyJWK]:
    """Read the RSA keys of a JSON Web Key Set, by key id; none where the body is something else."""
    try:
        found: Sequence[jwt.PyJWK] = jwt.PyJWKSet.from_json(body.decode()).keys
    except (*_INVALID, AttributeError):
        return {}
    return {key.key_id: key for key in found if key.key_id and key.algorithm_name == _RS256}
