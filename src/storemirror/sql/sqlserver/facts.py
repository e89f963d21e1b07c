"""What the server is, as far as it matters here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storemirror.errors import DatabaseRefused
from storemirror.sql.sqlserver.connection import CALL_TIMEOUT_S, Session

#: The first one with OPENJSON: SQL Server 2016.
LEAST_LEVEL: Final = 130
_FACTS: Final = """
SELECT CASE WHEN @@VERSION LIKE N'Microsoft SQL%' AND SERVERPROPERTY('BabelfishVersion') IS NULL
            THEN 1 ELSE 0 END,
       CAST(d.compatibility_level AS INT), d.name,
       CASE WHEN d.snapshot_isolation_state = 1 THEN 1 ELSE 0 END
FROM sys.databases AS d WHERE d.name = DB_NAME();
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server and database."""

    #: Whether it is SQL Server or Azure SQL, and not another one that speaks its protocol.
    is_microsofts: bool
    compatibility_level: int
    database: str
    #: Whether transactions may read one snapshot.
    has_snapshots: bool = True


async def read_facts(session: Session) -> ServerFacts:
    """
    Ask what the server is.

    Raises:
        DatabaseRefused: its compatibility level is too low for the procedures.
    """
    found = await session.run(_FACTS, (), CALL_TIMEOUT_S)
    [[(is_microsofts, level, database, has_snapshots)]] = found
    facts = ServerFacts(
        is_microsofts=bool(is_microsofts),
        compatibility_level=level,
        database=database,
        # Others that speak the protocol read snapshots whatever they call them.
        has_snapshots=bool(has_snapshots) or not is_microsofts,
    )
    refuse_low_level(facts)
    return facts


def refuse_low_level(facts: ServerFacts) -> None:
    """
    See that the database reads JSON.  Others that speak the protocol have a level in name alone.

    Raises:
        DatabaseRefused: it does not; the message says what sets the level.
    """
    if facts.is_microsofts and facts.compatibility_level < LEAST_LEVEL:
        name = facts.database.replace("]", "]]")
        raise DatabaseRefused(
            f"database {facts.database} has compatibility level {facts.compatibility_level}, and "
            f"the procedures read JSON, which takes {LEAST_LEVEL} or more; nothing was changed. "
            f"ALTER DATABASE [{name}] SET COMPATIBILITY_LEVEL = {LEAST_LEVEL}, or a later one"
        )
