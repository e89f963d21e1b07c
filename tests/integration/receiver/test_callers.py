"""Who may deliver: a forged event would write rows, so every way of forging one is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from storemirror.errors import ConfigError
from storemirror.source.receiver_auth import caller_rules
from tests.integration.apply.pipe import Pipe
from tests.integration.receiver.hosted import Hosted, hosted
from tests.integration.receiver.issuer import (
    ACCOUNT,
    AUDIENCE,
    Issuer,
    Key,
    running_issuer,
    tampered,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer(Issuer()) as opened:
        yield opened


@pytest.fixture
async def guarded(pipe: Pipe, issuer: Issuer) -> AsyncIterator[Hosted]:
    async with hosted(pipe, callers=issuer.rules) as opened:
        yield opened


async def deliver(receiver: Hosted, token: str) -> int:
    return await receiver.write(Authorization=f"Bearer {token}")


async def test_the_trigger_may_deliver(guarded: Hosted, issuer: Issuer) -> None:
    """Its keys are fetched once, not for every delivery."""
    statuses = [await deliver(guarded, issuer.key.token()) for _ in range(5)]
    assert statuses == [204] * 5
    assert await guarded.depth() == 1
    assert issuer.fetch_count == 1


@pytest.mark.parametrize(
    ("forged", "status"),
    [
        (lambda key: key.token(aud="https://other.example.com"), 401),
        (lambda key: key.token(aud=None), 401),
        (lambda key: key.token(aud=[AUDIENCE]), 401),
        (lambda key: key.token(iss="https://accounts.example.com"), 401),
        (lambda key: key.token(email="mallory@demo.iam.gserviceaccount.com"), 403),
        (lambda key: key.token(email=[ACCOUNT]), 403),
        (lambda key: key.token(email=None), 403),
        (lambda key: key.token(email_verified=False), 403),
        (lambda key: key.token(email_verified="true"), 403),
        (lambda key: key.token(expires_in_s=-30), 401),
        (lambda key: key.token(exp=None), 401),
        (lambda key: key.token(exp="never"), 401),
        (lambda key: key.token(iat=10**12), 401),
        (lambda key: key.token(header={"alg": "none"}), 401),
        (lambda key: key.token(header={"alg": "none"}).rpartition(".")[0] + ".", 401),
        (lambda key: key.token(header={"alg": "HS256"}), 401),
        (lambda key: key.token(header={"alg": "ES256"}), 401),
        (lambda key: key.token(header={"kid": "unknown"}), 401),
        (lambda key: key.token(header={"kid": None}), 401),
        (lambda key: key.token(header={"kid": ["k1"]}), 401),
        (lambda _: Key("k1").token(), 401),
        (lambda key: tampered(key.token(aud="other"), aud=AUDIENCE), 401),
        (lambda _: "garbage", 401),
        (lambda _: "a.b.c", 401),
        (lambda _: "W10.W10.W10", 401),
        (lambda _: "", 401),
    ],
)
async def test_a_forged_delivery_writes_nothing(
    guarded: Hosted, issuer: Issuer, forged: Callable[[Key], str], status: int
) -> None:
    """Nothing reaches the bus, and the token is in no log."""
    token = forged(issuer.key)
    with capture_logs() as logs:
        assert await deliver(guarded, token) == status
    assert await guarded.depth() == 0
    assert guarded.publisher.sizes == []
    (line,) = logs
    assert line["event"] == "receiver.caller_refused"
    assert not token or token not in str(logs)
    assert await guarded.counts() == {"caller_refused_count": 1}


async def test_a_caller_without_a_token_is_refused(guarded: Hosted) -> None:
    """Before its body is read: strangers do not fill the memory."""
    assert await guarded.write() == 401
    assert await guarded.write(Authorization="Basic dTpw") == 401
    assert await guarded.depth() == 0


async def test_a_new_key_is_fetched_when_a_token_names_it(guarded: Hosted, issuer: Issuer) -> None:
    """Google changes keys every few days; strangers' key ids must not make us ask each time."""
    assert await deliver(guarded, issuer.key.token()) == 204
    new = Key("k2")
    issuer.keys = [new]
    assert [await deliver(guarded, new.token()) for _ in range(3)] == [401] * 3
    assert issuer.fetch_count == 1
    guarded.clock.shift_s = 31.0
    assert await deliver(guarded, new.token()) == 204
    assert issuer.fetch_count == 2
    assert await deliver(guarded, issuer.key.token()) == 401


async def test_without_keys_nobody_is_let_in(guarded: Hosted, issuer: Issuer) -> None:
    """503, not 401: the delivery comes again and is taken when the keys can be had."""
    issuer.status = 500
    tokens = [deliver(guarded, issuer.key.token()) for _ in range(10)]
    assert await asyncio.gather(*tokens) == [503] * 10
    assert issuer.fetch_count == 1, "all who waited share one failure"
    issuer.status = 200
    guarded.clock.shift_s = 3.0
    assert await deliver(guarded, issuer.key.token()) == 204


async def test_an_answer_without_keys_lets_nobody_in(guarded: Hosted, issuer: Issuer) -> None:
    """A wrong address that answers all the same, as a proxy's page does."""
    issuer.keys = []
    assert await deliver(guarded, issuer.key.token()) == 503


async def test_an_address_where_nobody_answers_lets_nobody_in(pipe: Pipe, issuer: Issuer) -> None:
    """The reason is logged; nothing is lost, it is delivered again."""
    rules = replace(issuer.rules, certs_url="http://127.0.0.1:1/certs")
    async with hosted(pipe, callers=rules) as receiver:
        assert await deliver(receiver, issuer.key.token()) == 503
        assert await receiver.depth() == 0


async def test_old_keys_are_not_trusted_for_ever(guarded: Hosted, issuer: Issuer) -> None:
    """A key that was withdrawn must stop working, though its issuer cannot be asked."""
    assert await deliver(guarded, issuer.key.token()) == 204
    issuer.status = 500
    assert await deliver(guarded, issuer.key.token()) == 204
    guarded.clock.shift_s = 3_600.0
    assert await deliver(guarded, issuer.key.token()) == 503


@pytest.mark.parametrize(
    ("host", "audience", "accounts", "words"),
    [
        ("0.0.0.0", None, (), "triggers.audience and triggers.service_accounts"),
        ("::", "", (), "other machines"),
        ("receiver.example.com", None, (), "other machines"),
        ("0.0.0.0", AUDIENCE, (), "triggers.service_accounts is not set"),
        ("127.0.0.1", None, (ACCOUNT,), "triggers.audience is not set"),
    ],
)
def test_an_open_receiver_does_not_start(
    host: str, audience: str | None, accounts: Collection[str], words: str
) -> None:
    """Whoever reaches it could write rows."""
    with pytest.raises(ConfigError, match=words):
        caller_rules(host=host, audience=audience, service_accounts=accounts)


@pytest.mark.parametrize("url", ["http://example.com/certs", "ftp://127.0.0.1/", "certs.json", ""])
def test_keys_do_not_come_over_an_open_line(url: str) -> None:
    """Whoever changes the keys on the way signs tokens of his own."""
    with pytest.raises(ConfigError, match=r"triggers\.certs_url"):
        caller_rules(host="::", audience=AUDIENCE, service_accounts=(ACCOUNT,), certs_url=url)


def test_on_loopback_callers_may_be_asked_too() -> None:
    """Behind a proxy on the same machine."""
    rules = caller_rules(host="127.0.0.1", audience=AUDIENCE, service_accounts=[ACCOUNT])
    assert rules is not None
    assert rules.service_accounts == {ACCOUNT}
