"""What could not be applied is purged, and remembered."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import Operator
from tests.acceptance.test_operator import MESSAGE, conversation, message, write_documents

pytestmark = pytest.mark.postgres


async def test_a_purge_asks_and_is_remembered_until_a_check_is_clean(deployed: Operator) -> None:
    """What was thrown away is in doubt until something shows that it does no harm."""
    await write_documents(deployed, conversation(), message(body=7))
    await deployed.runs("drain")
    refused = await deployed.runs("dlq", "purge")
    assert refused.status == 2
    assert "--yes" in refused.err
    chosen = ("--reason", "MappingFailed", "--older-than-days", "0")
    purged = await deployed.runs("dlq", "purge", "--yes", "--json", *chosen)
    assert purged.json() == {"purged_count": 1, "gone_before_count": 0}
    found = (await deployed.runs("bus", "status", "--json")).json()
    assert (found["dead_letter_count"], found["unverified_count"]) == (0, 1)
    listed = (await deployed.runs("dlq", "unverified", "--json")).json()
    assert [mark["path"] for mark in listed["unverified"]] == [MESSAGE]

    checked = await deployed.runs("check")
    assert checked.status == 1, "the document does not fit still"
    assert "unverified documents: 1" in checked.out
    await write_documents(deployed, message(body="mended"))
    assert (await deployed.runs("drain")).json()["verified"] == 1
    cleared = (await deployed.runs("check", "--json")).json()
    assert (cleared["is_clean"], cleared["unverified_count"]) == (True, 0)
