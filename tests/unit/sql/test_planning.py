"""What is said of a schema before it is changed; the rest of the plan is tested on databases."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from storemirror.model.load import load_model
from storemirror.sql.catalogue import (
    FoundColumn,
    FoundIndex,
    FoundSchema,
    FoundTable,
    Registered,
    WantedSchema,
    rollup_entry,
)
from storemirror.sql.planning import decide_differences, decide_plan
from storemirror.sql.postgres.rendering import Rendering
from storemirror.sql.postgres.wanted import routines_of, wanted_schema

ORDERS = """
[[entity]]
name     = "ShopOrder"
check    = "orders"
path     = "orders/{orderId}"
category = "sqlMirror"
[entity.columns]
total = { type = "integer", required = true }
[[entity]]
name     = "ShopLine"
check    = "lines"
path     = "orders/{orderId}/lines/{lineId}"
category = "sqlMirror"
[entity.columns]
addedAt = { type = "timestamp" }
[entity.rollup]
into   = "ShopOrder"
count  = "lineCount"
"""


@pytest.fixture
def wanted(tmp_path: Path) -> WantedSchema:
    """A shop's schema."""
    file = tmp_path / "shop.toml"
    file.write_text(ORDERS)
    model = load_model([file], with_builtin=False)
    rendering = Rendering(model, schema_name="storemirror", procedures={})
    return wanted_schema(rendering, project="demo", store="(default)")


def installed(wanted: WantedSchema) -> FoundSchema:
    """Give what is found where all of it is installed."""
    digests = {e.name: e.digest for e in wanted.entities}
    digests |= {rollup_entry(e.name): e.rollup_digest for e in wanted.entities}
    return FoundSchema(
        version=wanted.version,
        project=wanted.project,
        database=wanted.database,
        tables={
            table.name: FoundTable(
                columns={
                    c.name: FoundColumn(
                        type=c.type,
                        is_nullable=c.is_nullable,
                        has_default=c.has_default,
                        expression=c.expression,
                    )
                    for c in table
                },
                indexes={
                    "primary": FoundIndex(definition="", columns=table.key, is_unique=True),
                    **{n: FoundIndex(definition=d) for n, d in table.indexes.items()},
                },
                checks={
                    "state": frozenset({"row_state"}),
                    table.required_name: table.required | {"row_state", "mapping_revision"},
                },
            )
            for table in wanted.tables
        }
        | {name: FoundTable() for name in wanted.own_tables},
        routines={name: frozenset({text}) for name, text in wanted.routines.items()},
        registered={
            name: (Registered(mapping_revision=1, digest=digest),)
            for name, digest in digests.items()
        },
    )


def test_what_is_installed_is_nothing_to_do(wanted: WantedSchema) -> None:
    """And a writer may run."""
    plan = decide_plan(wanted, installed(wanted))
    assert plan.is_empty
    assert plan.to_json() == {
        "is_empty": True,
        "is_refused": False,
        "changes": [],
        "refusals": [],
        "backfills": [],
        "kept": [],
        "notes": [],
    }
    assert decide_differences(wanted, installed(wanted)) == []


def test_a_mapping_that_changed_without_a_new_column_needs_a_backfill(
    wanted: WantedSchema,
) -> None:
    """As when a column takes its value from another field."""
    found = installed(wanted)
    older = (Registered(mapping_revision=4, digest="other"),)
    found = replace(found, registered={**found.registered, "ShopOrder": older})
    plan = decide_plan(wanted, found)
    assert [str(c) for c in plan.changes] == ["register declaration ShopOrder mapping revision 5"]
    assert [str(b) for b in plan.backfills] == [
        "ShopOrder: backfill --check=orders maps its rows anew"
    ]
    assert decide_differences(wanted, found) == [
        "the declaration of ShopOrder is not the one installed"
    ]


def test_a_later_version_is_refused(wanted: WantedSchema) -> None:
    """An older release must not put its procedures over those of a newer one."""
    found = replace(installed(wanted), version=wanted.version + 1)
    plan = decide_plan(wanted, found)
    assert plan.is_refused
    assert not plan.is_empty
    assert plan.to_json()["refusals"] == [
        {
            "what": f"schema version {wanted.version + 1} is installed, later than this code's "
            f"{wanted.version}",
            "cure": "use the release that installed it, or a later one",
            "can_alter": False,
        }
    ]
    assert "this code works on" in decide_differences(wanted, found)[0]


def test_a_roll_up_that_ended_is_registered_as_ended(wanted: WantedSchema) -> None:
    """Should it come back, its counts are of another time."""
    entities = tuple(replace(e, rollup_into="", rollup_digest="") for e in wanted.entities)
    plan = decide_plan(replace(wanted, entities=entities), installed(wanted))
    assert [str(c) for c in plan.changes] == [
        "register roll-up ShopLine as ended: its columns stay, with what they hold"
    ]


def test_an_entity_that_is_no_longer_declared_is_told(wanted: WantedSchema) -> None:
    """Its tables stay, and whoever reads them must know that they stand still."""
    plan = decide_plan(replace(wanted, entities=wanted.entities[:1]), installed(wanted))
    assert plan.changes == ()
    assert plan.notes == (
        "ShopLine is no longer declared; its tables stay, and nothing writes them",
    )


def test_a_required_column_that_no_longer_is_leaves_the_constraint(wanted: WantedSchema) -> None:
    """Replaced by one that asks for nothing."""
    tables = tuple(replace(t, required=frozenset()) for t in wanted.tables)
    plan = decide_plan(replace(wanted, tables=tables), installed(wanted))
    assert [str(c) for c in plan.changes] == [
        "replace constraint shop_order_required on shop_order: nothing required"
    ]
    assert plan.notes == ()


def test_a_view_in_place_of_a_table_is_no_list_of_missing_columns(wanted: WantedSchema) -> None:
    """One sentence says it."""
    found = installed(wanted)
    tables = {**found.tables, "shop_line": FoundTable(is_table=False)}
    found = replace(found, tables=tables)
    assert decide_differences(wanted, found) == ["shop_line is there and is no table; rename it"]
    assert decide_plan(wanted, found).kept == ()


def test_missing_things_are_differences(wanted: WantedSchema) -> None:
    """A writer stops before it meets them."""
    found = installed(wanted)
    order = found.tables["shop_order"]
    columns = {n: c for n, c in order.columns.items() if n not in ("total", "line_count")}
    found = replace(found, tables={"shop_order": replace(order, columns=columns)}, routines={})
    differences = decide_differences(wanted, found)
    assert "table shop_line is missing" in differences
    assert "table purge_horizon is missing" in differences
    assert "table shop_order lacks line_count, total" in differences
    assert "procedure storemirror.upsert_shop_line is missing" in differences
    # What only our own procedures call may have another name in a later release.
    assert not any("apply_shop_line" in d for d in differences)


def test_tables_of_our_own_are_told_like_the_others(wanted: WantedSchema) -> None:
    """A release that needs one more is a change of the schema."""
    assert set(wanted.own_tables) >= {"schema_info", "declaration", "purge_horizon"}
    found = installed(wanted)
    tables = {name: t for name, t in found.tables.items() if name != "purge_horizon"}
    plan = decide_plan(wanted, replace(found, tables=tables))
    assert [str(c) for c in plan.changes] == ["add table purge_horizon"]


def test_every_routine_is_compared() -> None:
    """One that the pattern overlooks would never be told as replaced."""
    text = Rendering(load_model(), schema_name="s", procedures={}).procedures_sql()
    routines = routines_of(text)
    assert len(routines) == len(re.findall(r"^CREATE OR REPLACE", text, re.MULTILINE)) > 20
    assert "enable_seqscan=off" in routines["s.apply_dm_message"]
    assert "timezone=utc" in routines["s.apply_dm_message"].lower()
