"""What a setting's value may be, and what is said of one that may not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, SecretStr

from storemirror.config.shape import Table, refusal

#: Prefix of the variables that rename procedures: SQL_PROC_UPSERT_DM_MESSAGE.
PROCEDURE_PREFIX: Final = "SQL_PROC_"

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_HOST_NAME: Final = re.compile(r"(sb://)?[A-Za-z0-9.-]+/?")
_SWITCH: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}


def _switch(value: object) -> object:
    if isinstance(value, bool):
        return value
    switched = _SWITCH.get(str(value).strip().lower())
    if switched is None:
        raise refusal("is neither true nor false", "Write true, false, 1 or 0.")
    return switched


def _not_blank(text: str) -> str:
    if not text.strip():
        raise refusal("is blank", "Write a value, or take the setting out.")
    return text


def _secret_not_blank(secret: SecretStr) -> SecretStr:
    _not_blank(secret.get_secret_value())
    return secret


def _identifier(text: str) -> str:
    if _IDENTIFIER.fullmatch(text) is None:
        raise refusal(
            "is no SQL identifier",
            "Use letters, digits and underscores, not a digit first, at most 63.",
        )
    return text


def _host_name(text: str) -> str:
    if _HOST_NAME.fullmatch(text) is None:
        raise refusal(
            "is no host name",
            "Write it as in contoso.servicebus.windows.net; a connection string is a secret, and "
            "belongs in SERVICEBUS_CONNECTION_STRING.",
        )
    return text


def procedure_name(text: str) -> str:
    """Take the name of a procedure, with its schema or without."""
    parts = text.split(".")
    if len(parts) > 2 or not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise refusal(
            "is no name of a procedure",
            "Write upsert_message or my_schema.upsert_message: letters, digits and underscores, "
            "at most 63 a part.",
        )
    return text


def procedure_key(key: str) -> str:
    """Take the name of a setting that renames a procedure."""
    if not re.fullmatch(PROCEDURE_PREFIX + "[A-Z][A-Z0-9_]*", key):
        raise refusal(
            f"{key!r} is no procedure's setting", "Write it as in SQL_PROC_UPSERT_DM_MESSAGE."
        )
    return key


def paths(value: object) -> object:
    """Take a list as TOML has it, and a path list as an environment variable has it."""
    if isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part]
    return tuple(value) if isinstance(value, list) else value


def words(value: object) -> object:
    """Take a list as TOML has it, and a comma-separated one as an environment variable has it."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(value) if isinstance(value, list) else value


Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, AfterValidator(_not_blank)]
Identifier = Annotated[str, AfterValidator(_identifier)]
HostName = Annotated[str, AfterValidator(_not_blank), AfterValidator(_host_name)]
Dsn = Annotated[SecretStr, AfterValidator(_secret_not_blank)]
DSN_FORM: Final = "a libpq connection string, postgresql://user:password@host/database"


class Section(Table):
    """One `[section]` of the settings file."""

    model_config = ConfigDict(allow_inf_nan=False)
