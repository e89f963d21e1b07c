"""
SQL Server's errors as ours: which number means what.  Pure.

The driver keeps an error's text and throws its number away (microsoft/mssql-python, issue 581), so
every batch of ours catches its errors in T-SQL and answers with the number as a row; see
`storemirror.sql.sqlserver.connection`.  Only what no batch can catch (no connection, a refused
login, a timeout) comes as the driver's own exception, which is judged by its SQLSTATE and words.

Source:
    https://learn.microsoft.com/azure/azure-sql/database/troubleshoot-common-errors-issues
    https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from storemirror.errors import (
    DatabaseRefused,
    SchemaBoundElsewhere,
    SchemaMismatch,
    SqlUnavailable,
    StoreMirrorError,
)

_NAME: Final = "the mirror's database"

#: Our own, as the procedures throw them: sql/sqlserver/templates.
PARENT_MISSING: Final = 51001
CLOSED: Final = 51005
#: A lock was not given in time: the server's number, and ours for an application lock.
NO_LOCK: Final = frozenset({1222, 51008})
#: A right is missing: to an object, a database, the server.
NO_RIGHT: Final = frozenset({229, 230, 262, 297, 300, 371})
#: Babelfish has not every view of Microsoft's.
NO_SUCH_OBJECT: Final = 208
_OWN_DATA: Final = frozenset({51002, 51003, 51006})
_OWN_TRANSIENT: Final = frozenset({51007, 51008})
_OWN: Final = range(51000, 51100)
#: From here on numbers are whoever's wrote the procedure or trigger.
_FIRST_THROWN: Final = 50_000
#: From here on Babelfish writes an error of PostgreSQL's that it knows no number for: five
#: characters of SQLSTATE, six bits each, the first one lowest.
_FIRST_PACKED: Final = 1 << 24
#: What PostgreSQL has for each of those: SQLSTATEs, or what they begin with.
_PACKED_TRANSIENT: Final = ("08", "40", "53", "55P03", "57P", "58")
_PACKED_DATA: Final = ("22", "23")

#: The server or the way to it is in trouble, and not the statement: a retry may go through.
_TRANSIENT: Final = _OWN_TRANSIENT | frozenset(
    {
        -2, 20, 64, 121, 233, 10053, 10054, 10060, 10061,  # the connection
        701, 802, 8645, 8651, 8657, 17189,  # memory, workers
        1204, 1205, 1222, 3960, 3961, 3966,  # locks, deadlock, versions
        596, 5061, 6005, 18401,  # killed session, server going down or up
        978, 979, 982, 983, 988, 10922, 14906, 14907,  # availability groups
        4221, 40143, 40166, 40197, 40501, 40540, 40549, 40550, 40551, 40552, 40553, 40613,  # Azure
        42108, 42109, 49918, 49919, 49920, 10928, 10929, 10936,  # Azure: paused, throttled
    }
)  # fmt: skip
#: Likewise, and what to do about it, since the server's own words leave that open.
_CURES: Final[Mapping[int, str]] = {
    1101: "it is full: give it room",
    1105: "it is full: give it room",
    9002: "its log is full: give it room",
    40544: "it has reached its size quota: give it room",
    3906: "it is read-only, as a secondary is: make it writable, or name the primary",
    10928: "it has no session or worker left: run fewer writers, or a larger service tier",
    10936: "it has no session or worker left: run fewer writers, or a larger service tier",
    17809: "it has no connection left: run fewer writers",
}
#: A value, and not the server, is in trouble: conversions, truncation, constraints, keys.
_DATA: Final = _OWN_DATA | frozenset(
    {
        220, 232, 241, 242, 244, 245, 248, 257, 295, 296, 517, 535, 8114, 8115, 9803, 9807, 9809,
        2628, 8152, 8169, 512, 515, 547, 550, 2601, 2627, 1946, 511, 1919, 1701, 13609, 13608,
        8134,
    }
)  # fmt: skip
#: Of these the server's text names a constraint or column before any value.
_NAMING: Final = frozenset({515, 547, 550, 2601, 2627, 2628, 1946})
_NAMED: Final = re.compile(r"(?:constraint|column|index) ['\"]([^'\"]+)['\"]")
#: A row of ours that another writer made in the same moment.  Only where lock hints are not
#: honoured; the other one's row is there at the next try.
_DUPLICATE: Final = frozenset({2601, 2627})
_DUPLICATE_STATE: Final = "23505"
_OWN_KEY: Final = "pk_"

#: Rights, sign-in and places: what to look at.
_REFUSALS: Final[Mapping[int, str]] = {
    229: "the user has not the right: grant what docs/howto/sql-server.md lists",
    230: "the user has not the right: grant what docs/howto/sql-server.md lists",
    262: "the user has not the right: grant what docs/howto/sql-server.md lists",
    297: "the user has not the right: grant what docs/howto/sql-server.md lists",
    300: "the user has not the right: grant what docs/howto/sql-server.md lists",
    2760: "the schema is not there, or the user has no right to it: see docs/howto/sql-server.md",
    15247: "the user has not the right: grant what docs/howto/sql-server.md lists",
    911: "there is no such database: look at the end of STOREMIRROR_SQL_DSN",
    916: "the user has no access to the database: make it a user there",
    4060: "the database is not there, or not open to this user: look at STOREMIRROR_SQL_DSN",
    18456: "user or password in STOREMIRROR_SQL_DSN are wrong",
    40615: "a firewall rule of the server keeps this machine's address out",
    40914: "a firewall rule of the server keeps this machine's network out",
}

#: SQLSTATEs with which the driver reports the server or the way to it.
TRANSIENT_STATES: Final = frozenset(
    {
        "01002", "08001", "08002", "08003", "08004", "08007", "08S01", "25000", "25S01", "25S02",
        "25S03", "40001", "40003", "HY000", "HY001", "HY008", "HY013", "HY014", "HY018", "HYT00",
        "HYT01",
    }
)  # fmt: skip
#: What refuses a sign-in.
SIGN_IN_STATE: Final = "28000"
#: Words of errors that come while a connection is made -> their number.  The sessions's language
#: is not set yet, but servers of Azure speak English.
_WORDS: Final[Mapping[str, int]] = {
    "is not currently available": 40613,
    "service has encountered an error processing your request": 40197,
    "service is currently busy": 40501,
    "Not enough resources to process request": 49918,
    "Too many create or update operations": 49919,
    "Too many operations in progress": 49920,
    "has been reached": 10928,
    "server is currently too busy": 10929,
    "is paused": 42108,
    "Cannot open server": 40615,
    "Cannot open database": 4060,
    "Login failed": 18456,
    "permission denied": 262,
    "permission was denied": 229,
    "do not have permission": 297,
    "SM008 an application lock was not granted": 51008,
    "was deadlocked on lock resources": 1205,
    "Lock request time out period exceeded": 1222,
    # PostgreSQL's, by way of Babelfish: an error that it has no number for ends the batch past its
    # CATCH.
    "deadlock detected": 1205,
    "canceling statement due to lock timeout": 1222,
    "could not obtain lock": 1222,
    "could not serialize access": 3960,
    "the database system is": 6005,
    "terminating connection due to": 596,
    "conflict with recovery": 3960,
    "too many clients already": 17809,
    "remaining connection slots": 17809,
    "No space left on device": 1105,
    "out of memory": 701,
    "out of shared memory": 701,
    "in a read-only transaction": 3906,
}


class ServerError(Exception):
    """An error that the server answered a batch with; the batch was rolled back."""

    def __init__(self, number: int, message: str, *, procedure: str = "") -> None:
        """
        Keep what the server said.

        Args:
            number: `ERROR_NUMBER()`.
            message: `ERROR_MESSAGE()`; of a refused value it may quote the value.
            procedure: `ERROR_PROCEDURE()`; empty outside of any.
        """
        super().__init__(message)
        self.number = number
        self.message = message
        self.procedure = procedure

    def __str__(self) -> str:
        """Give the server's own words, and the number."""
        return f"{self.message.rstrip()} (error {self.number})"


def is_data_error(error: ServerError) -> bool:
    """
    Tell whether the data of an event, and not the server, are in trouble.

    What a trigger throws is about data: adopted tables have triggers of their owner's, and one
    document that breaks a rule must not hold up the others for ever.
    """
    state = packed_state(error.number)
    if state is not None:
        return state.startswith(_PACKED_DATA) and not is_transient(error)
    is_thrown = error.number >= _FIRST_THROWN and error.number not in _OWN
    return (error.number in _DATA or is_thrown) and not is_transient(error)


def is_transient(error: ServerError) -> bool:
    """Tell whether the server, not the statement, is in trouble."""
    state = packed_state(error.number)
    if error.number in _DUPLICATE or state == _DUPLICATE_STATE:
        return _named(error).lower().startswith(_OWN_KEY)
    if state is not None:
        known = number_of_words(error.message, state=None)
        return known in _TRANSIENT or known in _CURES or state.startswith(_PACKED_TRANSIENT)
    return error.number in _TRANSIENT or error.number in _CURES


def packed_state(number: int) -> str | None:
    """
    Give the SQLSTATE that Babelfish has packed into an error's number; None where there is none.

    Its own are of class YY: YY002 is any error that it does not know.

    >>> packed_state(67391682), packed_state(33557097), packed_state(51001)
    ('23514', 'YY002', None)
    """
    if number < _FIRST_PACKED:
        return None
    state = "".join(chr(ord("0") + (number >> 6 * place & 63)) for place in range(5))
    return state if state.isalnum() and state == state.upper() else None


def refused_data(error: ServerError) -> str:
    """Say why data were refused, without the server's message: it may quote them."""
    if error.number in _OWN:
        return str(error)
    named = _named(error)
    about = f" on {named}" if named else ""
    return f"the database refused the data{about} (error {error.number})"


def translated(error: ServerError) -> StoreMirrorError:
    """Give the error of ours for one that no event is to blame for."""
    if is_transient(error):
        cure = _CURES.get(error.number)
        goes_on = f"; {cure}, and what waits goes on by itself" if cure else ""
        return SqlUnavailable(f"{_NAME}: {error}{goes_on}")
    if error.number == 51010:
        return SchemaBoundElsewhere(str(error))
    if error.number in (51011, 51012, 51013):
        return SchemaMismatch(str(error))
    look = _REFUSALS.get(error.number)
    return DatabaseRefused(f"{_NAME} refused: {error}{f'; {look}' if look else ''}")


def number_of_words(text: str, *, state: str | None) -> int | None:
    """
    Give the number of an error that came without one; None when its words tell none.

    >>> number_of_words("[SQL Server]Login failed for user 'me'.", state="28000")
    18456
    """
    if state == "40001":
        return 1205
    return next((number for words, number in _WORDS.items() if words in text), None)


def _named(error: ServerError) -> str:
    """Give the constraint, index or column that an error is about; empty when it names none."""
    is_told = error.number in _NAMING or (packed_state(error.number) or "").startswith("23")
    found = _NAMED.search(error.message) if is_told else None
    return found[1] if found else ""
