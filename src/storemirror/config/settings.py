"""
Settings: `storemirror.toml`, overridden by the environment, all checked before any I/O.

Nothing is read here but the settings file.  DSNs are secrets: no `repr` and no error shows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from storemirror.config.gateway_settings import GatewaySettings
from storemirror.config.reference import setting_docs
from storemirror.config.values import (
    DSN_FORM,
    Dsn,
    HostName,
    Identifier,
    Section,
    Switch,
    Text,
    paths,
    procedure_key,
    procedure_name,
    words,
)
from storemirror.errors import ConfigError


class FirestoreSettings(Section):
    """Which Firestore is mirrored.  The schema is bound to it."""

    project: Text | None = Field(default=None, description="the Firebase project's id")
    database: Text = Field(default="(default)", description="the Firestore database's id")
    emulator_host: Text | None = Field(
        default=None,
        description="host:port of a Firestore emulator; never set in production",
        json_schema_extra={"env": "FIRESTORE_EMULATOR_HOST"},
    )
    retry_within_s: float = Field(
        default=10.0,
        ge=0,
        le=240,
        description="seconds, up to 240, for which a call is repeated while Firestore fails",
    )


class DocumentsSettings(Section):
    """Where documents are."""

    kind: Literal["embedded", "firestore"] = Field(
        default="embedded",
        description="embedded (the laptop's) or firestore (an extra)",
    )
    dsn: Dsn | None = Field(
        default=None, description=f"where the embedded documents are: {DSN_FORM}"
    )


class SqlSettings(Section):
    """The mirror's database."""

    dsn: Dsn | None = Field(
        default=None,
        description=f"where the mirror is: {DSN_FORM}, or mssql://user:password@host/database "
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
    dsn: Dsn | None = Field(default=None, description=f"where the bus on PostgreSQL is: {DSN_FORM}")
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

    files: Annotated[tuple[Path, ...], BeforeValidator(paths)] = Field(
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
    service_accounts: Annotated[tuple[str, ...], BeforeValidator(words)] = Field(
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
    with_gateway: Switch = Field(
        default=False, description="true or false: whether the callables are deployed as well"
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
    with_gateway: Switch = Field(
        default=False, description="true or false: whether the gateway runs there as well"
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
    gateway: GatewaySettings = Field(default=GatewaySettings(), description="[gateway]")
    functions: FunctionsSettings = Field(default=FunctionsSettings(), description="[functions]")
    up: UpSettings = Field(default=UpSettings(), description="[up]")
    postgres: PostgresSettings = Field(default=PostgresSettings(), description="[postgres]")
    log: LogSettings = Field(default=LogSettings(), description="[log]")
    #: Setting -> name in the database: "SQL_PROC_UPSERT_DM_MESSAGE" -> "upsert_message".
    #: Whether there is such a procedure is known to `storemirror.sql.names`.
    procedures: Mapping[
        Annotated[str, AfterValidator(procedure_key)],
        Annotated[str, AfterValidator(procedure_name)],
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
