"""An issuer of OIDC tokens like Google's: keys of its own, certificates on a loopback port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from storemirror.clock import SystemClock, datetime_from_us
from storemirror.source.receiver_auth import CallerRules

AUDIENCE = "https://receiver.example.com"
ACCOUNT = "trigger@demo.iam.gserviceaccount.com"


class Key:
    """A signing key, with its certificate."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
        now = datetime_from_us(SystemClock().now_us())
        self.cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._private.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._private, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )

    def token(
        self,
        *,
        header: Mapping[str, object] | None = None,
        expires_in_s: float = 3_600,
        **claims: object,
    ) -> str:
        """A good token, but for what is said otherwise; a claim of None is left out."""
        now_s = SystemClock().now_us() // 1_000_000
        payload = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": ACCOUNT,
            "email_verified": True,
            "iat": now_s + min(expires_in_s, 0) - 60,
            "exp": now_s + expires_in_s,
        } | claims
        kept = {name: claim for name, claim in payload.items() if claim is not None}
        head = {"alg": "RS256", "typ": "JWT", "kid": self.key_id} | dict(header or {})
        signed = f"{_segment(head)}.{_segment(kept)}"
        return f"{signed}.{_base64(self._signature(signed.encode(), str(head['alg'])))}"

    def _signature(self, signed: bytes, algorithm: str) -> bytes:
        if algorithm == "none":
            return b"x"
        if algorithm == "HS256":
            return hmac.new(self.cert.encode(), signed, hashlib.sha256).digest()
        return self._private.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def tampered(token: str, **claims: object) -> str:
    """The token with other claims and the signature it had."""
    head, payload, signature = token.split(".")
    had = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{head}.{_segment(had | claims)}.{signature}"


def _segment(content: Mapping[str, object]) -> str:
    return _base64(json.dumps(content).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Issuer:
    """Serves certificates, as they are at the moment."""

    def __init__(self) -> None:
        self.key = Key("k1")
        self.keys = [self.key]
        self.status = 200
        self.fetch_count = 0
        self.port = 0
        #: One for each request that has come; it is answered while `gate` is open.
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def rules(self) -> CallerRules:
        return CallerRules(
            audience=AUDIENCE,
            service_accounts=frozenset({ACCOUNT}),
            certs_url=f"http://127.0.0.1:{self.port}/certs",
        )

    @property
    def body(self) -> bytes:
        return json.dumps({key.key_id: key.cert for key in self.keys}).encode()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.fetch_count += 1
        self.asked.put_nowait(self.fetch_count)
        await self.gate.wait()
        body = self.body
        head = f"HTTP/1.1 {self.status} x\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Cache-Control: public, max-age=600\r\n\r\n".encode() + body)
        writer.close()
        await writer.wait_closed()


AnyIssuer = TypeVar("AnyIssuer", bound=Issuer)


@contextlib.asynccontextmanager
async def running_issuer(issuer: AnyIssuer) -> AsyncIterator[AnyIssuer]:
    """Serve an issuer's keys on a port of its own."""
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    async with server:
        issuer.port = server.sockets[0].getsockname()[1]
        yield issuer
