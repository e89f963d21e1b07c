"""The judges are right about the samples, but for two mistakes that no parser can see."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.tsql.judge import Judge
from tests.tsql.script import Finding

SAMPLES: Final = Path(__file__).with_name("samples")
#: What is wrong with them is no matter of grammar.
NEED_BINDING: Final = ("bad_bool_literal", "bad_undeclared_var")
ACCEPTED: Final = ("good", "ddl")
REJECTED: Final = tuple(
    pytest.param(
        path,
        id=path.stem,
        marks=pytest.mark.xfail(
            path.stem in NEED_BINDING, reason="needs binding: a server's work", strict=True
        ),
    )
    for path in sorted(SAMPLES.glob("bad_*.sql"))
)


def not_tsql(judge: Judge, path: Path) -> list[Finding]:
    """Give what is no T-SQL in a sample; rules of ours do not count."""
    return [finding for finding in judge.script(path.read_text()) if not finding.rule]


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_server_takes_is_accepted(tsql_judge: Judge, name: str) -> None:
    """A judge that rejects everything would be of no use."""
    assert not_tsql(tsql_judge, SAMPLES / f"{name}.sql") == []


@pytest.mark.parametrize("path", REJECTED)
def test_what_a_server_refuses_is_rejected(tsql_judge: Judge, path: Path) -> None:
    """Each is a mistake that someone made who writes for several databases."""
    assert not_tsql(tsql_judge, path) != []


def test_every_sample_is_judged() -> None:
    """A sample that nobody reads proves nothing."""
    names = {path.stem for path in SAMPLES.glob("*.sql")}
    assert names - set(ACCEPTED) == {param.id for param in REJECTED}
    assert len(REJECTED) == 14
