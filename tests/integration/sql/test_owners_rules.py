"""Tables may have indexes and triggers of their owner's, which no plan of an adoption sees."""

from __future__ import annotations

import pytest

from storemirror.clock import SystemClock
from storemirror.errors import EventRefused
from storemirror.event.change import Outcome
from storemirror.model.load import load_model
from tests.contract.sql.side_door import Server
from tests.support.events import written

#: Dialect -> rules for its table of edges, in {schema}: whoever is called "second" may not follow.
RULES = {
    "postgres": {
        "unique index": "CREATE UNIQUE INDEX ON {schema}.follow_edge (lower(followee_id))",
        "exclusion": "ALTER TABLE {schema}.follow_edge ADD EXCLUDE (followee_id WITH =)",
        "trigger": """
            CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.follower_id = 'second' AND NEW.row_state = 'live' THEN
                    RAISE EXCEPTION '% may not follow SECRET', NEW.follower_id;
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {schema}.follow_edge
                FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()
        """,
    },
    "sqlserver": {
        "unique index": "CREATE UNIQUE INDEX Mine ON [{schema}].FollowEdge (FolloweeId);",
        "trigger": """
            CREATE TRIGGER [{schema}].Refuse ON [{schema}].FollowEdge AFTER INSERT, UPDATE AS
            BEGIN
                SET NOCOUNT ON;
                IF EXISTS (
                    SELECT 1 FROM inserted AS i
                    WHERE i.FollowerId = N'second' AND i.RowState = N'live'
                )
                    THROW 50001, N'second may not follow SECRET', 1;
            END;
        """,
    },
}


@pytest.mark.parametrize("rule", RULES["postgres"])
async def test_a_rule_of_the_tables_owner_refuses_its_event_alone(
    rule: str, server: Server, dialect: str
) -> None:
    """Taken for the database's refusal, one document would stop the mirror for ever."""
    model = load_model()
    at_us = SystemClock().now_us() - 1_000_000
    first, second, other = (
        written(model, "FollowEdge", key, at_us, createdAt=at_us)
        for key in (("first", "x"), ("second", "x"), ("first", "y"))
    )
    if rule not in RULES[dialect]:
        pytest.skip(f"needs SQL Server to have rules of this kind, {rule}, which it has not")
    under_test = await server.installed(model)
    text = RULES[dialect][rule].format(schema=under_test.spelling.schema_name)
    await under_test.execute_text(text)
    assert await under_test.mirror.apply([first]) == [Outcome.APPLIED]
    with pytest.raises(EventRefused) as caught:
        await under_test.mirror.apply([second])
    assert caught.value.path == second.change.path
    assert "SECRET" not in str(caught.value)
    with pytest.raises(EventRefused, match="one of 2"):
        await under_test.mirror.apply([second, other])
    assert await under_test.mirror.apply([other]) == [Outcome.APPLIED]
