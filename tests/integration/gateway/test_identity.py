"""Who calls: whoever could forge a token could read and write as anybody, so every way is tried."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from storemirror.errors import CallRefused, ConfigError
from storemirror.gateway import tokens
from storemirror.gateway.app_check import AppCheck
from storemirror.gateway.auth import Identity, IdentityRules, identity_rules
from storemirror.gateway.port import Caller
from tests.integration.gateway.issuers import (
    APP_ID,
    PROJECT_NUMBER,
    JwkIssuer,
    JwkKey,
    app_claims,
    user_claims,
)
from tests.integration.receiver.hosted import ForwardClock
from tests.integration.receiver.issuer import ACCOUNT, AUDIENCE, Issuer, tampered
from tests.support.node import PROJECT

Make = Callable[[JwkKey], str]


@pytest.fixture
def clock() -> ForwardClock:
    return ForwardClock()


@pytest.fixture
def identity(issuer: JwkIssuer, clock: ForwardClock) -> Identity:
    return Identity(IdentityRules(project=PROJECT, keys_url=issuer.url), clock, app_check=None)


async def caller_of(identity: Identity, token: str, **headers: str) -> Caller:
    return await identity.caller_of({"authorization": f"Bearer {token}", **headers})


async def refusal_of(identity: Identity, token: str, **headers: str) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        await caller_of(identity, token, **headers)
    return caught.value


async def test_a_users_token_names_the_user(identity: Identity, issuer: JwkIssuer) -> None:
    """The keys are fetched once, not for every call."""
    tokens = [issuer.signer.sign(user_claims(f"u{n}", tier="gold")) for n in range(5)]
    callers = [await caller_of(identity, token) for token in tokens]
    assert [caller.uid for caller in callers] == ["u0", "u1", "u2", "u3", "u4"]
    assert callers[0].claims["tier"] == "gold"
    assert (callers[0].is_service, callers[0].app_id) == (False, None)
    assert issuer.fetch_count == 1


@pytest.mark.parametrize(
    "forged",
    [
        lambda key: key.sign(user_claims(expires_in_s=-60)),
        lambda key: key.sign(user_claims(aud="other-project")),
        lambda key: key.sign(user_claims(aud=[PROJECT])),
        lambda key: key.sign(user_claims(aud=None)),
        lambda key: key.sign(user_claims(iss="https://securetoken.google.com/other")),
        lambda key: key.sign(user_claims(iss=None)),
        lambda key: key.sign(user_claims("")),
        lambda key: key.sign(user_claims("x" * 129)),
        lambda key: key.sign(user_claims(sub=None)),
        lambda key: key.sign(user_claims(exp=None)),
        lambda key: key.sign(user_claims(iat=None)),
        lambda key: key.sign(user_claims(auth_time=None)),
        lambda key: key.sign(user_claims(auth_time=99_999_999_999)),
        lambda key: key.sign(user_claims(auth_time="now")),
        lambda key: key.sign(user_claims(iat=99_999_999_999)),
        lambda key: key.sign(user_claims(nbf=99_999_999_999)),
        lambda key: key.sign(user_claims(), alg="none"),
        lambda key: key.sign(user_claims(), alg="HS256"),
        lambda key: key.sign(user_claims(), kid="f2"),
        lambda key: key.sign(user_claims(), kid=""),
        lambda key: tampered(key.sign(user_claims()), sub="u2"),
        lambda key: JwkKey(key.key_id).sign(user_claims()),
        lambda key: key.sign(user_claims())[:-4],
        lambda key: key.sign(user_claims()).rpartition(".")[0] + ".",
        lambda _: "a.b.c",
        lambda _: "x",
        lambda _: "é",
        lambda _: "x" * 100_000,
        lambda _: ".".join([base64.urlsafe_b64encode(b"[" * 9_000).decode()] * 3),
    ],
)
async def test_a_forged_token_is_refused(
    identity: Identity, issuer: JwkIssuer, forged: Make
) -> None:
    """Expired, for others, by others, unsigned, tampered with: none of them signs anybody in."""
    refused = await refusal_of(identity, forged(issuer.signer))
    assert refused.status == "UNAUTHENTICATED"
    assert str(refused).startswith("The ID token is not valid")


async def test_signature_and_claims_are_what_is_judged(
    identity: Identity, issuer: JwkIssuer
) -> None:
    """The good token beside the forged ones, so that they are refused for what is wrong in them."""
    assert (await caller_of(identity, issuer.signer.sign(user_claims("x" * 128)))).uid == "x" * 128


async def test_a_known_token_is_verified_again_after_a_while(
    identity: Identity, issuer: JwkIssuer, clock: ForwardClock
) -> None:
    """In between it costs next to nothing; a key that Google has withdrawn counts soon."""
    token = issuer.signer.sign(user_claims())
    await caller_of(identity, token)
    issuer.published = [JwkKey("f2")]
    clock.shift_s = 601
    assert (await refusal_of(identity, token)).status == "UNAUTHENTICATED"


async def test_a_known_token_expires_all_the_same(
    identity: Identity, issuer: JwkIssuer, clock: ForwardClock
) -> None:
    """It is valid for an hour, and not for as long as it is used."""
    token = issuer.signer.sign(user_claims(expires_in_s=60))
    await caller_of(identity, token)
    assert identity._users.known_claims(token)
    clock.wall_shift_us = 71_000_000
    assert identity._users.known_claims(token) is None


async def test_tokens_alike_are_not_taken_for_each_other(
    identity: Identity, issuer: JwkIssuer
) -> None:
    """A tampered one is another token, however well the first is known."""
    token = issuer.signer.sign(user_claims())
    await caller_of(identity, token)
    for forged in (tampered(token, sub="u2"), token[:-2] + "AA", token + "="):
        assert (await refusal_of(identity, forged)).status == "UNAUTHENTICATED"
    assert (await caller_of(identity, token)).uid == "u1"


async def test_only_so_many_tokens_are_known(
    identity: Identity, issuer: JwkIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded; who was forgotten is verified again."""
    monkeypatch.setattr(tokens, "KNOWN_MAX_COUNT", 3)
    signed = [issuer.signer.sign(user_claims(f"u{n}")) for n in range(5)]
    assert [(await caller_of(identity, token)).uid for token in signed * 2] == [
        f"u{n}" for n in range(5)
    ] * 2
    assert len(identity._users._known) == 3


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer a b"])
async def test_without_a_token_nobody_is_signed_in(identity: Identity, header: str) -> None:
    """The client is told to sign in."""
    with pytest.raises(CallRefused, match="Sign in first") as caught:
        await identity.caller_of({"authorization": header})
    assert caught.value.status == "UNAUTHENTICATED"


async def test_what_is_wrong_with_a_token_does_not_repeat_it(
    identity: Identity, issuer: JwkIssuer
) -> None:
    """Tokens end up in logs of clients otherwise."""
    token = tampered(issuer.signer.sign(user_claims()), sub="u2")
    told = str(await refusal_of(identity, token))
    assert [part for part in token.split(".") if part in told] == []


async def test_a_new_key_is_fetched_when_it_is_named(
    identity: Identity, issuer: JwkIssuer, clock: ForwardClock
) -> None:
    """Google rotates its keys every few days."""
    await caller_of(identity, issuer.signer.sign(user_claims()))
    new = JwkKey("f2")
    issuer.published = [new]
    assert (await refusal_of(identity, new.sign(user_claims()))).status == "UNAUTHENTICATED"
    assert issuer.fetch_count == 1
    clock.shift_s = 31
    assert (await caller_of(identity, new.sign(user_claims("u9")))).uid == "u9"
    assert issuer.fetch_count == 2
    withdrawn = issuer.signer.sign(user_claims("u8"))
    assert (await refusal_of(identity, withdrawn)).status == "UNAUTHENTICATED"


async def test_calls_at_a_time_share_one_fetch(identity: Identity, issuer: JwkIssuer) -> None:
    """A start under load must not be an assault on Google."""
    token = issuer.signer.sign(user_claims())
    await asyncio.gather(*(caller_of(identity, token) for _ in range(20)))
    assert issuer.fetch_count == 1


async def test_who_gives_up_does_not_end_the_fetch(identity: Identity, issuer: JwkIssuer) -> None:
    """Else calls at their deadline would, one after the other, each begin it anew."""
    issuer.gate.clear()
    token = issuer.signer.sign(user_claims())
    calls = [asyncio.create_task(caller_of(identity, token)) for _ in range(3)]
    await issuer.asked.get()
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    issuer.gate.set()
    assert [caller.uid for caller in await asyncio.gather(*calls[1:])] == ["u1", "u1"]
    assert issuer.fetch_count == 1


async def test_a_failure_is_shared_for_a_while(
    identity: Identity, issuer: JwkIssuer, clock: ForwardClock
) -> None:
    """An issuer that is down is asked every other second, not at every call."""
    issuer.status = 503
    token = issuer.signer.sign(user_claims())
    for _ in range(3):
        assert (await refusal_of(identity, token)).status == "UNAVAILABLE"
    assert issuer.fetch_count == 1
    clock.shift_s = 3
    issuer.status = 200
    assert (await caller_of(identity, token)).uid == "u1"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": []}', b"\xff", b'{"keys": [{}]}'])
async def test_without_keys_nobody_is_let_in(
    identity: Identity, issuer: JwkIssuer, body: bytes
) -> None:
    """Nobody can tell then: the client may try again."""
    issuer.raw_body = body
    refused = await refusal_of(identity, issuer.signer.sign(user_claims()))
    assert refused.status == "UNAVAILABLE"
    assert "127.0.0.1" not in str(refused)


async def test_keys_of_another_kind_are_left_out(identity: Identity, issuer: JwkIssuer) -> None:
    """A shared secret that was published by mistake would let everybody sign."""
    secret = {"kty": "oct", "kid": "f1", "alg": "HS256", "k": base64.urlsafe_b64encode(b"x" * 32)}
    plain = {name: v.decode() if isinstance(v, bytes) else v for name, v in secret.items()}
    issuer.raw_body = json.dumps({"keys": [plain, JwkKey("f3").jwk]}).encode()
    for algorithm in ("HS256", "RS256"):
        refused = await refusal_of(identity, issuer.signer.sign(user_claims(), alg=algorithm))
        assert refused.status == "UNAUTHENTICATED"


async def test_the_emulators_tokens_are_taken_where_it_is_named(issuer: JwkIssuer) -> None:
    """They are unsigned; all else is verified, and what is signed is of somewhere else."""
    rules = identity_rules(project=PROJECT, emulator_host="127.0.0.1:9099")
    identity = Identity(rules, ForwardClock(), app_check=None)
    unsigned = issuer.signer.sign(user_claims("u5"), alg="none")
    assert (await caller_of(identity, unsigned)).uid == "u5"
    for wrong in (
        issuer.signer.sign(user_claims()),
        issuer.signer.sign(user_claims(expires_in_s=-60), alg="none"),
        issuer.signer.sign(user_claims(aud="other"), alg="none"),
        issuer.signer.sign(user_claims(iss="https://securetoken.google.com/x"), alg="none"),
        issuer.signer.sign(user_claims(auth_time=99_999_999_999), alg="none"),
        issuer.signer.sign(user_claims(exp=[1]), alg="none"),
        unsigned + "x",
    ):
        assert (await refusal_of(identity, wrong)).status == "UNAUTHENTICATED"
    assert issuer.fetch_count == 0


def test_the_emulator_and_a_real_project_exclude_each_other() -> None:
    """One forgotten variable would let anybody in as anybody."""
    with pytest.raises(ConfigError, match="FIREBASE_AUTH_EMULATOR_HOST"):
        identity_rules(project="production", emulator_host="127.0.0.1:9099")


@pytest.mark.parametrize(
    "settings",
    [
        {"keys_url": "http://keys.example.com/jwks"},
        {"keys_url": "ftp://127.0.0.1/jwks"},
        {"service_audience": AUDIENCE},
        {"service_accounts": [ACCOUNT]},
        {
            "service_audience": AUDIENCE,
            "service_accounts": [ACCOUNT],
            "service_certs_url": "http://keys.example.com/certs",
        },
    ],
)
def test_rules_that_would_let_others_in_are_refused(settings: dict[str, Any]) -> None:
    """Before anything listens."""
    with pytest.raises(ConfigError):
        identity_rules(project=PROJECT, **settings)


async def test_an_allow_listed_service_is_let_in(issuer: JwkIssuer, google: Issuer) -> None:
    """Beside users, by the token that Google gives its service account."""
    rules = IdentityRules(project=PROJECT, keys_url=issuer.url, services=google.rules)
    identity = Identity(rules, ForwardClock(), app_check=None)
    service = await caller_of(identity, google.key.token())
    assert service == Caller(uid=ACCOUNT, is_service=True)
    assert (await caller_of(identity, issuer.signer.sign(user_claims()))).uid == "u1"
    for token, status in (
        (google.key.token(email="mallory@demo.iam.gserviceaccount.com"), "PERMISSION_DENIED"),
        (google.key.token(email_verified=False), "PERMISSION_DENIED"),
        (google.key.token(aud="https://other.example.com"), "UNAUTHENTICATED"),
        (google.key.token(expires_in_s=-60), "UNAUTHENTICATED"),
        (tampered(google.key.token(email="m@demo.example"), email=ACCOUNT), "UNAUTHENTICATED"),
        (issuer.signer.sign(user_claims(iss="accounts.google.com")), "UNAUTHENTICATED"),
    ):
        assert (await refusal_of(identity, token)).status == status


async def test_without_services_their_tokens_are_nobodys(
    identity: Identity, google: Issuer
) -> None:
    """An account of Google's is no user of the app."""
    assert (await refusal_of(identity, google.key.token())).status == "UNAUTHENTICATED"


@pytest.fixture
def guarded(issuer: JwkIssuer, clock: ForwardClock) -> Identity:
    app_check = AppCheck(project_number=PROJECT_NUMBER, keys_url=issuer.url, clock=clock)
    rules = IdentityRules(project=PROJECT, keys_url=issuer.url)
    return Identity(rules, clock, app_check=app_check)


async def test_app_check_names_the_app(guarded: Identity, issuer: JwkIssuer) -> None:
    """Beside the user, whom it says nothing of."""
    user, app = issuer.signer.sign(user_claims()), issuer.signer.sign(app_claims())
    caller = await caller_of(guarded, user, **{"x-firebase-appcheck": app})
    assert (caller.uid, caller.app_id) == ("u1", APP_ID)


@pytest.mark.parametrize(
    "forged",
    [
        lambda _: "",
        lambda _: "x",
        lambda key: key.sign(app_claims(expires_in_s=-60)),
        lambda key: key.sign(app_claims(aud=["projects/1"])),
        lambda key: key.sign(app_claims(iss="https://firebaseappcheck.googleapis.com/1")),
        lambda key: key.sign(app_claims(), alg="none"),
        lambda key: JwkKey(key.key_id).sign(app_claims()),
        lambda key: key.sign(user_claims()),
    ],
)
async def test_without_app_checks_token_nobody_is_let_in(
    guarded: Identity, issuer: JwkIssuer, forged: Make
) -> None:
    """Once it is on, it is on for everybody; a user's token is none of an app's."""
    user, app = issuer.signer.sign(user_claims()), forged(issuer.signer)
    refused = await refusal_of(guarded, user, **{"x-firebase-appcheck": app})
    assert refused.status == "UNAUTHENTICATED"
    assert "App Check" in str(refused)


@pytest.mark.parametrize("number", ["demo-storemirror", "", "12x", "\u0661"])
def test_app_check_wants_the_projects_number(number: str) -> None:
    """The id in its place would refuse everybody, later."""
    with pytest.raises(ConfigError, match="number"):
        AppCheck(project_number=number, keys_url=None, clock=ForwardClock())
