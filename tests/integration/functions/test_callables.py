"""The callables as Firebase Functions: what is deployed, and one that is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storemirror.gateway.auth import USER_ISSUER
from storemirror.gateway.callables import CALLABLES
from tests.integration.functions.deployment import Deployment
from tests.integration.functions.framework import running_functions
from tests.integration.functions.test_manifest import manifest
from tests.integration.gateway.issuers import JwkIssuer, user_claims
from tests.integration.gateway.world import JSON
from tests.integration.receiver.hosted import call
from tests.integration.receiver.issuer import running_issuer
from tests.support.mirrors import PROJECT

pytestmark = pytest.mark.postgres

ON = {"STOREMIRROR_FUNCTIONS_WITH_GATEWAY": "true"}
SEND = "sqlGatewayDmSend"
OPEN = "sqlGatewayDmOpenConversation"


def test_the_callables_are_deployed_when_they_are_asked_for(functions_folder: Path) -> None:
    """Each as a callable, with the databases' secrets; without the setting none of them."""
    assert not CALLABLES.keys() & manifest(functions_folder)["endpoints"].keys()
    endpoints = manifest(functions_folder, **ON)["endpoints"]
    assert endpoints.keys() >= CALLABLES.keys()
    for name in CALLABLES:
        assert endpoints[name]["callableTrigger"] == {}
        secrets = {secret["key"] for secret in endpoints[name]["secretEnvironmentVariables"]}
        assert secrets >= {"STOREMIRROR_BUS_DSN", "STOREMIRROR_SQL_DSN"}


async def test_a_callable_answers_as_the_gateway_s_own_server_does(
    functions_folder: Path, deployment: Deployment, emulator_host: str, tmp_path: Path
) -> None:
    """The same handlers, tokens and errors (issue 7)."""
    deployment.variables.update(ON, FIRESTORE_EMULATOR_HOST=emulator_host)
    async with running_issuer(JwkIssuer()) as issuer:
        deployment.variables["STOREMIRROR_GATEWAY_AUTH_KEYS_URL"] = issuer.url
        deployment.variables["STOREMIRROR_GATEWAY_DUAL_WRITE"] = "true"

        async def called(port: int, uid: str | None, data: object) -> Any:
            headers = dict(JSON)
            if uid is not None:
                token = issuer.signer.sign(user_claims(uid, aud=PROJECT, iss=USER_ISSUER + PROJECT))
                headers["authorization"] = f"Bearer {token}"
            body = json.dumps({"data": data}).encode()
            answer = await call(port, "POST", "/", headers, body)
            return answer.status, json.loads(answer.body)

        environment = deployment.environment
        with running_functions(functions_folder, (OPEN, SEND), environment, tmp_path) as started:
            opening = {"conversationId": "c-functions", "participantIds": ["ben"]}
            status, opened = await called(started[OPEN].port, "ann", opening)
            assert (status, opened["result"]["mirrored"]) == (200, True)
            message = {"conversationId": "c-functions", "messageId": "m1", "body": "hi"}
            status, sent = await called(started[SEND].port, "ann", message)
            assert (status, sent["result"]["message"]["body"]) == (200, "hi")
            for uid, expected in ((None, "UNAUTHENTICATED"), ("eve", "NOT_FOUND")):
                _, refused = await called(started[SEND].port, uid, message)
                assert refused["error"]["status"] == expected
