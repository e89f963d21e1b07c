"""Bad input: one message that says what, where and what to do; no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import Operator, run_command

pytestmark = pytest.mark.postgres


async def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    """As every command line does."""
    ended = await run_command("chekc", environment={}, folder=tmp_path)
    assert ended.status == 2
    assert "chekc" in ended.err
    assert "Traceback" not in ended.err


async def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    """A person mends a file once, not once a mistake."""
    (tmp_path / "storemirror.toml").write_text(
        '[firestor]\nproject = "p"\n\n[writer]\nlane_count = 0\n'
    )
    ended = await run_command("check", environment={}, folder=tmp_path)
    assert ended.status == 4
    for expected in ("firestor", "lane_count", "storemirror.toml"):
        assert expected in ended.err
    assert "Traceback" not in ended.err


async def test_every_mistake_in_a_declaration_is_named_with_its_line(tmp_path: Path) -> None:
    """Before anything starts."""
    (tmp_path / "mine.toml").write_text(
        '[[entity]]\nname = "Order"\ncheck = "orders"\npath = "orders/{orderId}"\n'
        'category = "x"\n[entity.columns]\ntotal = { type = "money" }\n'
        '[entity.rollup]\ninto = "Nothing"\n'
    )
    (tmp_path / "storemirror.toml").write_text(
        '[firestore]\nproject = "p"\n[model]\nfiles = ["mine.toml"]\n'
    )
    ended = await run_command("schema", "render", environment={}, folder=tmp_path)
    assert ended.status == 4
    for expected in ("7", "money", "8", "Nothing"):
        assert expected in ended.err
    assert ended.out == ""


async def test_a_writer_refuses_a_schema_that_is_not_there(operator: Operator) -> None:
    """With the command that mends it."""
    await operator.runs("bus", "provision")
    ended = await operator.runs("drain")
    assert ended.status == 6
    assert "storemirror schema apply" in ended.err


async def test_a_schema_of_another_firestore_is_refused(deployed: Operator) -> None:
    """Two projects in one mirror would overwrite each other's rows."""
    for command in (("schema", "apply"), ("drain",)):
        ended = await deployed.runs(*command, STOREMIRROR_FIRESTORE_PROJECT="other")
        assert ended.status == 6
        assert "other" in ended.err


async def test_a_bus_that_is_not_provisioned_is_named(operator: Operator) -> None:
    """A missing topic is not an empty one."""
    await operator.runs("schema", "apply")
    ended = await operator.runs("drain")
    assert ended.status == 5
    assert "provision" in ended.err


async def test_a_database_that_does_not_answer_is_named_without_its_password(
    operator: Operator,
) -> None:
    """The server's own words, and no secret."""
    dead = "postgresql://ada:very-secret@127.0.0.1:1/mirror"
    ended = await operator.runs("schema", "status", STOREMIRROR_SQL_DSN=dead)
    assert ended.status == 5
    assert "127.0.0.1" in ended.err
    assert "very-secret" not in ended.err


@pytest.mark.parametrize("command", [(), ("demo",), ("check",), ("dlq", "ack"), ("schema",)])
async def test_help_is_there(command: tuple[str, ...], tmp_path: Path) -> None:
    """A newcomer finds the way by --help alone."""
    ended = await run_command(*command, "--help", environment={}, folder=tmp_path)
    assert ended.status == 0
    assert "Usage" in ended.out
