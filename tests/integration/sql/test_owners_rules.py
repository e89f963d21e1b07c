"""Tables may have indexes and triggers of their owner's, which no plan of an adoption sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import LiteralString

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import EventRefused
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from tests.support.events import written
from tests.support.mirrors import installed_mirror

pytestmark = pytest.mark.postgres

RULES: dict[str, LiteralString] = {
    "unique index": "CREATE UNIQUE INDEX ON storemirror.follow_edge (lower(followee_id))",
    "exclusion": "ALTER TABLE storemirror.follow_edge ADD EXCLUDE USING btree (followee_id WITH =)",
    "trigger": """
        CREATE FUNCTION storemirror.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.follower_id = 'second' AND NEW.row_state = 'live' THEN
                RAISE EXCEPTION '%% may not follow SECRET', NEW.follower_id;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON storemirror.follow_edge
            FOR EACH ROW EXECUTE FUNCTION storemirror.refuse()
    """,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
async def test_a_rule_of_the_tables_owner_refuses_its_event_alone(
    rule: LiteralString, new_database: Callable[[], Awaitable[str]]
) -> None:
    """Taken for the database's refusal, one document would stop the mirror for ever."""
    model = load_model()
    at_us = SystemClock().now_us() - 1_000_000
    first, second, other = (
        written(model, "FollowEdge", key, at_us, createdAt=at_us)
        for key in (("first", "x"), ("second", "x"), ("first", "y"))
    )
    async with installed_mirror(model, await new_database()) as under_test:
        await under_test.execute(rule)
        assert await under_test.mirror.apply([first]) == [Outcome.APPLIED]
        with pytest.raises(EventRefused) as caught:
            await under_test.mirror.apply([second])
        assert caught.value.path == second.change.path
        assert "SECRET" not in str(caught.value)
        with pytest.raises(EventRefused, match="one of 2"):
            await under_test.mirror.apply([second, other])
        assert await under_test.mirror.apply([other]) == [Outcome.APPLIED]
