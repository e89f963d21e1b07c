"""Where a DSN leads, as far as it says so itself: for comparisons before any connection."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from storemirror.errors import ConfigError
from storemirror.sql.postgres.connection import psycopg

_LOCAL: Final = "this machine"


@dataclass(frozen=True, slots=True)
class Address:
    """One database.  Equal addresses are one database; different ones may be, under two names."""

    #: As the DSN has it; every loopback name and socket of this machine is the same.
    host: str
    port: str
    database: str


def address_of(dsn: str) -> Address:
    """
    Read where a DSN leads; what it leaves out is taken from libpq's defaults and variables.

    Args:
        dsn: a libpq connection string or URI.

    Raises:
        ConfigError: it is neither; the message does not repeat it.

    >>> address_of("postgresql://me@localhost/a") == address_of("host=127.0.0.1 dbname=a")
    True
    """
    given = _options_of(dsn)
    defaults = {
        option.keyword.decode(): (option.val or b"").decode()
        for option in psycopg.pq.Conninfo.get_defaults()
    }

    def value(keyword: str) -> str:
        return str(given.get(keyword) or defaults.get(keyword) or "")

    host = value("hostaddr") or value("host")
    return Address(
        host=_LOCAL if _is_local(host) else host.lower(),
        port=value("port"),
        database=value("dbname") or value("user"),
    )


def has_password(dsn: str) -> bool:
    """
    Tell whether a DSN holds a password.

    Raises:
        ConfigError: it is no DSN; the message does not repeat it.

    >>> has_password("postgresql://me:secret@db/a"), has_password("postgresql://me@db/a")
    (True, False)
    """
    options = _options_of(dsn)
    return any(options.get(keyword) for keyword in ("password", "sslpassword"))


def _options_of(dsn: str) -> dict[str, object]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(dsn))
    except psycopg.Error:
        # The parser's own message quotes the text, and with it the password.
        raise ConfigError("is no libpq connection string or URI") from None


def _is_local(host: str) -> bool:
    """Tell whether a host is this machine's loopback or a socket on it."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
