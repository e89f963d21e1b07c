"""What tests do to SQL Server past the adapter is T-SQL: it runs where nobody here sees it run."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.model.load import load_model
from storemirror.sql.sqlserver.rendering import Rendering
from tests.contract.sql.sqlserver import BETWEEN
from tests.faults.sql.test_lock_order import BACKWARDS
from tests.integration.sql.test_overlap import NEW, ONLY_PARENTS_OF_ITS_OWN
from tests.schedules.test_two_writers import PLANTED
from tests.support import sqlserver_gates, sqlserver_snapshots
from tests.support.sqlserver_gates import gate_batches, with_gates
from tests.support.sqlserver_snapshots import dropped, made, setting
from tests.tsql.judge import Judge

RENDERING = Rendering(load_model(), schema_name="s", procedures={})
#: Of each entity's procedure, and of a roll-up's recomputation.
WRITES = len(load_model().entities)


def test_a_gate_stands_before_and_behind_every_write_and_before_the_roll_up() -> None:
    """A schedule that is never held says nothing."""
    text = with_gates(BETWEEN.join(RENDERING.procedures_batches()), RENDERING)
    counts = [text.count(f"EXEC [s].[TestGate] N'{p}';") for p in ("write", "written", "rollup")]
    assert counts == [WRITES, WRITES, 2]


def test_microsoft_s_parser_reads_the_gates(tsql_judge: Judge) -> None:
    """Wherever they are planted."""
    procedures = with_gates(BETWEEN.join(RENDERING.procedures_batches()), RENDERING)
    text = BETWEEN.join([*gate_batches(RENDERING), procedures])
    assert tsql_judge.parser.findings(text) == []


def test_microsoft_s_parser_reads_what_makes_and_alters_databases(tsql_judge: Judge) -> None:
    """And what asks for the right to it, and who waits for whom."""
    asked = [sqlserver_snapshots._FACTS, sqlserver_gates._MAY_SEE]
    sent = [made("x"), setting("x", is_on=True), setting("x", is_on=False), *dropped("x")]
    assert tsql_judge.parser.findings(BETWEEN.join([*asked, *sent])) == []


@pytest.mark.parametrize(
    "change",
    [BACKWARDS["sqlserver"], *PLANTED["sqlserver"]["classified-before-the-lock"]],
    ids=["backwards", "no lock"],
)
def test_what_is_planted_where_a_server_is_has_its_place(change: tuple[str, str]) -> None:
    """A template that changed would be found out there alone."""
    assert change[0] in BETWEEN.join(RENDERING.procedures_batches())


def test_what_is_planted_in_the_newer_of_two_releases_has_its_place(tmp_path: Path) -> None:
    """Its declarations are others."""
    (tmp_path / "new.toml").write_text(NEW)
    model = load_model([tmp_path / "new.toml"], with_builtin=False)
    made = Rendering(model, schema_name="s", procedures={})
    sound, _ = ONLY_PARENTS_OF_ITS_OWN["sqlserver"]
    assert sound in BETWEEN.join(made.procedures_batches())
