"""What is rendered for SQL Server, and what is refused before anything is opened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storemirror.errors import ConfigError
from storemirror.model.load import load_model
from storemirror.sql.grants import Job
from storemirror.sql.patience import LockPatience
from storemirror.sql.sqlserver.grants import grants_sql
from storemirror.sql.sqlserver.naming import MAX_IDENTIFIER_UNITS, quoted
from storemirror.sql.sqlserver.rendering import (
    DEFAULT_SCHEMA,
    DEPLOY_FILE,
    OWN_TABLES,
    Rendering,
)
from storemirror.sql.sqlserver.tables import expression_of, wanted_tables
from storemirror.sql.sqlserver.wanted import routines_of, wanted_schema
from tests.house.rules import ROOT
from tests.support.declarations import EVERY_KIND, ROLLED_UP_BY_TEXT

#: What Babelfish for PostgreSQL has not, or what SQL Server has and is known to go wrong.
AVOIDED = (
    r"\bMERGE\b",
    r"\bOUTPUT\s+(inserted|deleted)\b",
    r"\bSTRING_AGG\b",
    r"\bWITH\s+NOCHECK\s+ADD\b",
    r"\bSELECT\s+\*",
    r"\bNOLOCK\b",
    r"\.value\(",
    r"\bDATEDIFF_BIG\b",
    # No answer for a constraint there.
    r"OBJECT_ID\([^()]*, N'C'\)",
    # A name of a collation that is not known there.
    r"\bLatin1_General_100_CI_AS\b",
)


def rendering(
    *files: Path, schema_name: str = DEFAULT_SCHEMA, is_drop_create: bool = False, **names: str
) -> Rendering:
    """The built-in entities, and those of these files."""
    return Rendering(
        load_model(files), schema_name=schema_name, procedures=names, is_drop_create=is_drop_create
    )


@pytest.fixture
def every_kind(tmp_path: Path) -> Path:
    """A declaration of everything that can be declared."""
    file = tmp_path / "every.toml"
    file.write_text(EVERY_KIND)
    return file


def statements(text: str) -> str:
    """Take the comments out."""
    return re.sub(r"(?m)--.*$", "", text)


def test_rendering_is_the_same_each_time() -> None:
    """Else the deployment script would never be fresh."""
    assert rendering().deploy_sql() == rendering().deploy_sql()


def test_the_script_is_fresh() -> None:
    """An administrator reads it before running it: it must be what this code works on."""
    script = (ROOT / "deploy" / DEPLOY_FILE).read_text()
    assert rendering().files() == {DEPLOY_FILE: script}, (
        "run `storemirror schema render --dialect sqlserver --out deploy`"
    )


def test_every_number_that_is_thrown_is_explained(every_kind: Path) -> None:
    """Whoever calls a procedure by hand looks the number up; one number means one thing."""
    text = statements(rendering(every_kind).deploy_sql())
    thrown = set(re.findall(r"THROW (\d+),", text))
    coded = set(re.findall(r"N'(SM\d+): ", text))
    page = (ROOT / "docs" / "reference" / "procedures.md").read_text()
    explained = re.findall(r"^\| (51\d{3}) \| (SM\d+)? ?\|", page, re.MULTILINE)
    assert sorted(thrown) == [number for number, _ in explained]
    assert coded == {f"SM{number[2:]}" for number in thrown}
    assert all(number[2:] == code[2:] for number, code in explained if code)


def test_tables_are_in_dbo_by_the_names_of_the_contract() -> None:
    """Dashboards and database administrators rely on them."""
    made = rendering()
    assert made.table("DmMessage") == "[dbo].[DmMessage]"
    assert made.procedure("UpsertDmMessage") == "[dbo].[sp_StoreMirror_UpsertDmMessage]"
    assert made.procedure_parts("GetFollowRelationship") == (
        "dbo",
        "sp_StoreMirror_GetFollowRelationship",
    )


def test_nothing_is_ever_dropped_but_what_is_made_anew(every_kind: Path) -> None:
    """Tables, columns and data outlive every deployment; the guards drop their own two."""
    text = statements(rendering(every_kind).deploy_sql()).upper()
    drops = set(re.findall(r"\bDROP\s+(?:TABLE\s+\S+|\w+)", text))
    assert drops == {
        "DROP CONSTRAINT",
        "DROP INDEX",
        "DROP TABLE #WANTED;",
        "DROP TABLE #WRONG;",
    }
    assert "TRUNCATE" not in text


@pytest.mark.parametrize("pattern", AVOIDED)
def test_what_other_servers_lack_is_not_used(pattern: str, every_kind: Path) -> None:
    """The same text runs on Babelfish; MERGE is known for its races on SQL Server as well."""
    text = statements(rendering(every_kind).deploy_sql())
    assert re.search(pattern, text, re.IGNORECASE) is None


def test_an_option_that_babelfish_lacks_is_met_by_sql_server_alone(every_kind: Path) -> None:
    """It is never parsed elsewhere: it stands in a string, behind a question."""
    batches = rendering(every_kind).tables_batches()
    asking = "IF @@VERSION LIKE N'Microsoft SQL%' AND SERVERPROPERTY('BabelfishVersion') IS NULL\n"
    for batch in batches:
        for place in re.finditer("LOCK_ESCALATION", batch):
            line = batch.rindex("\n", 0, place.start()) + 1
            assert batch[line:].startswith("    EXEC (N'ALTER TABLE ")
            assert batch[:line].endswith(asking)


def test_the_length_of_a_key_is_counted_in_characters(every_kind: Path) -> None:
    """Babelfish's DATALENGTH counts bytes of UTF-8: a key of 100 umlauts would be too long."""
    text = statements(rendering(every_kind).deploy_sql())
    checks = re.findall(r"(\w+)\((?:\w\.)?\[\w+\](?: \+ N'\.')?\) > \d", text)
    assert set(checks) == {"LEN"}


def test_every_text_out_of_json_is_rid_of_its_escapes(every_kind: Path) -> None:
    """What is staged without that is another text on Babelfish."""
    staged = 0
    for batch in rendering(every_kind).procedures_batches():
        # Names and digests of declarations have nothing to escape, and the probe is one.
        read = re.findall(r"\bOPENJSON\((?!@Declarations|N')", batch)
        tables = [
            found[1]
            for statement in re.split(r";|\bBEGIN\b", batch)
            if "OPENJSON(" in statement and (found := re.search(r"INSERT INTO (#\w+)", statement))
        ]
        assert len(tables) == len(read)
        staged += len(tables)
        for table in tables:
            assert f"IF @IsEscaped = 1 AND EXISTS (SELECT 1 FROM {table} AS x" in batch
    assert staged > 10


def test_every_table_keeps_its_row_locks(every_kind: Path) -> None:
    """An escalated lock would hold up every other lane until the batch is done."""
    made = rendering(every_kind)
    text = "\n".join(made.tables_batches())
    for table in wanted_tables(made.model):
        name = made.qualified(table.name)
        assert f"ALTER TABLE {name} SET (LOCK_ESCALATION = DISABLE)" in text


def test_the_script_has_the_patience_of_schema_apply(every_kind: Path) -> None:
    """Without it a table was waited for without end, and everybody else behind that."""
    patience = LockPatience()
    made = rendering(every_kind)
    script, _, _ = made.deploy_sql().partition("-- Tables of the mirror.")
    waits = re.findall(r"SET LOCK_TIMEOUT (\S+);", script)
    assert waits == [str(patience.wait_ms)]
    assert script.index("SET LOCK_TIMEOUT") < script.index("BEGIN TRANSACTION")
    assert script.count("sys.sp_getapplock") == script.count(f"@LockTimeout = {patience.wait_ms};")
    assert f"IF @TryCount = {patience.try_count}\n" in script
    assert "WAITFOR DELAY '00:00:04.000';" in script
    [lock] = made.lock_tables_batches()
    assert re.findall(r"ALTER TABLE (\S+) SET", lock) == [
        made.qualified(table.name) for table in wanted_tables(made.model)
    ]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([Job.READ], ["SELECT, VIEW DEFINITION ON SCHEMA::[dbo]"]),
        (
            [Job.WRITE],
            [
                "SELECT, EXECUTE, VIEW DEFINITION ON SCHEMA::[dbo]",
                "INSERT, UPDATE ON [dbo].[StoreMirrorUnverifiedDocument]",
            ],
        ),
        (
            [Job.WRITE, Job.CHECK, Job.DEAD_LETTERS],
            [
                "SELECT, EXECUTE, VIEW DEFINITION ON SCHEMA::[dbo]",
                "INSERT, UPDATE, DELETE ON [dbo].[StoreMirrorUnverifiedDocument]",
            ],
        ),
        (
            [Job.REBASE],
            [
                "SELECT, UPDATE, EXECUTE, VIEW DEFINITION ON SCHEMA::[dbo]",
                "INSERT, UPDATE ON [dbo].[StoreMirrorRebase]",
                "INSERT, UPDATE, DELETE ON [dbo].[StoreMirrorUnverifiedDocument]",
            ],
        ),
    ],
    ids=["read", "write", "several", "rebase"],
)
def test_the_rights_of_a_job_are_those_of_the_page(jobs: list[Job], expected: list[str]) -> None:
    """Procedures have their rights on tables by ownership."""
    script = grants_sql(rendering(), role="a]b", jobs=jobs)
    granted = re.findall(r"^GRANT (.*) TO \[a\]\]b\];$", script, re.MULTILINE)
    assert granted == expected


def test_procedures_are_dropped_only_where_it_is_asked_for(every_kind: Path) -> None:
    """CREATE OR ALTER keeps the rights that were given; some servers do not have it."""
    kept = rendering(every_kind).procedures_batches()
    made_anew = rendering(every_kind, is_drop_create=True).procedures_batches()
    assert [b for b in kept if "DROP PROCEDURE" in b] == []
    assert [b for b in made_anew if "CREATE OR ALTER" in b] == []
    dropped = re.findall(r"^DROP PROCEDURE IF EXISTS (\S+);$", "\n".join(made_anew), re.MULTILINE)
    created = re.findall(r"^CREATE PROCEDURE (\S+)$", "\n".join(made_anew), re.MULTILINE)
    assert dropped == created
    assert len(created) == len(routines_of(kept))


def test_both_ways_make_the_same_routines(every_kind: Path) -> None:
    """`schema diff` compares bodies: the way must make no difference to it."""
    kept = routines_of(rendering(every_kind).procedures_batches())
    made_anew = routines_of(rendering(every_kind, is_drop_create=True).procedures_batches())
    assert kept == made_anew


def test_the_script_makes_what_the_driver_makes() -> None:
    """After `sqlcmd` has put its variables in, `schema diff` must find nothing to do."""
    made = rendering(schema_name="my_schema", SQL_PROC_LOCK_ROWS="other_lock")
    script = made.deploy_sql()
    for name, value in re.findall(r'^:setvar (\w+) "(.*)"$', script, re.MULTILINE):
        script = script.replace(f"$({name})", value)
    found = routines_of(re.split(r"(?m)^GO$", script))
    assert found == routines_of(made.procedures_batches())
    assert "my_schema.other_lock" in found


def test_the_script_asks_for_the_firestore_alone() -> None:
    """Every other name has a value at its head, where it can be changed."""
    script = rendering().deploy_sql()
    used = set(re.findall(r"\$\((\w+)\)", script))
    given = set(re.findall(r"^:setvar (\w+) ", script, re.MULTILINE))
    assert used - given == {"FirestoreProject", "FirestoreDatabase"}
    assert given <= used


def test_the_script_ends_by_confirming_every_mirrored_table() -> None:
    """Whoever ran it sees that each table carries its LastEvent columns."""
    *_, last = (b for b in re.split(r"(?m)^GO$", rendering().deploy_sql()) if b.strip())
    named = re.findall(r"\[\$\(SchemaName\)\]\.\[(\w+)\]", last)
    assert named == ["DmConversation", "DmMessage", "DmMessageAudit", "FollowEdge", "UserBlock"]
    assert "LastEvent" in last


def test_the_text_ends_lines_cleanly_and_keeps_its_indent(every_kind: Path) -> None:
    """Database administrators read it; a loop in the template must leave no traces."""
    text = rendering(every_kind).deploy_sql()
    assert "{%" not in text
    assert "{{" not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    strays = [line for line in text.splitlines() if re.match(r"[\[a-z]", line)]
    assert strays == []
    assert "\n\n\n" not in text


def test_every_procedure_begins_its_body_in_one_place(every_kind: Path) -> None:
    """From there on what is installed is compared with what is wanted."""
    for batch in rendering(every_kind).procedures_batches():
        assert len(re.findall(r"(?m)^AS\nBEGIN$", batch)) == ("CREATE" in statements(batch))
        if "CREATE" in statements(batch):
            assert batch.endswith("\nEND;")


def test_another_schema_has_locks_of_its_own() -> None:
    """Two mirrors in one database must not hold each other up."""
    one, other = rendering(schema_name="one"), rendering(schema_name="other")
    assert one.purge_lock == "storemirror.purge:one"
    assert len({one.purge_lock, one.deploy_lock, one.rebase_lock, other.purge_lock}) == 4


def test_a_schema_has_the_same_lock_however_it_is_spelled() -> None:
    """SQL Server takes DBO for dbo; a lock's name is compared letter by letter."""
    assert rendering(schema_name="DBO").purge_lock == rendering().purge_lock
    assert "LOWER(N'storemirror.purge:DBO')" in "".join(
        rendering(schema_name="DBO").procedures_batches()
    )


def test_a_name_is_quoted() -> None:
    """Declared names may be words of SQL."""
    assert quoted("a]b") == "[a]]b]"


@pytest.mark.parametrize("name", ["x" * (MAX_IDENTIFIER_UNITS + 1), "\U0001f600" * 65])
def test_a_name_that_sql_server_would_refuse_is_refused_before(name: str) -> None:
    """It counts UTF-16 code units."""
    with pytest.raises(ConfigError, match="at most 128 characters"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE=name)
    with pytest.raises(ConfigError, match="at most 128 characters"):
        rendering(schema_name=name)


def test_a_name_in_other_letters_is_the_same_name() -> None:
    """The second procedure would silently replace the first."""
    with pytest.raises(ConfigError, match="UpsertDmMessage and of DeleteDmMessage"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE="dbo.Same", SQL_PROC_DELETE_DM_MESSAGE="same")


@pytest.mark.parametrize("name", ["a.b.c", ".a", "a.", ""])
def test_a_name_of_no_procedure_is_refused(name: str) -> None:
    """One schema and one name, or a name alone."""
    with pytest.raises(ConfigError, match="no name of a procedure"):
        rendering(SQL_PROC_UPSERT_DM_MESSAGE=name)


def entity(name: str, **more: str) -> str:
    """Declare an entity with one key part."""
    lines = [f'name = "{name}"', 'check = "x"', 'path = "xs/{xId}"', 'category = "sqlMirror"']
    return "\n".join(["[[entity]]", *lines, *(f"{k} = {v}" for k, v in more.items())])


def test_a_table_of_ours_cannot_be_declared(tmp_path: Path) -> None:
    """It would be written as documents."""
    file = tmp_path / "own.toml"
    file.write_text(entity(OWN_TABLES["rebase"]))
    with pytest.raises(ConfigError, match="has a table of this name itself"):
        rendering(file)


@pytest.mark.parametrize(
    ("length", "kind"), [(450, "CLUSTERED"), (451, "NONCLUSTERED"), (600, "NONCLUSTERED")]
)
def test_a_long_key_is_not_clustered(tmp_path: Path, length: int, kind: str) -> None:
    """A clustered key ends at 900 bytes, another one at 1,700; a longer one fails at its INSERT."""
    file = tmp_path / "long.toml"
    file.write_text(entity("Long", key_length=f"{{ xId = {length} }}"))
    text = "\n".join(rendering(file).tables_batches())
    assert f"CONSTRAINT [PK_Long] PRIMARY KEY {kind} ([XId])" in text


def test_the_latest_by_a_text_has_a_column_that_an_index_takes(tmp_path: Path) -> None:
    """NVARCHAR(MAX) is no key of an index; what is longer is refused as this event's fault."""
    file = tmp_path / "rolled.toml"
    file.write_text(ROLLED_UP_BY_TEXT)
    text = "\n".join(rendering(file).tables_batches())
    assert "ADD [Rank] NVARCHAR(400) COLLATE Latin1_General_100_BIN2 NULL" in text


def test_what_is_wanted_is_what_is_rendered(every_kind: Path) -> None:
    """A column that the plan does not know of would be added anew each time."""
    made = rendering(every_kind)
    text = "\n".join(made.tables_batches())
    for table in wanted_schema(made, project="demo", store="(default)").tables:
        create = re.search(
            rf"CREATE TABLE {re.escape(made.qualified(table.name))} \((.*?)\n\);", text, re.DOTALL
        )
        assert create is not None
        added = re.findall(
            rf"ALTER TABLE {re.escape(made.qualified(table.name))} ADD \[?(\w+)\]? ", text
        )
        inside = re.findall(r"^    \[?(\w+)\]? ", create[1], re.MULTILINE)
        found = {name for name in (*inside, *added) if name != "CONSTRAINT"}
        assert found == {column.name for column in table}


@pytest.mark.parametrize(
    "found",
    [
        "(coalesce([LastMessageAt],[CreatedAt],[SeenAt]))",
        "COALESCE(lastmessageat, createdat, seenat)",
        "(case when [LastMessageAt] IS NOT NULL then [LastMessageAt]"
        " else case when [CreatedAt] IS NOT NULL then [CreatedAt] else [SeenAt] end end)",
    ],
)
def test_a_computed_column_is_known_however_the_server_writes_it(found: str) -> None:
    """Else `schema diff` would refuse a table that this very code made."""
    assert expression_of(found) == "coalesce(lastmessageat,createdat,seenat)"
