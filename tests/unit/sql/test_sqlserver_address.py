"""A DSN of SQL Server is read whole before anything is opened, and never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mssql_python.connection_string_parser import _ConnectionStringParser

from storemirror.errors import ConfigError
from storemirror.sql.sqlserver.address import address_of, has_password, target_of

ODD = "p@ss:w;o=r{d}/?#%"
ENCODED = "p%40ss%3Aw%3Bo%3Dr%7Bd%7D%2F%3F%23%25"


def test_what_a_dsn_says_is_read() -> None:
    """User and password with every sign that means something elsewhere."""
    target = target_of(f"mssql://me:{ENCODED}@db.example.com:1444/Shop%20A?encrypt=strict")
    assert (target.host, target.port, target.database) == ("db.example.com", 1444, "Shop A")
    assert (target.user, target.password) == ("me", ODD)
    assert target.options == {"Encrypt": "strict"}


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_the_driver_reads_the_password_that_was_meant(password: str) -> None:
    """Its own parser, on what is handed to it: a sign that ended the value would cut it short."""
    encoded = "".join(f"%{byte:02X}" for byte in password.encode())
    text = target_of(f"mssql://me:{encoded}@db/shop").connection_string()
    parsed = _ConnectionStringParser(validate_keywords=True)._parse(text)
    assert (parsed["uid"], parsed["pwd"]) == ("me", password)
    assert parsed["encrypt"] == "yes"


def test_an_unencoded_at_sign_of_a_password_is_no_host() -> None:
    """The last one counts: a host has none."""
    target = target_of("mssql://me:p@ss@db/shop")
    assert (target.password, target.host) == ("p@ss", "db")


def test_encryption_is_on_and_the_certificate_seen_to_unless_the_dsn_says_otherwise() -> None:
    """A password must not travel in the clear because nobody thought of it."""
    assert "Encrypt={yes}" in target_of("mssql://me:x@db/shop").connection_string()
    text = target_of(
        "mssql://me:x@db/shop?encrypt=no&trust_server_certificate=yes"
    ).connection_string()
    assert "Encrypt={no}" in text
    assert "TrustServerCertificate={yes}" in text


def test_a_managed_identity_needs_no_password() -> None:
    """A user is then the client id of an identity of one's own."""
    plain = target_of("mssql://db/shop?authentication=ActiveDirectoryMSI").connection_string()
    assert "Authentication={ActiveDirectoryMSI}" in plain
    assert "UID" not in plain
    assert "PWD" not in plain
    own = target_of("mssql://client-id@db/shop?authentication=activedirectorymsi")
    assert "UID={client-id}" in own.connection_string()
    assert not has_password("mssql://client-id@db/shop?authentication=ActiveDirectoryMSI")


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://me:SECRET@db/shop", "is no DSN of SQL Server"),
        ("mssql://me:SECRET@db/sh\0op", "is no DSN of SQL Server"),
        ("mssql://me:SECRET@db", "names no database"),
        ("mssql://me:SECRET@db/", "names no database"),
        ("mssql://me:SECRET@db/a/b", "names no database"),
        ("mssql://me:SECRET@/shop", "names no host"),
        ("mssql://me:SECRET@a;b/shop", "names a host that cannot be one"),
        ("mssql://me:SECRET@db\\instance/shop", "named by its port"),
        ("mssql://me:SECRET@db:0/shop", "port"),
        ("mssql://me:SECRET@db:65536/shop", "port"),
        ("mssql://me:SECRET@db:x/shop", "port"),
        ("mssql://me:SECRET@db/shop?Driver=x", "option that is none"),
        ("mssql://me:SECRET@db/shop?encrypt=maybe", "one of yes, no, strict"),
        ("mssql://me:SECRET@db/shop?host_name_in_certificate=", "without a value"),
        ("mssql://me@db/shop", "has no user and password"),
        ("mssql://db/shop", "has no user and password"),
        ("mssql://me:SECRET@db/shop?authentication=ActiveDirectoryMSI", "does not take"),
    ],
)
def test_what_cannot_be_is_refused_without_repeating_it(dsn: str, words: str) -> None:
    """A DSN in an error ends in a log, and with it the password."""
    with pytest.raises(ConfigError) as caught:
        target_of(dsn)
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_no_repr_shows_the_password() -> None:
    """A traceback's local variables end in a log too."""
    assert "SECRET" not in repr(target_of("mssql://me:SECRET@db/shop"))


@pytest.mark.parametrize(
    "same", ["mssql://a:b@LOCALHOST/Shop", "mssql://c:d@[::1]:1433/shop?encrypt=no"]
)
def test_one_database_has_one_address(same: str) -> None:
    """Whoever signs in, and however its host is spelled."""
    assert address_of(same) == address_of("mssql://me:x@127.0.0.1/shop")


@pytest.mark.parametrize("other", ["mssql://a:b@db/shop", "mssql://a:b@localhost:1444/shop"])
def test_different_databases_have_different_addresses(other: str) -> None:
    """Else a loop would be seen where there is none."""
    assert address_of(other) != address_of("mssql://me:x@127.0.0.1/shop")
