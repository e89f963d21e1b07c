"""The settings of the gateway, `storemirror gateway`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from storemirror.config.shape import refusal
from storemirror.config.values import Section, Switch, Text, words

# Firebase refuses any other: a dot, as in the app's own flags, is none of these.
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")


def _parameter(text: str) -> str:
    if _PARAMETER.fullmatch(text) is None:
        raise refusal(
            "is no key of Remote Config",
            "Use letters, digits and underscores, not a digit first, at most 256; Firebase takes"
            " no dot.",
        )
    return text


def _origin(text: str) -> str:
    if _ORIGIN.fullmatch(text) is None:
        raise refusal(
            "is no origin", "Write https://app.example.com, without a path, or * for every origin."
        )
    return text


Parameter = Annotated[str, AfterValidator(_parameter)]
Origin = Annotated[str, AfterValidator(_origin)]


class GatewaySettings(Section):
    """The gateway, `storemirror gateway`: what the app calls."""

    host: Text = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8086, ge=0, le=65_535, description="port to listen on, 0 to 65535; 0: any free one"
    )
    allowed_origins: Annotated[tuple[Origin, ...], BeforeValidator(words)] = Field(
        default=(),
        description="a list of the origins of web apps that may call, or *; in the environment "
        "separated by commas",
    )
    auth_emulator_host: Text | None = Field(
        default=None,
        description="host:port of the Auth emulator, whose unsigned tokens are taken; only with a "
        "project that begins with demo-",
        json_schema_extra={"env": "FIREBASE_AUTH_EMULATOR_HOST"},
    )
    auth_keys_url: Text | None = Field(
        default=None,
        description="where the keys of Firebase ID tokens are, as JWKS; Google's when not set",
    )
    app_check_project_number: Text | None = Field(
        default=None,
        description="the Firebase project's number; users' calls need an App Check token when set",
    )
    app_check_keys_url: Text | None = Field(
        default=None,
        description="where the keys of App Check tokens are, as JWKS; Google's when not set",
    )
    service_audience: Text | None = Field(
        default=None,
        description="what a service's token must be for: the gateway's own address",
    )
    service_accounts: Annotated[tuple[str, ...], BeforeValidator(words)] = Field(
        default=(),
        description="a list of the e-mail addresses of service accounts that may ask for "
        "relationships; in the environment separated by commas",
    )
    service_certs_url: Text | None = Field(
        default=None, description="where the keys of services' tokens are; Google's when not set"
    )
    calls_per_minute: int = Field(
        default=600,
        ge=1,
        le=1_000_000,
        description="1 to 1000000 calls a minute of one user; in each process",
    )
    service_calls_per_minute: int = Field(
        default=6_000,
        ge=1,
        le=1_000_000,
        description="1 to 1000000 calls a minute of one service, which asks for many users; in "
        "each process",
    )
    opens_per_minute: int = Field(
        default=30,
        ge=1,
        le=1_000_000,
        description="1 to 1000000 calls a minute of one user that open a conversation, new or not: "
        "each new one is in others' inboxes; in each process",
    )
    sends_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="1 to 1000000 calls a minute of one user that send a message; in each process; "
        "as many as calls_per_minute when not set",
    )
    calls_max_count: int = Field(
        default=256, ge=1, le=10_000, description="1 to 10000 calls under way at a time"
    )
    user_calls_max_count: int = Field(
        default=16,
        ge=1,
        le=10_000,
        description="1 to 10000 of these of one user; in each process",
    )
    body_max_bytes: int = Field(
        default=262_144,
        ge=1_024,
        le=1_048_576,
        description="1024 to 1048576 bytes that a request may have",
    )
    read_deadline_s: float = Field(
        default=10.0, gt=0, le=60, description="seconds, up to 60, that a read may take"
    )
    write_deadline_s: float = Field(
        default=20.0, gt=0, le=60, description="seconds, up to 60, that a write may take"
    )
    sql_timeout_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="seconds, up to 60, that SQL may take for a read before Firestore serves it",
    )
    firestore_timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="seconds, up to 60, that Firestore may take for one"
    )
    mirror_timeout_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="seconds, up to 60, that a write waits for SQL before the event path brings it",
    )
    write_wait_s: float = Field(
        default=0.25,
        ge=0,
        le=10,
        description="seconds, up to 10, that a read waits for SQL to show the caller's own write",
    )
    max_lag_s: float = Field(
        default=30.0,
        ge=0,
        le=86_400,
        description="seconds, up to 86400, that SQL may be behind before Firestore serves reads; "
        "0: as far as it may be",
    )
    shadow_sample_rate: float = Field(
        default=1.0, ge=0, le=1, description="0 to 1: the share of shadow reads that are compared"
    )
    page_size: int = Field(
        default=30, ge=1, le=1_000, description="1 to 1000 items of a page where none are asked for"
    )
    page_max_size: int = Field(
        default=100, ge=1, le=1_000, description="1 to 1000 items of a page at most"
    )
    template_file: Path | None = Field(
        default=None,
        description="a Remote Config server template, as JSON, that tells cohorts; relative to the "
        "settings file",
    )
    fetch_template: Switch = Field(
        default=False,
        description="true or false: whether Remote Config's server template is fetched from "
        "Firebase; not beside template_file",
    )
    template_refresh_s: float = Field(
        default=60.0,
        ge=1,
        le=86_400,
        description="seconds, 1 to 86400, after which the template is read or fetched again",
    )
    read_mode: Literal["firestore", "shadow", "sql", "sql-only"] = Field(
        default="firestore",
        description="firestore, shadow, sql or sql-only: where everybody's reads are served from, "
        "without a template",
    )
    dual_write: Switch = Field(
        default=False,
        description="true or false: whether everybody's writes go into SQL within the call, "
        "without a template",
    )
    messaging_read_mode_parameter: Parameter = Field(
        default="MessagingFeatureFlags_readMode",
        description="Remote Config's key of the read mode of messages",
    )
    messaging_dual_write_parameter: Parameter = Field(
        default="MessagingFeatureFlags_useSqlMirrorDoubleWrite",
        description="Remote Config's key of the dual write of messages",
    )
    follow_read_mode_parameter: Parameter = Field(
        default="FollowFeatureFlags_readMode",
        description="Remote Config's key of the read mode of follows and blocks",
    )
    follow_dual_write_parameter: Parameter = Field(
        default="FollowFeatureFlags_useSqlMirrorDoubleWrite",
        description="Remote Config's key of the dual write of follows and blocks",
    )
