"""
Settings: `storemirror.toml`, overridden by the environment, all checked before any I/O.

Nothing is read here but the settings file.  DSNs are secrets: no `repr` and no error shows one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from storemirror.config.reference import setting_docs
from storemirror.config.shape import Table, refusal
from storemirror.errors import ConfigError

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


def _procedure_name(text: str) -> str:
    parts = text.split(".")
    if len(parts) > 2 or not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise refusal(
            "is no name of a procedure",
            "Write upsert_message or my_schema.upsert_message: letters, digits and underscores, "
            "at most 63 a part.",
        )
    return text


def _procedure_key(key: str) -> str:
    if not re.fullmatch(PROCEDURE_PREFIX + "[A-Z][A-Z0-9_]*", key):
        raise refusal(
            f"{key!r} is no procedure's setting", "Write it as in SQL_PROC_UPSERT_DM_MESSAGE."
        )
    return key


def _paths(value: object) -> object:
    """Take a list as TOML has it, and a path list as an environment variable has it."""
    if isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part]
    return tuple(value) if isinstance(value, list) else value


def _words(value: object) -> object:
    """Take a list as TOML has it, and a comma-separated one as an environment variable has it."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(value) if isinstance(value, list) else value


Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, AfterValidator(_not_blank)]
Identifier = Annotated[str, AfterValidator(_identifier)]
HostName = Annotated[str, AfterValidator(_not_blank), AfterValidator(_host_name)]
Dsn = Annotated[SecretStr, AfterValidator(_secret_not_blank)]
_DSN_FORM: Final = "a libpq connection string, postgresql://user:password@host/database"


class Section(Table):
    """One `[section]` of the settings file."""

    model_config = ConfigDict(allow_inf_nan=False)


class FirestoreSettings(Section):
    """Which Firestore is mirrored.  The schema is bound to it."""

    project: Text | None = Field(default=None, description="the Firebase project's id")
    database: Text = Field(default="(default)", description="the Firestore database's id")
    emulator_host: Text | None = Field(
        default=None,
        description="host:port of a Firestore emulator; never set in production",
        json_schema_extra={"env": "FIRESTORE_EMULATOR_HOST"},
    )


class DocumentsSettings(Section):
    """Where documents are."""

    kind: Literal["embedded", "firestore"] = Field(
        default="embedded",
        description="embedded (the laptop's) or firestore (an extra)",
    )
    dsn: Dsn | None = Field(
        default=None, description=f"where the embedded documents are: {_DSN_FORM}"
    )


class SqlSettings(Section):
    """The mirror's database."""

    dsn: Dsn | None = Field(
        default=None,
        description=f"where the mirror is: {_DSN_FORM}, or mssql://user:password@host/database "
        "(SQL Server, Azure SQL; an extra)",
    )
    schema_name: Identifier = Field(
        default="storemirror",
        description="the schema of tables and routines; on SQL Server dbo when it is not set",
    )


class BusSettings(Section):
    """The event bus."""

    kind: Literal["postgres", "servicebus"] = Field(
        default="postgres",
        description="postgres (PostgreSQL: laptop, small team) or servicebus (Azure Service Bus; "
        "an extra)",
    )
    dsn: Dsn | None = Field(
        default=None, description=f"where the bus on PostgreSQL is: {_DSN_FORM}"
    )
    connection_string: Dsn | None = Field(
        default=None,
        description="Service Bus: the connection string of a shared access policy of the "
        "namespace; or else set namespace, for Azure's identity",
        json_schema_extra={"env": "SERVICEBUS_CONNECTION_STRING"},
    )
    namespace: HostName | None = Field(
        default=None,
        description="Service Bus: contoso.servicebus.windows.net, reached with Azure's identity "
        "(managed, federated, or az login); not beside a connection string",
        json_schema_extra={"env": "SERVICEBUS_NAMESPACE"},
    )
    emulator_management: Text | None = Field(
        default=None,
        description="host:port of a Service Bus emulator's management interface; never set in "
        "production",
        json_schema_extra={"env": "SERVICEBUS_EMULATOR_MANAGEMENT"},
    )
    topic: Text = Field(
        default="realtime-mirror",
        description="the topic that the triggers publish to",
        json_schema_extra={"env": "SERVICEBUS_TOPIC_REALTIME_MIRROR"},
    )
    subscription: Text = Field(
        default="sql-writer",
        description="the subscription that the writer receives from",
        json_schema_extra={"env": "SERVICEBUS_SUBSCRIPTION_SQL_WRITER"},
    )


class ModelSettings(Section):
    """What is mirrored."""

    files: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = Field(
        default=(),
        description="a list of declaration files, relative to the settings file; in the "
        "environment separated as in PATH and relative to the working directory",
    )
    with_builtin: Switch = Field(
        default=True,
        description="true or false: whether messages, follows and blocks are declared as well",
    )


class WriterSettings(Section):
    """How the writer works."""

    lane_count: int = Field(
        default=2, ge=1, le=16, description="1 to 16 connections that write at a time"
    )
    batch_max_events: int = Field(
        default=2000, ge=1, le=2000, description="1 to 2000 events a transaction"
    )
    batch_max_bytes: int = Field(
        default=8_000_000,
        ge=1,
        le=64_000_000,
        description="1 to 64000000 bytes of events a transaction",
    )
    shutdown_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="seconds, up to 600, that a batch in hand may still take",
    )
    retry_within_s: float = Field(
        default=30.0,
        ge=0,
        le=240,
        description="seconds, up to 240, for which a batch is retried before it is abandoned",
    )


class TriggersSettings(Section):
    """The trigger receiver, `storemirror triggers`."""

    host: Text = Field(
        default="127.0.0.1",
        description="address to listen on; other machines reach it only with the next settings",
    )
    port: int = Field(
        default=8085, ge=0, le=65_535, description="port to listen on, 0 to 65535; 0: any free one"
    )
    audience: Text | None = Field(
        default=None, description="what a caller's token must be for: the receiver's own address"
    )
    service_accounts: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=(),
        description="a list of the e-mail addresses of those who may deliver; in the environment "
        "separated by commas",
    )
    certs_url: Text | None = Field(
        default=None, description="where the keys of tokens are; Google's when not set"
    )


class FunctionsSettings(Section):
    """How the Firebase Functions are deployed.  Read when they are, from their own folder."""

    region: Text | None = Field(
        default=None, description="region to deploy to; Firebase chooses when not set"
    )
    memory_mb: int = Field(default=512, ge=256, le=32_768, description="256 to 32768 MiB each")
    concurrency: int = Field(
        default=80, ge=1, le=1000, description="1 to 1000 deliveries at a time in one instance"
    )
    min_instances: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="0 to 1000 instances of each trigger kept warm, billed",
    )
    max_instances: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="1 to 1000 instances of each trigger; each may hold 4 connections to the bus",
    )
    vpc_connector: Text | None = Field(
        default=None,
        description="the connector to a private network, where the databases are in one",
    )
    service_account: Text | None = Field(
        default=None, description="who the functions run as; the project's default when not set"
    )
    drain_within_s: float = Field(
        default=50.0,
        ge=1,
        le=480,
        description="seconds, 1 to 480, after which drainRealtimeMirrorQueue receives nothing more",
    )


class UpSettings(Section):
    """Everything in one process, `storemirror up`."""

    drain_interval_s: float = Field(
        default=60.0, ge=1, le=3_600, description="seconds, 1 to 3600, from one drain to the next"
    )
    shutdown_timeout_s: float = Field(
        default=25.0,
        gt=0,
        le=600,
        description="seconds, up to 600, in which all parts must have ended",
    )


class PostgresSettings(Section):
    """The embedded PostgreSQL."""

    bin_dir: Path | None = Field(
        default=None,
        description="the folder of another PostgreSQL's initdb and postgres",
        json_schema_extra={"env": "STOREMIRROR_POSTGRES_BIN"},
    )


class LogSettings(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )


class Settings(Section):
    """All settings.  Made by `storemirror.config.load_settings`."""

    firestore: FirestoreSettings = Field(default=FirestoreSettings(), description="[firestore]")
    documents: DocumentsSettings = Field(default=DocumentsSettings(), description="[documents]")
    sql: SqlSettings = Field(default=SqlSettings(), description="[sql]")
    bus: BusSettings = Field(default=BusSettings(), description="[bus]")
    model: ModelSettings = Field(default=ModelSettings(), description="[model]")
    writer: WriterSettings = Field(default=WriterSettings(), description="[writer]")
    triggers: TriggersSettings = Field(default=TriggersSettings(), description="[triggers]")
    functions: FunctionsSettings = Field(default=FunctionsSettings(), description="[functions]")
    up: UpSettings = Field(default=UpSettings(), description="[up]")
    postgres: PostgresSettings = Field(default=PostgresSettings(), description="[postgres]")
    log: LogSettings = Field(default=LogSettings(), description="[log]")
    #: Setting -> name in the database: "SQL_PROC_UPSERT_DM_MESSAGE" -> "upsert_message".
    #: Whether there is such a procedure is known to `storemirror.sql.names`.
    procedures: Mapping[
        Annotated[str, AfterValidator(_procedure_key)],
        Annotated[str, AfterValidator(_procedure_name)],
    ] = Field(
        default={}, description='[procedures]: UPSERT_DM_MESSAGE = "my_schema.upsert_message"'
    )
    is_mirror_on: Switch = Field(
        default=False,
        description="true or false: the master switch of the writer and the dual write",
        json_schema_extra={"env": "USE_SQL_DM_WRITE_MIRROR"},
    )

    def require(self, *names: str) -> None:
        """
        See that settings without a default are set.

        Args:
            names: as in "sql.dsn".

        Raises:
            ConfigError: one is not; names each, with its place in the file and its variable.
        """
        docs = {doc.name: doc for doc in setting_docs(Settings)}
        missing = [docs[name] for name in names if not self.is_set(name)]
        if not missing:
            return
        listed = "".join(f"\n  {doc.name} is not set: {doc.what}. {doc.cure}" for doc in missing)
        plural = "setting is" if len(missing) == 1 else "settings are"
        raise ConfigError(f"{len(missing)} {plural} missing; nothing was started{listed}")

    def is_set(self, name: str) -> bool:
        """Tell whether a setting, as in "sql.dsn", has a value."""
        return self._value_of(name) is not None

    def text_of(self, name: str) -> str:
        """
        Give the text of a setting that must be set; of a secret the secret itself.

        Raises:
            ConfigError: it is not set.
        """
        self.require(name)
        value = self._value_of(name)
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    def _value_of(self, name: str) -> object:
        value: object = self
        for part in name.split("."):
            value = getattr(value, part)
        return value
