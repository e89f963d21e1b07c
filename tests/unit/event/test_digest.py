"""Digests: equal exactly when the contents are."""

from __future__ import annotations

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from storemirror.event.change import Fields
from storemirror.event.digest import NO_DIGEST, digest_of
from storemirror.event.value import canonical_fields, encode_fields
from tests.unit.event.documents import DOCUMENT


def shuffled(fields: Fields, seed: int) -> Fields:
    """Give the same fields in another order."""
    names = list(fields)
    random.Random(seed).shuffle(names)
    return {name: fields[name] for name in names}


@given(DOCUMENT, st.integers())
def test_the_order_of_names_does_not_matter(document: dict[str, object], seed: int) -> None:
    """A trigger, a client and a backfill list the same fields in different orders."""
    fields = encode_fields(document)
    assert digest_of(shuffled(fields, seed)) == digest_of(fields)


@given(DOCUMENT, DOCUMENT)
def test_other_contents_have_another_digest(
    left: dict[str, object], right: dict[str, object]
) -> None:
    """Else a change under an equal version would pass for a duplicate."""
    assume(encode_fields(left) != encode_fields(right))
    assert digest_of(encode_fields(left)) != digest_of(encode_fields(right))


def test_the_type_of_a_number_is_part_of_the_contents() -> None:
    """The integer 3 and the double 3.0 are two values to Firestore."""
    assert digest_of(encode_fields({"n": 3})) != digest_of(encode_fields({"n": 3.0}))


def test_a_field_that_is_null_is_not_a_field_that_is_missing() -> None:
    """Both are NULL in a column; the document is still another one."""
    assert digest_of(encode_fields({"a": None})) != digest_of({})


def test_a_deleted_document_has_the_empty_digest() -> None:
    """It has no contents, and an empty document is something else."""
    assert digest_of(None) == NO_DIGEST
    assert digest_of(canonical_fields({})) != NO_DIGEST


def test_digests_stay_what_they_are() -> None:
    """They are stored in rows: another spelling would repair every row of every mirror."""
    assert digest_of(encode_fields({"b": 1.5, "a": ["x", None]})) == (
        "317611e62711c664de580ab8414519ec843aeea94fbdf8c05e4b1c3f1a225b08"
    )
