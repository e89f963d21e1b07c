"""Every value that Firestore can hold, through event and procedure into a row, bit for bit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storemirror.bus.port import SUBSCRIPTION_SQL_WRITER, SubscriptionSpec, TopicSpec
from storemirror.clock import SystemClock
from storemirror.event.value import GeoPoint, Reference, encode_fields
from storemirror.model.entity import Model
from storemirror.source.port import Write
from tests.integration.apply.pipe import Pipe, memory_bus
from tests.integration.firestore.app import App, opened_app
from tests.support.databases import Databases
from tests.support.mirrors import new_mirror
from tests.unit.check.samples import ORDER

pytestmark = pytest.mark.postgres

CHARACTER = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTER, max_size=20)
#: Ids and elements that PostgreSQL and the declaration can hold as a key.
KEY = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=8
)
ID = KEY.filter(lambda i: i not in (".", "..") and not (i[:2] == "__" and i[-2:] == "__"))
NAME = TEXT.filter(lambda n: n and not (n[:2] == "__" and n[-2:] == "__"))
MOMENT = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
PLACE = st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180))
REFERENCE = st.just(Reference("projects/p/databases/(default)/documents/users/a"))
INT64 = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    INT64,
    st.floats(),
    TEXT,
    st.binary(max_size=9),
    MOMENT,
    PLACE,
    REFERENCE,
)
NESTED = st.recursive(PLAIN, lambda inner: st.dictionaries(NAME, inner, max_size=3), max_leaves=6)
ORDER_DOCUMENT = st.fixed_dictionaries(
    {"buyer": TEXT},
    optional={
        "note": TEXT | st.none(),
        "count": INT64 | st.none(),
        "price": st.floats() | st.integers(-(2**53), 2**53),
        "isPaid": st.booleans() | st.none(),
        "paidAt": MOMENT | st.none(),
        "proof": st.binary(max_size=40),
        "product": REFERENCE,
        "place": PLACE,
        "extra": NESTED | st.lists(NESTED, max_size=3),
        "address": st.fixed_dictionaries(
            {}, optional={"home": st.fixed_dictionaries({"city": TEXT})}
        ),
        "tags": st.lists(KEY, max_size=3),
        "weights": st.dictionaries(ID, st.floats(), max_size=2),
        "undeclared": NESTED,
    },
)


@pytest.fixture
async def shop(
    emulator_host: str,
    firestore_project: str,
    new_database: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[App]:
    """An app whose entity has every type of column, and keeps the document whole."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    model = Model((ORDER,))
    async with memory_bus() as bus, new_mirror(model, new_database) as under_test:
        await bus.admin.provision(
            TopicSpec(subscriptions=(SubscriptionSpec(name=SUBSCRIPTION_SQL_WRITER),))
        )
        pipe = Pipe(
            model,
            under_test,
            bus.publisher,
            bus.admin,
            bus.new_consumer,
            SystemClock(),
            bus.expire_locks,
        )
        async with opened_app(emulator_host, firestore_project, pipe) as opened:
            yield opened


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(orders=st.dictionaries(st.tuples(ID, ID), ORDER_DOCUMENT, min_size=1, max_size=20))
async def test_every_document_is_in_its_row_bit_for_bit(
    shop: App, orders: Mapping[tuple[str, str], Mapping[str, object]]
) -> None:
    """The check reads both sides by a way of its own, the whole document included."""
    await shop.store.commit(
        [
            Write(path=ORDER.path_of(key), fields=encode_fields(document))
            for key, document in orders.items()
        ]
    )
    await shop.backfill()
    await shop.settle()
    found = await shop.check()
    assert await shop.pipe.dead_letters() == []
    assert found.mismatches == ()
    assert found.counts["orders"].row_count == found.counts["orders"].document_count >= len(orders)
    assert found.is_clean


async def test_a_value_that_does_not_fit_is_set_aside_alone(shop: App) -> None:
    """One user's odd document must not hold up the others, and its reason says what to mend."""
    good = {"buyer": "ann", "count": 1}
    documents = {f"shops/s1/orders/o{n}": good for n in range(5)}
    await shop.write({**documents, "shops/s1/orders/odd": {"buyer": "ann", "count": "secret"}})
    await shop.backfill()
    await shop.settle()
    [letter] = await shop.pipe.dead_letters()
    assert letter.reason == "MappingFailed"
    assert "field count: declared integer, found string" in letter.description
    assert "shops/s1/orders/odd" in letter.description
    assert "secret" not in letter.description
    found = await shop.check()
    assert [m.path for m in found.mismatches] == ["shops/s1/orders/odd"]
    assert found.counts["orders"].row_count == len(documents)
