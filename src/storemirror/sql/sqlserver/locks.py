"""Application locks, as T-SQL.  Pure."""

from __future__ import annotations

from typing import Final, Literal

#: Longer than any batch takes.
WAIT_MS: Final = 120_000
#: The procedures' own number for it: transient.
_NOT_GRANTED: Final = 51008


def taken(resource: str, mode: Literal["Shared", "Exclusive"], *, wait_ms: int = WAIT_MS) -> str:
    """
    Take a lock until the transaction ends; an error when it is not granted in time.

    Args:
        resource: from the rendering; it may hold no variable.
        mode: Shared: writers hold it so.
        wait_ms: how long to wait; by default two minutes.
    """
    return (
        "DECLARE @Granted INT;\n"
        f"EXEC @Granted = sys.sp_getapplock @Resource = {text(resource)}, @LockMode = N'{mode}',"
        f" @LockOwner = N'Transaction', @LockTimeout = {wait_ms};\n"
        f"IF @Granted < 0 THROW {_NOT_GRANTED},"
        " N'SM008 an application lock was not granted: try again', 1;"
    )


def taken_for_session(resource: str, *, wait_ms: int) -> str:
    """Take a lock until it is released or the connection ends; answers 1, or 0 when another has it.

    Args:
        resource: from the rendering.
        wait_ms: how long to wait; 0 for not at all.
    """
    return (
        "DECLARE @Granted INT;\n"
        f"EXEC @Granted = sys.sp_getapplock @Resource = {text(resource)}, @LockMode = N'Exclusive',"
        f" @LockOwner = N'Session', @LockTimeout = {wait_ms};\n"
        "SELECT CASE WHEN @Granted >= 0 THEN 1 ELSE 0 END;"
    )


def released(resource: str) -> str:
    """Release a lock of the session's."""
    return f"EXEC sys.sp_releaseapplock @Resource = {text(resource)}, @LockOwner = N'Session';"


def text(value: str) -> str:
    """
    Write a text of ours as a literal.

    >>> text("it's")
    "N'it''s'"
    """
    return "N'" + value.replace("'", "''") + "'"
