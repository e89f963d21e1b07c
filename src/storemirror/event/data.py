"""
The data of an event: the form that is written today, and every form that ever was.

Events wait on a bus, in dead letters and in archives for longer than a release lives, so a form
that was once published stays readable for ever: docs/reference/events.md says how it may change,
and tests/golden keeps events of each.  Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from storemirror.event.change import Origin

#: The form that is written today.
DATA_SCHEMA: Final = "urn:storemirror:event-data:v1"
#: The form of data that name none: the first one.
UNNAMED_SCHEMA: Final = "urn:storemirror:event-data:v1"

# `extra_json_schema` is for the published schema alone; `decode_change` checks these texts itself.
DecimalText: TypeAlias = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": "^[0-9]{1,19}$"})
]
TimeText: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
DigestText: TypeAlias = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": "^([0-9a-f]{64})?$"})
]
#: REST `Value` JSON; what is inside is checked by the mapping, which knows the field's name.
ValueJson: TypeAlias = Annotated[dict[str, object], msgspec.Meta(min_length=1, max_length=1)]


class EventData(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False
):
    """CloudEvents `data`: everything a row is made of.

    64-bit integers travel as decimal strings: a JSON number keeps only 53 bits in many readers.
    """

    #: Document path from the database root.
    path: str
    #: Version, decimal string: twice the commit time in microseconds, plus one for a delete.
    version: DecimalText
    #: Where the change was seen.
    origin: Origin
    #: When the document was seen in this state, RFC 3339, microseconds.
    observed_at: TimeText
    #: SHA-256, hex, of the canonical document; empty where there are no `fields`.
    digest: DigestText = ""
    #: The document's fields as Firestore's REST `Value` JSON; absent for a delete, and where the
    #: reader is to read the document itself.
    fields: dict[str, ValueJson] | None = None
    #: Repairs only: the version the damaged row was seen with, decimal string.
    expected_version: DecimalText | None = None


D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class DataFormat(Generic[D]):
    """How the data of one schema version are read."""

    #: What they are decoded into.
    shape: type[D]
    #: Gives the same in today's form.
    lift: Callable[[D], EventData]


def as_it_is(data: EventData) -> EventData:
    """Give data of today's form."""
    return data


#: Every form that was ever published, by its `dataschema`.  None is ever taken out.
FORMATS: Final[Mapping[str, DataFormat[Any]]] = {DATA_SCHEMA: DataFormat(EventData, as_it_is)}
