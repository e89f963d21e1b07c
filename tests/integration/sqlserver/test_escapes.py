"""
Texts are stored as they are on a server that leaves JSON's escapes in them, as Babelfish does.

Source of what it leaves:
    tsql_openjson_with_columnize in babelfish-for-postgresql/postgresql_modified_for_babelfish
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from storemirror.clock import SystemClock
from storemirror.event.change import Change, Origin, version_of
from storemirror.event.digest import digest_of
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.model.mapping import JsonScalar, MappedRow
from storemirror.sql.port import RowEvent, UnverifiedDocument
from tests.contract.sql.documents import Documents
from tests.standins.tsql.installed import new_on_postgres
from tests.support.databases import Databases
from tests.support.declarations import EVERY_KIND
from tests.support.tsql_mirrors import SCHEMA, TsqlMirror, tsql_mirror

pytestmark = pytest.mark.postgres

#: Every escape, what looks like one, and what stands for a backslash while they are taken out.
TEXT: Final = 'a "b" \\ \\n \\" \\\\ \\, \\u0001 \n\r\t\b\f\x01\x0b\x1f\u00e9\U0001f600/,'
KEY: Final = 'k"\\n\\,\n\x1fz'
CONTENTS: Final = json.dumps({"quoted": TEXT})
#: What is below a space stays as JSON has it.
FAULT: Final = ("WHILE @Code < 32 AND", "WHILE @Code < 0 AND")


@pytest.fixture
def every_kind(tmp_path: Path) -> Model:
    """Everything that can be declared."""
    file = tmp_path / "every.toml"
    file.write_text(EVERY_KIND)
    return load_model([file])


def event_of(
    model: Model,
    name: str,
    key: tuple[str, ...],
    columns: dict[str, JsonScalar],
    children: dict[str, list[dict[str, JsonScalar]]] | None = None,
) -> RowEvent:
    """Make an event of a document with these contents; what is not named is NULL."""
    entity, at_us = model[name], SystemClock().now_us() - 3_600_000_000
    tables = {
        table.name: [
            {c: row.get(c) for c in (table.key.name, *(c.name for c in table.columns))}
            for row in (children or {}).get(table.name, [])
        ]
        for table in entity.children
    }
    row = MappedRow(
        columns={c.name: columns.get(c.name) for c in entity.columns},
        children=tables,
        raw=CONTENTS if entity.has_raw else None,
        lossy_fields=(TEXT,),
    )
    change = Change(
        path=entity.path_of(key),
        version=version_of(at_us, is_deleted=False),
        origin=Origin.TRIGGER,
        observed_at_us=at_us,
        fields={},
        digest=digest_of({}),
        expected_version=None,
    )
    return RowEvent(entity=entity, change=change, key=key, row=row)


def stored_after(tsql: TsqlMirror) -> list[Any]:
    """Apply texts of every kind, and give what is stored of them."""
    model = tsql.model
    members: list[dict[str, JsonScalar]] = [{"memberId": KEY, "note": TEXT, "anything": CONTENTS}]
    tsql.apply(
        [
            event_of(
                model,
                "Every",
                (KEY, KEY),
                {"text1": TEXT, "order": TEXT, "anything": CONTENTS},
                {"EveryTag": [{"tag": KEY}], "EveryMember": members},
            ),
            event_of(model, "EveryPart", (KEY, KEY, KEY), {"rank": TEXT, "body": TEXT}),
        ]
    )
    tsql.conn.execute(f"UPDATE {SCHEMA}.every SET lastpart = NULL, partcount = 7".encode())
    parents = json.dumps([{"TenantId": KEY, "EveryId": KEY}])
    tsql.call("RecomputeEveryPartRollup", Parents=parents)
    return [
        tsql.conn.execute(query.encode()).fetchall()
        for query in (
            'SELECT tenantid, everyid, text1, "order", first, anything, rawdocument, lossyfields,'
            f" partcount, lastpart, lastrank, lastbody FROM {SCHEMA}.every",
            f"SELECT tag FROM {SCHEMA}.everytag",
            f"SELECT memberid, note, anything FROM {SCHEMA}.everymember",
            f"SELECT rank, body FROM {SCHEMA}.everypart",
        )
    ]


@pytest.mark.parametrize(
    ("leaves_escapes", "fault"),
    [(False, ("", "")), (True, ("", "")), (True, FAULT)],
    ids=["sql-server", "babelfish", "planted"],
)
async def test_a_text_is_stored_as_it_is(
    every_kind: Model,
    new_database: Databases,
    *,
    leaves_escapes: bool,
    fault: tuple[str, str],
) -> None:
    """Keys, texts, JSON, the raw document, child rows, roll-ups, and what a repair asks for."""
    dsn = await new_database()
    with tsql_mirror(
        every_kind, dsn, honours_hints=False, leaves_escapes=leaves_escapes, fault=fault
    ) as tsql:
        found = stored_after(tsql)
    lossy = json.dumps([TEXT])
    expected = [
        [(KEY, KEY, TEXT, TEXT, TEXT, CONTENTS, CONTENTS, lossy, 1, KEY, TEXT, TEXT[:7])],
        [(KEY,)],
        [(KEY, TEXT, CONTENTS)],
        [(TEXT, TEXT)],
    ]
    assert (found == expected) is not (fault is FAULT)


@pytest.mark.parametrize("leaves_escapes", [False, True])
async def test_a_mark_is_stored_and_cleared_by_its_own_key(
    new_database: Databases, *, leaves_escapes: bool
) -> None:
    """A document whose id has a quotation mark must not stay in doubt for ever."""
    model, base_us = load_model(), SystemClock().now_us() - 3_600_000_000
    docs = Documents(model, base_us)
    lost = docs.message(KEY, KEY, 10)
    marks = [
        UnverifiedDocument(
            message_id=f"{KEY}{number}",
            reason=TEXT,
            path=lost.change.path,
            entity="DmMessage",
            key=lost.key,
            version=lost.change.version,
        )
        for number in range(2)
    ]
    async with new_on_postgres(model, new_database, leaves_escapes=leaves_escapes) as sql:
        await sql.mirror.mark_unverified(marks)
        await sql.mirror.mark_unverified(marks)
        listed = await sql.mirror.unverified()
        assert [(m.message_id, m.reason, m.path, m.entity, m.key, m.version) for m in listed] == [
            (m.message_id, m.reason, m.path, m.entity, m.key, m.version) for m in marks
        ]
        assert await sql.mirror.clear_unverified(listed[:1]) == 1
        assert await sql.mirror.clear_overtaken() == 0
        await sql.mirror.apply([docs.message(KEY, KEY, 11)])
        assert await sql.mirror.clear_overtaken() == 1
        assert await sql.mirror.unverified_count() == 0
