"""An issuer of Firebase's tokens, and calls over handlers in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.hosted import CallsUnderTest
from tests.integration.gateway.issuers import JwkIssuer
from tests.integration.receiver.issuer import Issuer, running_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[JwkIssuer]:
    async with running_issuer(JwkIssuer()) as opened:
        yield opened


@pytest.fixture
async def google() -> AsyncIterator[Issuer]:
    async with running_issuer(Issuer()) as opened:
        yield opened


@pytest.fixture
def under_test(issuer: JwkIssuer) -> CallsUnderTest:
    return CallsUnderTest(issuer)
