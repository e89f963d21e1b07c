"""Remote Config's templates, as Firebase's own SDK evaluates them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import firebase_admin
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from firebase_admin._http_client import HttpClient

from storemirror.clock import SystemClock
from storemirror.errors import SourceUnavailable
from storemirror.gateway.flags import FlagNames, TemplateFlags, firestore_only
from storemirror.gateway.port import Caller, Cohort, Feature, ReadMode
from storemirror.gateway.remote_config import FetchedTemplates, FileTemplates, remote_config
from tests.support.node import ROOT

MODE = "MessagingFeatureFlags_readMode"
WRITE = "MessagingFeatureFlags_useSqlMirrorDoubleWrite"
NAMES = FlagNames(read_mode=MODE, dual_write=WRITE)


def template(
    condition: dict[str, Any], *, mode: str = "sql", default: str = "firestore"
) -> dict[str, Any]:
    """A template in which a read mode, and the dual write, have one condition."""
    return {
        "conditions": [
            {
                "name": "cohort",
                "condition": {"orCondition": {"conditions": [{"andCondition": condition}]}},
            }
        ],
        "parameters": {
            MODE: {
                "defaultValue": {"value": default},
                "conditionalValues": {"cohort": {"value": mode}},
            },
            WRITE: {
                "defaultValue": {"value": "false"},
                "conditionalValues": {"cohort": {"value": "true"}},
            },
        },
        "version": {"versionNumber": "1"},
        "etag": "e1",
    }


def percent(upper: int) -> dict[str, Any]:
    return {
        "conditions": [
            {
                "percent": {
                    "percentOperator": "LESS_OR_EQUAL",
                    "seed": "storemirror",
                    "microPercent": upper * 1_000_000,
                }
            }
        ]
    }


def signal(name: str, *values: str) -> dict[str, Any]:
    return {
        "conditions": [
            {
                "customSignal": {
                    "customSignalOperator": "STRING_EXACTLY_MATCHES",
                    "customSignalKey": name,
                    "targetCustomSignalValues": list(values),
                }
            }
        ]
    }


class Flags:
    """Flags by a template in a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "template.json"
        self._reader = FileTemplates(self._file)

    def write(self, content: object) -> None:
        self._file.write_text(content if isinstance(content, str) else json.dumps(content))

    async def cohort(self, uid: str = "u1", **claims: object) -> Cohort:
        """The cohort by the file as it is."""
        flags = TemplateFlags(
            self._reader,
            names={Feature.MESSAGING: NAMES},
            is_mirror_on=True,
            refresh_s=60,
            clock=SystemClock(),
        )
        return await flags.cohort_of(Caller(uid=uid, claims=claims), Feature.MESSAGING)


@pytest.fixture
def flags(tmp_path: Path) -> Flags:
    return Flags(tmp_path)


SQL = Cohort(read_mode=ReadMode.SQL, is_dual_write_on=True)


async def test_a_percentage_is_the_same_users_every_time(flags: Flags) -> None:
    """A user who is in stays in when the percentage grows."""
    cohorts: dict[int, set[str]] = {}
    for upper in (0, 10, 50, 100):
        flags.write(template(percent(upper)))
        uids = [f"u{n}" for n in range(40)]
        cohorts[upper] = {uid for uid in uids if await flags.cohort(uid) == SQL}
    assert cohorts[0] == set()
    assert len(cohorts[100]) == 40
    assert cohorts[10] < cohorts[50] < cohorts[100]


async def test_an_internal_cohort_goes_by_a_verified_claim(flags: Flags) -> None:
    """Which the team's own server gave, and nobody can give themselves."""
    flags.write(template(signal("tier", "staff", "beta")))
    assert await flags.cohort(tier="beta") == SQL
    assert await flags.cohort(tier="gold") == firestore_only()
    assert await flags.cohort(name="beta") == firestore_only()


async def test_a_claim_does_not_choose_the_percentile(flags: Flags) -> None:
    """The uid does."""
    flags.write(template(percent(50)))
    plain = {uid: await flags.cohort(uid) for uid in ("u1", "u2", "u3", "u4", "u5", "u6")}
    assert len(set(map(str, plain.values()))) == 2
    claimed = {uid: await flags.cohort(uid, randomization_id="u1") for uid in plain}
    assert claimed == plain


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}x",
        {"parameters": None},
        {"conditions": None},
        {"parameters": {MODE: None}},
        {"parameters": {MODE: "sql"}},
        {"parameters": {MODE: {"defaultValue": "sql"}}},
        {"conditions": [None], "parameters": {}},
        {"conditions": [{"name": "x", "condition": None}], "parameters": {}},
        {"conditions": {"a": 1}, "parameters": {}},
        {"conditions": [], "parameters": {}},
        {"parameters": {MODE: {"defaultValue": {"value": None}}}},
        {"parameters": {MODE: {"defaultValue": {"value": 7}}}},
        {"parameters": {MODE: {"defaultValue": {"useInAppDefault": True}}}},
        template({"conditions": [{"customSignal": {}}, {"nonsense": {}}]}),
        template({"conditions": []}, default="SQL"),
        "[" * 100_000,
    ],
    ids=lambda broken: str(broken)[:40],
)
async def test_a_broken_template_means_firestore(flags: Flags, broken: object) -> None:
    """Whatever is wrong with it, no call fails and nobody's reads are moved."""
    flags.write(broken)
    cohort = await flags.cohort()
    expected = firestore_only()
    if broken == template({"conditions": []}, default="SQL"):
        # No condition is not met by nobody: it holds for everybody, as in Firebase.
        expected = SQL
    assert cohort == expected


async def test_a_condition_that_breaks_on_one_caller_breaks_for_them_alone(flags: Flags) -> None:
    """Its mistake shows with a signal that few have."""
    regex = {
        "conditions": [
            {
                "customSignal": {
                    "customSignalOperator": "STRING_CONTAINS_REGEX",
                    "customSignalKey": "tier",
                    "targetCustomSignalValues": ["(["],
                }
            }
        ]
    }
    flags.write(template(regex, default="sql-only"))
    assert (await flags.cohort()).read_mode is ReadMode.SQL_ONLY
    assert await flags.cohort(tier="x") == firestore_only()


async def test_a_file_that_is_not_there_may_be_there_later(flags: Flags) -> None:
    """It is Firestore's until then."""
    assert await flags.cohort() == firestore_only()
    flags.write(template(percent(100)))
    assert await flags.cohort() == SQL


async def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    """And one that is too large, or no text, is broken."""
    with pytest.raises(SourceUnavailable):
        await FileTemplates(tmp_path / "nothing.json").read()
    with pytest.raises(SourceUnavailable):
        await FileTemplates(tmp_path).read()
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="binary"):
        await FileTemplates(tmp_path / "binary.json").read()


class Firebase:
    """Google's side of a fetched template: a token for a service account, then the template."""

    def __init__(self) -> None:
        self.template: object = template(percent(100))
        self.status = 200
        self.asked: list[str] = []
        self.origin = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        path = head.split(b" ", 2)[1].decode()
        self.asked.append(path)
        is_token = path == "/token"
        given = {"access_token": "t", "expires_in": 3_600} if is_token else self.template
        body = json.dumps(given).encode()
        status = 200 if is_token else self.status
        lines = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nETag: e7\r\n"
        lines += "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        writer.write(lines.encode() + body)
        writer.close()
        await writer.wait_closed()

    def account(self, file: Path) -> Path:
        """Write the key file of a service account whose tokens are given here."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        content = {
            "type": "service_account",
            "client_email": "gateway@demo.iam.gserviceaccount.com",
            "private_key": pem.decode(),
            "token_uri": f"{self.origin}/token",
        }
        file.write_text(json.dumps(content))
        return file


@pytest.fixture
async def firebase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Firebase, FetchedTemplates]]:
    side = Firebase()
    server = await asyncio.start_server(side.answer, "127.0.0.1", 0)
    side.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    account = side.account(tmp_path / "account.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    # The SDK has no setting for the address of Remote Config.
    monkeypatch.setattr(HttpClient, "base_url", side.origin)
    async with server:
        yield side, FetchedTemplates("demo-storemirror")


async def cohort_by(reader: FetchedTemplates) -> Cohort:
    flags = TemplateFlags(
        reader,
        names={Feature.MESSAGING: NAMES},
        is_mirror_on=True,
        refresh_s=60,
        clock=SystemClock(),
    )
    return await flags.cohort_of(Caller(uid="u1"), Feature.MESSAGING)


async def test_the_template_is_fetched_as_a_service_account(
    firebase: tuple[Firebase, FetchedTemplates],
) -> None:
    """The server template of the project, and not the client's."""
    side, reader = firebase
    assert await cohort_by(reader) == SQL
    path = "/v1/projects/demo-storemirror/namespaces/firebase-server/serverRemoteConfig"
    assert side.asked == ["/token", path]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_template_that_firebase_does_not_give_is_unavailable(
    firebase: tuple[Firebase, FetchedTemplates], status: int
) -> None:
    """Rights, a project that is another's, an outage: the last template counts for a while."""
    side, reader = firebase
    side.status = status
    with pytest.raises(SourceUnavailable, match="Remote Config"):
        await reader.read()
    assert await cohort_by(reader) == firestore_only()


async def test_a_fetched_template_that_is_none_is_broken(
    firebase: tuple[Firebase, FetchedTemplates],
) -> None:
    """It counts at once."""
    side, reader = firebase
    side.template = {"parameters": {MODE: "sql"}}
    with pytest.raises(ValueError, match="template"):
        await reader.read()


async def test_without_credentials_nothing_is_fetched(
    firebase: tuple[Firebase, FetchedTemplates], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is said in the log, and no call fails."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(SourceUnavailable, match="Remote Config"):
        await firebase[1].read()


def test_the_sdk_leaves_the_root_logger_alone() -> None:
    """Loading it would send every library's notes to standard error."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    remote_config.cache_clear()
    remote_config()
    assert (list(root.handlers), root.level) == before


async def test_the_template_of_the_page_does_what_the_page_says(flags: Flags) -> None:
    """It is what a team begins with."""
    page = (ROOT / "docs" / "howto" / "cohorts.md").read_text()
    flags.write(page.split("```json")[1].split("```")[0])
    assert await flags.cohort(tier="staff") == SQL
    shadow = Cohort(read_mode=ReadMode.SHADOW, is_dual_write_on=True)
    cohorts = [await flags.cohort(f"u{n}") for n in range(200)]
    assert {str(cohort) for cohort in cohorts} == {str(shadow), str(firestore_only())}
    assert 5 < cohorts.count(shadow) < 40


def test_a_gateway_that_tries_to_open_leaves_no_apps_behind(tmp_path: Path) -> None:
    """Firebase's SDK keeps every app that was ever made; a function tries anew at each call."""
    FileTemplates(tmp_path / "a.json")
    before = set(firebase_admin._apps)
    FetchedTemplates("storemirror-apps")
    FileTemplates(tmp_path / "a.json")
    assert set(firebase_admin._apps) == before
