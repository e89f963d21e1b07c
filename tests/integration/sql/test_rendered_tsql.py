"""Microsoft's parser and a linter find nothing in what is rendered for SQL Server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from storemirror.model.load import load_model
from storemirror.sql.grants import Job
from storemirror.sql.sqlserver.grants import grants_sql
from storemirror.sql.sqlserver.rendering import DEPLOY_FILE, Rendering
from tests.house.rules import ROOT
from tests.support.declarations import EVERY_KIND, ROLLED_UP_BY_TEXT
from tests.tsql.judge import Judge
from tests.tsql.script import read_script

#: What a person gives to `sqlcmd`.
GIVEN: Final = {"FirestoreProject": "my-project", "FirestoreDatabase": "(default)"}


def rendering(file: Path, *, is_drop_create: bool = False) -> Rendering:
    """The entities of a file, in a schema and names of a team's own."""
    return Rendering(
        load_model([file], with_builtin=False),
        schema_name="app mirror",
        procedures={"SQL_PROC_LOCK_ROWS": "dbo.lock rows", "SQL_PROC_ENSURE_PARENTS": "x" * 128},
        is_drop_create=is_drop_create,
    )


def batches_of(made: Rendering) -> list[str]:
    """What the driver sends, all of it."""
    return [
        *made.next_indexes_batches(),
        *made.lock_tables_batches(),
        *made.indexes_batches(),
        *made.tables_batches(),
        *made.procedures_batches(),
        *made.adopt_batches(),
        *made.constraints_batches(),
    ]


def test_the_script_in_deploy_is_sound(tsql_judge: Judge) -> None:
    """An administrator runs it where none of our tests do."""
    script = (ROOT / "deploy" / DEPLOY_FILE).read_text()
    assert tsql_judge.script(script, GIVEN) == []


def test_the_script_of_rights_is_sound(tsql_judge: Judge) -> None:
    """Of every job, in a schema and for a user whose names must be quoted."""
    made = Rendering(load_model(), schema_name="app mirror", procedures={})
    assert tsql_judge.script(grants_sql(made, role="app writer", jobs=list(Job)), {}) == []


def test_the_script_wants_its_variables() -> None:
    """Without the Firestore's project sqlcmd stops before anything is changed."""
    script = (ROOT / "deploy" / DEPLOY_FILE).read_text()
    assert read_script(script, GIVEN).findings == ()
    assert read_script(script, {}).findings != ()


@pytest.mark.parametrize(
    ("declared", "is_drop_create"),
    [(EVERY_KIND, False), (EVERY_KIND, True), (ROLLED_UP_BY_TEXT, False)],
    ids=["create-or-alter", "drop-create", "by-text"],
)
def test_what_the_driver_sends_is_sound(
    tsql_judge: Judge, tmp_path: Path, declared: str, *, is_drop_create: bool
) -> None:
    """Every type, raw documents, children, strange names, and both ways to make routines."""
    file = tmp_path / "declared.toml"
    file.write_text(declared)
    made = rendering(file, is_drop_create=is_drop_create)
    assert tsql_judge.batches(batches_of(made)) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("OPTION (LOOP JOIN, FORCE ORDER, MAXDOP 1);", "OPTION (LOOP JOIN, ;"),
        ("    END CATCH;", ""),
        ("FOR JSON PATH);", "FOR JSON PATH;"),
        ("WITH (UPDLOCK, HOLDLOCK, ROWLOCK, FORCESEEK)", "WITH (UPDLOCK HOLDLOCK, ROWLOK)"),
    ],
)
def test_a_planted_mistake_is_found(
    tsql_judge: Judge, tmp_path: Path, right: str, wrong: str
) -> None:
    """Else an empty list would tell nothing."""
    file = tmp_path / "declared.toml"
    file.write_text(ROLLED_UP_BY_TEXT)
    text = "\nGO\n".join(rendering(file).procedures_batches())
    assert right in text
    assert tsql_judge.parser.findings(text) == []
    assert tsql_judge.parser.findings(text.replace(right, wrong)) != []
