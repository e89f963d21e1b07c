"""What a person sees of `backfill`, `reconcile` and `check` when Firestore is not as hoped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from storemirror.clock import EPOCH
from storemirror.event.value import encode_fields
from storemirror.source.port import Write
from tests.acceptance.conftest import Finished, Operator
from tests.support.faulty_firestore import Fault, FaultyFirestore, faulty_firestore

pytestmark = pytest.mark.postgres

COMMANDS = {
    "backfill": ("backfill", "--yes"),
    "reconcile": ("reconcile", "--yes"),
    "check": ("check",),
}
MESSAGE = {"senderId": "u1", "sentAt": EPOCH}


@pytest.fixture
async def faulty(emulator_host: str) -> AsyncIterator[FaultyFirestore]:
    async with faulty_firestore(emulator_host) as server:
        yield server


@pytest.fixture
async def on_firestore(
    operator: Operator, faulty: FaultyFirestore, firestore_project: str
) -> Operator:
    """A deployment whose documents are in the emulator, behind a server that fails on request."""
    environment = {
        **operator.environment,
        "STOREMIRROR_DOCUMENTS_KIND": "firestore",
        "STOREMIRROR_FIRESTORE_PROJECT": firestore_project,
        "FIRESTORE_EMULATOR_HOST": faulty.host,
        # What is in trouble here stays so.
        "STOREMIRROR_FIRESTORE_RETRY_WITHIN_S": "0.5",
    }
    return await Operator(environment, operator.folder).deploys()


async def all_ended(operator: Operator, **variables: str) -> Mapping[str, Finished]:
    """Run the three commands side by side: each repeats its calls for a while."""
    ended = await asyncio.gather(*(operator.runs(*c, **variables) for c in COMMANDS.values()))
    return dict(zip(COMMANDS, ended, strict=True))


async def write(operator: Operator, documents: Mapping[str, Mapping[str, Any]]) -> None:
    async with operator.parts() as parts:
        store = await parts.store()
        await store.commit(
            [Write(path=path, fields=encode_fields(d)) for path, d in documents.items()]
        )


def assert_clear(ended: Finished, *, status: int, says: str) -> None:
    """See one message that names the matter, one next step, and no traceback."""
    assert ended.status == status, ended.err
    assert says in ended.err
    assert "\nnext:" in ended.err or ended.err.startswith("next:")
    assert "Traceback" not in ended.err
    assert "internal error" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (
            grpc.StatusCode.PERMISSION_DENIED,
            "Missing or insufficient permissions.",
            "the caller needs roles/datastore.viewer to read",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.", "a quota is used up"),
    ],
    ids=["permission denied", "quota exhausted"],
)
async def test_a_refusal_is_said_with_what_mends_it(
    on_firestore: Operator,
    faulty: FaultyFirestore,
    code: grpc.StatusCode,
    words: str,
    says: str,
) -> None:
    """Google's own words alone send people to the wrong page."""
    faulty.lasting = Fault(code=code, words=words)
    for ended in (await all_ended(on_firestore)).values():
        assert_clear(ended, status=5, says=says)
        assert words in ended.err
    assert not (on_firestore.folder / ".storemirror-backfill.json").exists()


async def test_no_emulator_is_said_with_where_it_was_looked_for(on_firestore: Operator) -> None:
    """The commonest mistake on a laptop: it was not started, or on another port."""
    for ended in (await all_ended(on_firestore, FIRESTORE_EMULATOR_HOST="127.0.0.1:1")).values():
        assert_clear(ended, status=5, says="see whether this machine reaches it")
        assert on_firestore.environment["STOREMIRROR_FIRESTORE_PROJECT"] in ended.err


async def test_a_read_time_that_is_too_old_is_said_and_the_backfill_goes_on(
    on_firestore: Operator, faulty: FaultyFirestore
) -> None:
    """A long scan outlives its moment; what was read of it is not paid for again."""
    await write(on_firestore, {f"users/u{n}/blocks/v": {"createdAt": None} for n in range(4)})
    faulty.lasting = Fault(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        words="The requested snapshot version is too old.",
    )
    faulty.lasting_method = "RunQuery"
    for ended in (await all_ended(on_firestore)).values():
        assert_clear(ended, status=5, says="a read time reaches back one hour")
    faulty.lasting = None
    ended = await on_firestore.runs("backfill", "--yes", "--direct", "--json")
    assert ended.status == 0, ended.err
    assert ended.json()["document_count"] == 4
    assert (await on_firestore.runs("check")).status == 0


async def test_an_empty_collection_is_done_at_once(on_firestore: Operator) -> None:
    """A project whose users have not written yet is in order, and costs next to nothing."""
    ended = await all_ended(on_firestore)
    assert [e.status for e in ended.values()] == [0, 0, 0], ended
    assert "all is read" in ended["backfill"].out
    assert "both sides agree" in ended["check"].out
    assert "0 documents" in ended["reconcile"].out


def nested(levels: int) -> object:
    """Give a map in a map in a map."""
    return {"in": nested(levels - 1)} if levels else "deepest"


@pytest.mark.parametrize("is_direct", [False, True], ids=["through the bus", "direct"])
async def test_the_largest_and_the_deepest_document_are_mirrored(
    is_direct: bool, on_firestore: Operator
) -> None:
    """Firestore takes 1 MiB and 20 levels, so somebody has them."""
    await write(
        on_firestore,
        {
            "conversations/c/messages/large": {**MESSAGE, "body": "x" * 1_040_000},
            "conversations/c/messages/deep": {**MESSAGE, "attachments": nested(19)},
        },
    )
    direct = ("--direct",) if is_direct else ()
    ended = await on_firestore.runs("backfill", "--yes", "--json", *direct)
    assert ended.status == 0, ended.err
    assert (ended.json()["document_count"], ended.json()["unfit"]) == (2, 0)
    if not is_direct:
        assert (await on_firestore.runs("drain")).json()["applied"] == 2
    check = await on_firestore.runs("check", "--json")
    assert check.status == 0, check.err + check.out
    assert check.json()["checks"]["messages"]["row_count"] == 2
