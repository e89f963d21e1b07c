"""The server's error numbers, and the driver's exceptions, become the errors that callers know."""

from __future__ import annotations

import pytest
from mssql_python.exceptions import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    raise_exception,
)
from mssql_python.exceptions import Exception as DriverError

from storemirror.errors import (
    ConfigError,
    DatabaseRefused,
    SchemaBoundElsewhere,
    SchemaMismatch,
    SqlUnavailable,
    StoreMirrorError,
)
from storemirror.sql.sqlserver.connection import translated_errors
from storemirror.sql.sqlserver.errors import (
    ServerError,
    is_data_error,
    is_transient,
    refused_data,
    translated,
)

PREFIX = "[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]"


def of_the_driver(state: str, words: str) -> StoreMirrorError:
    """Raise the driver's own exception as the driver does, and give what it becomes."""
    with pytest.raises(StoreMirrorError) as caught, translated_errors():
        raise_exception(state, f"{PREFIX}{words}")
    assert isinstance(caught.value.__cause__, DriverError)
    return caught.value


@pytest.mark.parametrize(
    "number",
    [1205, 1222, 3960, 40197, 40501, 40613, 49918, 49919, 49920, 10928, 10929, 233, 10053, 10054,
     10060, 64, -2, 51007, 51008],
)  # fmt: skip
def test_trouble_of_the_server_is_waited_for(number: int) -> None:
    """A retry may go through: deadlocks, throttling, failovers, our own words for either."""
    error = ServerError(number, "words")
    assert is_transient(error)
    assert not is_data_error(error)
    assert isinstance(translated(error), SqlUnavailable)


@pytest.mark.parametrize("number", [1105, 9002, 40544, 3906, 10928])
def test_a_server_that_needs_a_hand_says_which(number: int) -> None:
    """Full, read-only or at its limit: what waits goes on by itself once that is mended."""
    assert "goes on by itself" in str(translated(ServerError(number, "words")))


@pytest.mark.parametrize(
    "number",
    [245, 8114, 8115, 241, 220, 2628, 8152, 547, 515, 2601, 13609, 51002, 51003, 51006, 50000,
     60000],
)  # fmt: skip
def test_trouble_of_the_data_is_an_event_s(number: int) -> None:
    """Conversions, truncation, constraints, a trigger of the tables' owner, our own refusals."""
    error = ServerError(number, "words")
    assert is_data_error(error)
    assert not is_transient(error)


def packed(state: str) -> int:
    """Write a SQLSTATE as Babelfish does where it knows no number: six bits a character."""
    return sum((ord(character) - ord("0")) << 6 * place for place, character in enumerate(state))


def test_a_state_of_postgresql_s_is_packed_as_the_server_does() -> None:
    """These two were seen in its own tests' answers."""
    assert (packed("23514"), packed("YY002")) == (67391682, 33557097)


@pytest.mark.parametrize(
    ("state", "message", "is_data", "is_waited_for"),
    [
        ("23514", 'violates check constraint "ck_a_required"', True, False),
        ("22007", "invalid input syntax for type timestamp", True, False),
        ("23505", 'violates unique constraint "pk_dmmessage_1a2b"', False, True),
        ("23505", 'violates unique constraint "uq_dmmessage_body"', True, False),
        ("40P01", "deadlock detected", False, True),
        ("40001", "could not serialize access due to concurrent update", False, True),
        ("55P03", "canceling statement due to lock timeout", False, True),
        ("57P01", "terminating connection due to administrator command", False, True),
        ("YY002", "canceling statement due to lock timeout", False, True),
        ("YY002", "anything at all", False, False),
        ("42704", "collation does not exist", False, False),
    ],
)
def test_a_state_that_is_packed_in_a_number_means_what_it_does_in_postgresql(
    state: str, message: str, *, is_data: bool, is_waited_for: bool
) -> None:
    """They are numbers above 50,000: else each would be the data's fault, and a dead letter."""
    error = ServerError(packed(state), message)
    assert is_data_error(error) is is_data
    assert is_transient(error) is is_waited_for


def test_a_refusal_by_way_of_postgresql_names_the_rule() -> None:
    """As SQL Server's does."""
    error = ServerError(packed("23514"), 'violates check constraint "ck_a_required"; SECRET')
    assert "on ck_a_required (" in refused_data(error)


@pytest.mark.parametrize("number", [229, 208, 2812, 262, 18456, 51001, 51005, 51010, 3930])
def test_other_errors_blame_no_event(number: int) -> None:
    """An event that is dead-lettered for a missing right is lost for nothing."""
    assert not is_data_error(ServerError(number, "words"))


@pytest.mark.parametrize(
    ("number", "message", "named"),
    [
        (547, 'conflicted with the CHECK constraint "CK_A_Required". SECRET', " on CK_A_Required"),
        (515, "Cannot insert the value NULL into column 'X', table 'y'; SECRET", " on X"),
        (2601, "with unique index 'IX_Own'. The duplicate key value is (SECRET).", " on IX_Own"),
        (245, "Conversion failed when converting the nvarchar value 'SECRET' to int.", ""),
        (245, "converting the nvarchar value 'column 'SECRET'' to data type int.", ""),
    ],
)
def test_a_refusal_names_the_rule_and_no_value(number: int, message: str, named: str) -> None:
    """Contents of documents must not end in a dead letter's reason."""
    said = refused_data(ServerError(number, message))
    assert said == f"the database refused the data{named} (error {number})"


def test_a_row_of_ours_that_two_writers_made_is_no_event_s_fault() -> None:
    """Only where lock hints are passed over; an owner's own unique key is about the data."""
    message = "Violation of PRIMARY KEY constraint '{}'. The duplicate key value is (a)."
    assert is_transient(ServerError(2627, message.format("PK_DmMessage")))
    assert is_transient(ServerError(2627, message.format("pk_dmmessage_1a2b")))
    assert is_data_error(ServerError(2627, message.format("UQ_DmMessage_Body")))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(51010, SchemaBoundElsewhere), (51011, SchemaMismatch), (51012, SchemaMismatch)],
)
def test_our_own_refusals_of_a_schema_are_told_as_such(
    number: int, kind: type[StoreMirrorError]
) -> None:
    """Their hints name the command that mends them."""
    assert type(translated(ServerError(number, "words"))) is kind


@pytest.mark.parametrize(
    ("state", "words", "kind", "said"),
    [
        ("28000", "Login failed for user 'me'.", DatabaseRefused, "user or password"),
        ("42000", 'Cannot open database "x" requested by the login.', DatabaseRefused, "not there"),
        ("42000", "Cannot open server 'x' requested by the login.", DatabaseRefused, "firewall"),
        ("42000", "CREATE TABLE permission denied in database 'x'.", DatabaseRefused, "grant"),
        ("42000", "The SELECT permission was denied on the object 'x'", DatabaseRefused, "grant"),
        ("40001", "Transaction (Process ID 5) was deadlocked.", SqlUnavailable, "deadlocked"),
        ("08001", "TCP Provider: Error code 0x2749", SqlUnavailable, "0x2749"),
        ("08S01", "Communication link failure", SqlUnavailable, "link failure"),
        ("HYT00", "Query timeout expired", SqlUnavailable, "timeout"),
        ("HYT01", "Connection timeout expired", SqlUnavailable, "timeout"),
        ("HY000", "Database 'x' on server 'y' is not currently available.", SqlUnavailable, "x"),
        ("42000", "The service is currently busy. Retry after 10 seconds.", SqlUnavailable, "busy"),
        ("42000", "Incorrect syntax near 'x'.", DatabaseRefused, "syntax"),
        ("42S02", "Invalid object name 'x'.", DatabaseRefused, "Invalid object"),
        # Babelfish's, which ends a batch past its CATCH.
        ("42000", "deadlock detected", SqlUnavailable, "deadlock"),
        ("42000", "canceling statement due to lock timeout", SqlUnavailable, "lock timeout"),
        ("42000", "could not serialize access due to concurrent update", SqlUnavailable, "access"),
        ("42000", "the database system is shutting down", SqlUnavailable, "shutting down"),
    ],
)
def test_what_no_batch_can_catch_is_told_by_state_and_words(
    state: str, words: str, kind: type[StoreMirrorError], said: str
) -> None:
    """The driver throws the number away; so these few are known by what is left."""
    error = of_the_driver(state, words)
    assert type(error) is kind
    assert said in str(error)


def test_a_state_that_nobody_knows_is_a_refusal() -> None:
    """Not to be retried for ever."""
    with pytest.raises(DatabaseRefused), translated_errors():
        raise DatabaseError("An error occurred with SQLSTATE code: 99999", "x")


def test_an_identity_that_gives_no_token_is_waited_for() -> None:
    """The endpoint of managed identities is at times not there for seconds."""
    with pytest.raises(SqlUnavailable, match="Entra"), translated_errors():
        raise InterfaceError("Failed to acquire an Entra ID access token", "x")


def test_a_driver_that_cannot_be_loaded_names_what_it_needs() -> None:
    """It needs a system library that a slim image may lack."""
    words = "Failed to load the driver. Please read the documentation"
    with pytest.raises(ConfigError, match="apt-get install libltdl7"), translated_errors():
        raise OperationalError("Connection operation failed", words)
