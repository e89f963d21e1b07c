"""What `firebase deploy` takes from the checkout is whole: its settings, its requirements."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator

import pytest

from storemirror.config import settings_reference
from storemirror.config.load import load_settings
from storemirror.config.values import PROCEDURE_PREFIX
from storemirror.model.load import load_model
from storemirror.sql.names import procedures_of
from tests.house.rules import ROOT

EXAMPLE = (ROOT / "functions" / ".env.example").read_text()
#: Names of the contract that the example must hold.
EXPECTED = {
    "SERVICEBUS_CONNECTION_STRING",
    "SERVICEBUS_TOPIC_REALTIME_MIRROR",
    "SERVICEBUS_SUBSCRIPTION_SQL_WRITER",
    "USE_SQL_DM_WRITE_MIRROR",
    "SQL_PROC_UPSERT_DM_MESSAGE",
}


def example_variables(text: str) -> dict[str, str]:
    """Give what the example sets, and what it would set without its comment signs."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, flags=re.MULTILINE))


def unhashed(requirements: str) -> Iterator[str]:
    """Find a requirement that is not pinned to files by their hashes."""
    for entry in requirements.replace("\\\n", " ").splitlines():
        words = shlex.split(entry, comments=True)
        if words and not ("==" in words[0] and any(w.startswith("--hash=") for w in words)):
            yield words[0]


def test_the_example_is_made_of_settings() -> None:
    """A variable that nothing reads is believed to do something."""
    variables = example_variables(EXAMPLE)
    known = {doc.variable for doc in settings_reference()}
    known |= {p.setting for p in procedures_of(load_model())}
    assert set(variables) - known == set()
    assert load_settings(None, variables).sql.schema_name == "storemirror"
    assert {name for name in EXPECTED if name not in EXAMPLE} == set()
    assert any(name.startswith(PROCEDURE_PREFIX) for name in variables)


def test_the_example_holds_no_secret() -> None:
    """It is copied to a file that is deployed, and often committed."""
    secrets = {doc.variable for doc in settings_reference() if doc.is_secret}
    assert secrets >= {"STOREMIRROR_BUS_DSN", "STOREMIRROR_SQL_DSN"}
    assert secrets & set(example_variables(EXAMPLE)) == set()


def test_everything_that_is_deployed_is_pinned_with_its_hash() -> None:
    """The build of a year from now installs what was tested."""
    requirements = (ROOT / "functions" / "requirements.txt").read_text()
    assert len(requirements.splitlines()) > 100
    assert list(unhashed(requirements)) == []


@pytest.mark.parametrize("planted", ["flask>=3\n", "flask==3.1.3\n", "./storemirror.whl\n"])
def test_what_is_not_pinned_is_noticed(planted: str) -> None:
    """A guard that nobody has seen fail is no guard."""
    assert list(unhashed(planted))


def test_firebase_is_told_what_is_there() -> None:
    """A wrong folder or script is found by whoever deploys, in the evening."""
    (codebase,) = json.loads((ROOT / "firebase.json").read_text())["functions"]
    (script,) = codebase["predeploy"]
    assert script == "sh tools/functions.sh"
    assert (ROOT / "tools" / "functions.sh").exists()
    assert codebase["source"] == "dist/functions"
    assert (ROOT / codebase["configDir"] / ".env.example").exists()
    assert re.fullmatch(r"python3(1[1-9])", codebase["runtime"])
    assert "venv" in codebase["ignore"]


def test_what_settings_may_name_is_installed_there() -> None:
    """A bus or a database whose driver is missing shows at the first minute in production."""
    requirements = (ROOT / "functions" / "requirements.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", requirements, flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in ("firestore", "gateway", "servicebus", "sqlserver"):
        named = {re.split(r"[\[><=]", n)[0] for n in project["optional-dependencies"][extra]}
        assert named <= pinned, extra
