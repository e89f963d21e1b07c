"""Events as they were once published are readable for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from storemirror.errors import EnvelopeInvalid
from storemirror.event.change import Change, Origin
from storemirror.event.data import DATA_SCHEMA, FORMATS, DataFormat, EventData, as_it_is
from storemirror.event.digest import digest_of
from storemirror.event.envelope import (
    EnvelopeReader,
    Reference,
    decode_change,
    decode_event,
    encode_change,
    source_of,
)
from tests.unit.event.test_envelope import a_body, a_change

GOLDEN = Path(__file__).parents[2] / "golden"
SOURCE = source_of("demo", "(default)")
#: SHA-256 of every golden event.  Lines are added, and never changed or taken out.
FROZEN = {
    "event-v1/deleted": "782bb209030668e5430521165cc423dbed11a33469a42b8a5abf959c9d726b4c",
    "event-v1/empty-document": "b7560e3b1626930872ce8af8781298e40e4d0cd8c55d8e8fc95ef680f56f2a0e",
    "event-v1/every-kind-of-value": (
        "5b6a6add9acbd728d0ed7a1d4865214fbf90f9abc015f1e78837b3c7c2a261cd"
    ),
    "event-v1/referenced": "41342a48930c4235213a8e2969d21cf1c94331fd15e0c781036270440c354136",
    "event-v1/referenced-repair": (
        "f7c6bc0539ce25f198bb682c4ae7ba66da32e0415a6d33c2200c305109e1cfb8"
    ),
    "event-v1/repair": "c1bda8c66f9620e25a96fc219fb0e83883a2af7fc36ead22569f30466a4f36e4",
    "event-v1/written": "38f14b4ec1d9a0fde807d0d0e20bf0948e84d423dd89d5b2a956b5d5ee6d857b",
    "event-v1/written-without-optional-attributes": (
        "9f69f9b822d3939009f6e899f787d345fc5563563bdb01e2561255bd05298d23"
    ),
}
#: Those that came without their contents, too large for the bus.
REFERENCES = ("event-v1/referenced", "event-v1/referenced-repair")
COMMIT_US = 1_764_111_600_123_456
MESSAGE = "conversations/c1/messages/m1"


def golden(name: str) -> Change:
    """Read a golden event with the reader of today."""
    return decode_change(body_of(name), source=SOURCE)


def body_of(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", FROZEN)
def test_a_golden_event_is_as_it_was(name: str) -> None:
    """Who mends the event instead of the reader breaks everybody's archive."""
    body = body_of(name)
    assert hashlib.sha256(body).hexdigest() == FROZEN[name]


def test_every_golden_event_is_frozen() -> None:
    """A file that is in no list is read by no test."""
    found = {
        str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.glob("event-*/*.json")
    }
    assert found == set(FROZEN)


def test_every_form_has_golden_events() -> None:
    """A form without them could stop being read unseen."""
    bodies = [msgspec.json.decode(path.read_bytes()) for path in GOLDEN.glob("event-*/*.json")]
    assert {body.get("dataschema", DATA_SCHEMA) for body in bodies} == set(FORMATS)


@pytest.mark.parametrize("name", sorted(FROZEN.keys() - REFERENCES))
def test_a_golden_document_has_the_digest_it_was_published_with(name: str) -> None:
    """Another canonical form would make every row look damaged."""
    change = golden(name)
    assert change.digest == digest_of(change.fields)


def test_a_golden_write_is_read() -> None:
    """Every member that a row is made of."""
    change = golden("event-v1/written")
    assert change == Change(
        path=MESSAGE,
        version=2 * COMMIT_US,
        origin=Origin.TRIGGER,
        observed_at_us=COMMIT_US,
        fields={
            "senderId": {"stringValue": "ada"},
            "body": {"stringValue": "hi"},
            "sentAt": {"timestampValue": "2025-11-25T23:00:00.000001Z"},
        },
        digest=change.digest,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert golden("event-v1/written-without-optional-attributes") == change


def test_a_golden_delete_is_read() -> None:
    """Its version is odd, and it was observed later than its commit time."""
    change = golden("event-v1/deleted")
    assert (change.version, change.fields, change.digest) == (2 * COMMIT_US + 1, None, "")
    assert (change.origin, change.observed_at_us) == (Origin.RECONCILE, COMMIT_US + 5)


def test_a_golden_repair_is_read() -> None:
    """The expected version needs all 63 bits."""
    change = golden("event-v1/repair")
    assert (change.origin, change.expected_version) == (Origin.REPAIR, 2**63 - 1)


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("event-v1/referenced", "event-v1/written", None),
        ("event-v1/referenced-repair", "event-v1/repair", 2**63 - 1),
    ],
)
def test_a_golden_reference_is_read(name: str, written: str, expected: int | None) -> None:
    """It leads to the document, and says why: a repair must stay one."""
    whole = golden(written)
    assert decode_event(body_of(name), source=SOURCE) == Reference(
        event_id=whole.event_id,
        path=MESSAGE,
        version=2 * COMMIT_US,
        origin=whole.origin,
        expected_version=expected,
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_a_golden_reference_is_no_change(name: str) -> None:
    """Taken for one, a document without contents would be deleted."""
    with pytest.raises(EnvelopeInvalid):
        golden(name)


class Ancient(msgspec.Struct):
    """Data of a form that was never published: one that could have come before the first."""

    path: str
    commit_time_us: int
    fields: dict[str, dict[str, object]]


def lifted(data: Ancient) -> EventData:
    """Give today's form of it."""
    change = a_change(version=2 * data.commit_time_us, fields=data.fields)
    body = msgspec.json.decode(encode_change(change, source=SOURCE))
    return msgspec.convert(body["data"], EventData)


def test_data_of_an_older_form_are_lifted_to_todays() -> None:
    """The day there is a second form, both go one way through the writer."""
    reader = EnvelopeReader(
        {"urn:older": DataFormat(Ancient, lifted), DATA_SCHEMA: DataFormat(EventData, as_it_is)},
        newest=DATA_SCHEMA,
    )
    old = msgspec.json.decode(a_body(dataschema="urn:older"))
    fields = old["data"]["fields"]
    old["data"] = {"path": MESSAGE, "commit_time_us": 10, "fields": fields}
    assert reader.read(msgspec.json.encode(old)).data == reader.read(a_body()).data


def test_an_older_form_is_not_guessed_at() -> None:
    """Data of today's form that call themselves older do not have that form."""
    reader = EnvelopeReader(
        {"urn:older": DataFormat(Ancient, lifted), DATA_SCHEMA: DataFormat(EventData, as_it_is)},
        newest=DATA_SCHEMA,
    )
    with pytest.raises(EnvelopeInvalid, match="does not have our form"):
        reader.read(a_body(dataschema="urn:older"))
