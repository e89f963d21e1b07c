"""Where DSNs lead, for telling whether two of them name one database."""

from __future__ import annotations

import pytest

from storemirror.errors import ConfigError
from storemirror.sql.postgres.address import address_of, has_password


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://other:secret@127.0.0.1:5432/app",
        "host=localhost dbname=app",
        "postgresql:///app?host=/var/run/postgresql",
        "postgresql://[::1]/app",
        "user=app",
    ],
)
def test_spellings_of_one_database_are_equal(other: str) -> None:
    """A loop does not care for how a database is spelled."""
    assert address_of(other) == address_of("postgresql://me@localhost/app")


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://me@localhost/other",
        "postgresql://me@localhost:5433/app",
        "postgresql://me@db.example/app",
    ],
)
def test_other_databases_differ(other: str) -> None:
    """A deployment that is right must start."""
    assert address_of(other) != address_of("postgresql://me@localhost/app")


def test_what_a_dsn_leaves_out_comes_from_libpqs_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection will go there too."""
    monkeypatch.setenv("PGHOST", "DB.example")
    monkeypatch.setenv("PGPORT", "6000")
    assert address_of("dbname=app") == address_of("postgresql://me@db.example:6000/app")


@pytest.mark.parametrize("call", [address_of, has_password])
def test_what_is_no_dsn_is_refused_without_being_repeated(call: object) -> None:
    """It may be a password in the wrong place."""
    assert callable(call)
    with pytest.raises(ConfigError) as caught:
        call("postgres//me:geheim@db")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "has_one"),
    [
        ("postgresql://me:secret@db/a", True),
        ("host=db password=secret", True),
        ("postgresql://me@db/a?password=secret", True),
        ("postgresql://me@db/a?sslkey=k&sslpassword=secret", True),
        ("postgresql://me@db/a", False),
        ("host=db password=''", False),
    ],
)
def test_a_password_is_found_wherever_it_stands(dsn: str, has_one: bool) -> None:
    """It decides whether the DSN is written into a file."""
    assert has_password(dsn) is has_one
