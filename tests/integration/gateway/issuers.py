"""Issuers of Firebase's tokens: keys of their own, as JSON Web Key Sets on a loopback port."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from storemirror.clock import SystemClock
from storemirror.gateway.app_check import APP_CHECK_ISSUER
from storemirror.gateway.auth import USER_ISSUER
from tests.integration.receiver.issuer import Issuer
from tests.support.node import PROJECT

PROJECT_NUMBER = "123456789"
APP_ID = "1:123456789:web:abc"


#: To make a key takes longer than most tests; no test has so many at a time.
KEY_COUNT = 6
_NUMBERS = itertools.count()


@functools.cache
def _private_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class JwkKey:
    """A signing key, and what the issuer publishes of it."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._private = _private_key(next(_NUMBERS) % KEY_COUNT)

    @property
    def jwk(self) -> dict[str, Any]:
        public = RSAAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**public, "kid": self.key_id, "alg": "RS256", "use": "sig"}

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        """A token with these claims; those that are None are left out."""
        kept = {name: claim for name, claim in claims.items() if claim is not None}
        algorithm = str(header.pop("alg", "RS256"))
        key: Any = {"RS256": self._private, "HS256": "x" * 32, "none": None}[algorithm]
        return jwt.encode(
            kept, key, algorithm, headers={"kid": self.key_id, **header}, sort_headers=False
        )


class JwkIssuer(Issuer):
    """Serves keys as they are at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.signer = JwkKey("f1")
        self.published = [self.signer]
        self.raw_body: bytes | None = None

    @property
    def body(self) -> bytes:
        if self.raw_body is not None:
            return self.raw_body
        return json.dumps({"keys": [key.jwk for key in self.published]}).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks"


def user_claims(uid: str = "u1", *, expires_in_s: int = 3_600, **others: object) -> dict[str, Any]:
    """What Firebase says of a user in an ID token."""
    now_s = SystemClock().now_us() // 1_000_000
    issued_s = now_s + min(expires_in_s, 0) - 60
    return {
        "iss": f"{USER_ISSUER}{PROJECT}",
        "aud": PROJECT,
        "sub": uid,
        "user_id": uid,
        "iat": issued_s,
        "auth_time": issued_s,
        "exp": now_s + expires_in_s,
        "firebase": {"identities": {}, "sign_in_provider": "anonymous"},
    } | others


def app_claims(*, expires_in_s: int = 3_600, **others: object) -> dict[str, Any]:
    """What App Check says of an app."""
    now_s = SystemClock().now_us() // 1_000_000
    return {
        "iss": f"{APP_CHECK_ISSUER}{PROJECT_NUMBER}",
        "aud": [f"projects/{PROJECT_NUMBER}", f"projects/{PROJECT}"],
        "sub": APP_ID,
        "iat": now_s + min(expires_in_s, 0) - 60,
        "exp": now_s + expires_in_s,
    } | others
