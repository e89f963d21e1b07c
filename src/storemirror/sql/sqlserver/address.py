"""
Where a DSN of SQL Server leads, and how the driver is told so.  Pure; nothing is opened here.

    mssql://user:password@host:1433/database
    mssql://host/database?authentication=ActiveDirectoryMSI

What stands between `//` and the last `@` are user and password, and what they hold of `:` (the
user), `%` and the like is percent-encoded.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from storemirror.errors import ConfigError

SCHEME: Final = "mssql://"
DEFAULT_PORT: Final = 1433
#: What a DSN may say after `?`, the driver's keyword for it, and what it may be; none: any text.
_OPTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "encrypt": ("Encrypt", ("yes", "no", "strict")),
    "trust_server_certificate": ("TrustServerCertificate", ("yes", "no")),
    "host_name_in_certificate": ("HostnameInCertificate", ()),
    "authentication": (
        "Authentication",
        (
            "ActiveDirectoryMSI",
            "ActiveDirectoryDefault",
            "ActiveDirectoryServicePrincipal",
            "ActiveDirectoryPassword",
        ),
    ),
    "multi_subnet_failover": ("MultiSubnetFailover", ("yes", "no")),
}
#: Ways of signing in that need neither user nor password; a user is then a managed identity's id.
_WITHOUT_PASSWORD: Final = ("ActiveDirectoryMSI", "ActiveDirectoryDefault")
_LOCAL: Final = "this machine"


@dataclass(frozen=True, slots=True)
class Address:
    """One database.  Equal addresses are one database; different ones may be, under two names."""

    #: As the DSN has it; every loopback name of this machine is the same.
    host: str
    port: int
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a DSN says."""

    host: str
    port: int
    database: str
    user: str = ""
    password: str = field(default="", repr=False)
    #: The driver's keyword -> value.
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Give which database it is."""
        host = _LOCAL if _is_local(self.host) else self.host.lower()
        return Address(host=host, port=self.port, database=self.database.lower())

    def connection_string(self, *, database: str | None = None) -> str:
        """
        Write it as the driver reads it.  It holds the password: never log it.

        Args:
            database: another database of the same server.

        >>> target_of("mssql://me:p%7Dw@db/shop").connection_string()
        'Server={db,1433};Database={shop};Encrypt={yes};UID={me};PWD={p}}w}'
        """
        said = {"Encrypt": "yes", **self.options}
        keywords = {
            "Server": f"{self.host},{self.port}",
            "Database": self.database if database is None else database,
            **said,
            "UID": self.user,
            "PWD": self.password,
        }
        return ";".join(
            f"{name}={{{value.replace('}', '}}')}}}" for name, value in keywords.items() if value
        )


def is_sqlserver(dsn: str) -> bool:
    """
    Tell whether a DSN names a SQL Server.

    >>> is_sqlserver("mssql://me:secret@db/shop"), is_sqlserver("postgresql://db/shop")
    (True, False)
    """
    return dsn.strip().lower().startswith(SCHEME)


def target_of(dsn: str) -> Target:
    """
    Read a DSN.

    Raises:
        ConfigError: it is none, or what it says cannot be; the message does not repeat it.
    """
    if not is_sqlserver(dsn) or "\0" in dsn:
        raise ConfigError(f"is no DSN of SQL Server: {SCHEME}user:password@host:1433/database")
    credentials, _, rest = dsn.strip()[len(SCHEME) :].rpartition("@")
    place, _, query = rest.partition("?")
    server, _, database = place.partition("/")
    user, _, password = credentials.partition(":")
    host, port = _host_and_port(server)
    database = unquote(database)
    if not database or "/" in database:
        raise ConfigError(f"names no database: {SCHEME}user:password@host:1433/database")
    target = Target(
        host=host,
        port=port,
        database=database,
        user=unquote(user),
        password=unquote(password),
        options=_options(query),
    )
    _check_sign_in(target)
    return target


def address_of(dsn: str) -> Address:
    """
    Read where a DSN leads.

    Raises:
        ConfigError: it is none; the message does not repeat it.

    >>> address_of("mssql://me:a@localhost/Shop") == address_of("mssql://you:b@127.0.0.1:1433/shop")
    True
    """
    return target_of(dsn).address


def has_password(dsn: str) -> bool:
    """
    Tell whether a DSN holds a password.

    Raises:
        ConfigError: it is no DSN; the message does not repeat it.

    >>> has_password("mssql://me:secret@db/shop")
    True
    >>> has_password("mssql://db/shop?authentication=ActiveDirectoryMSI")
    False
    """
    return bool(target_of(dsn).password)


def _host_and_port(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    # An IPv6 address stands in brackets, and has colons of its own.
    if not colon or server.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ConfigError(f"names no host: {SCHEME}user:password@host:1433/database")
    if any(sign in host for sign in ",;{}= \\"):
        raise ConfigError("names a host that cannot be one; an instance is named by its port")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigError("names a port that is no number from 1 to 65535")
    return host, int(port)


def _options(query: str) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ConfigError(f"has an option that is none; known are {', '.join(_OPTIONS)}")
        keyword, values = _OPTIONS[name]
        by_lower = {known.lower(): known for known in values}
        if values and value.lower() not in by_lower:
            raise ConfigError(f"has the option {name}, which is one of {', '.join(values)}")
        if not value:
            raise ConfigError(f"has the option {name} without a value")
        options[keyword] = by_lower.get(value.lower(), value)
    return options


def _check_sign_in(target: Target) -> None:
    way = target.options.get("Authentication", "")
    if way in _WITHOUT_PASSWORD:
        if target.password:
            raise ConfigError(f"has a password, which authentication={way} does not take")
    elif not target.user or not target.password:
        raise ConfigError(
            "has no user and password: write both, with special characters percent-encoded, or "
            "authentication=ActiveDirectoryMSI for a managed identity"
        )


def _is_local(host: str) -> bool:
    """Tell whether a host is this machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
