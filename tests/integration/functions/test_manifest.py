"""What `firebase deploy` reads of the functions: names, paths, secrets, sizes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from storemirror.model.load import load_model
from storemirror.source.triggers import triggers_of
from tests.acceptance.conftest import clean_environment
from tests.integration.functions.framework import PYTHON, ROOT, SCHEDULE, built_folder

#: Asks the SDK's own server as `firebase deploy` does: again and again until it answers.
READS = """
import json, sys, yaml
from firebase_functions.private import serving
asking = serving.serve_admin().test_client()
answers = [asking.get("/__/functions.yaml") for _ in range(2)]
assert [answer.status_code for answer in answers] == [200, 200]
assert answers[0].text == answers[1].text
json.dump(yaml.safe_load(answers[0].text), sys.stdout)
"""
TAGS = """
[[entity]]
name = "Tag"
check = "tags"
path = "shops/{shopId}/tags/{tagId}"
category = "sqlMirror"
[entity.columns]
label = { type = "string" }
"""


def read_by_firebase(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load the functions as the command line does: with the project, without any secret."""
    return subprocess.run(
        [str(PYTHON), "-c", READS],
        cwd=folder,
        env=clean_environment({"GCLOUD_PROJECT": "demo", **variables}),
        capture_output=True,
        text=True,
        check=False,
    )


def manifest(folder: Path, **variables: str) -> Any:
    read = read_by_firebase(folder, **variables)
    assert read.returncode == 0, read.stderr
    return json.loads(read.stdout)


@pytest.fixture(scope="module")
def plain(functions_folder: Path) -> Any:
    """The manifest of the built-in declarations, with nothing set."""
    return manifest(functions_folder)


def test_the_functions_have_the_names_of_the_contract(plain: Any) -> None:
    """Dashboards and runbooks name them."""
    assert set(plain["endpoints"]) == {
        "mirrorDmConversations",
        "mirrorDmMessages",
        "mirrorFollowEdges",
        "mirrorUserBlocks",
        SCHEDULE,
    }
    assert all(name == e["entryPoint"] for name, e in plain["endpoints"].items())


def test_each_trigger_listens_to_its_declared_path(plain: Any) -> None:
    """A path typed by hand would drift from the declaration, without a sound."""
    listened = {
        name: endpoint["eventTrigger"]["eventFilterPathPatterns"]["document"]
        for name, endpoint in plain["endpoints"].items()
        if "eventTrigger" in endpoint
    }
    assert listened == {name: t.entity.pattern for name, t in triggers_of(load_model()).items()}
    assert listened["mirrorDmMessages"] == "conversations/{conversationId}/messages/{messageId}"


def test_a_trigger_is_repeated_until_it_succeeds(plain: Any) -> None:
    """The SDK's default drops what fails once, and it has no option for the other."""
    trigger = plain["endpoints"]["mirrorDmMessages"]["eventTrigger"]
    assert trigger["retry"] is True
    assert trigger["eventType"] == "google.cloud.firestore.document.v1.written"
    assert trigger["eventFilters"] == {"database": "(default)", "namespace": "(default)"}


def test_each_function_gets_the_secrets_that_it_needs(plain: Any) -> None:
    """A trigger has no business with the database; and none is written into a file."""
    bound = {
        name: [secret["key"] for secret in endpoint["secretEnvironmentVariables"]]
        for name, endpoint in plain["endpoints"].items()
    }
    assert bound.pop(SCHEDULE) == ["STOREMIRROR_SQL_DSN", "STOREMIRROR_BUS_DSN"]
    assert {tuple(secrets) for secrets in bound.values()} == {("STOREMIRROR_BUS_DSN",)}
    params = {param["name"]: param["type"] for param in plain["params"]}
    assert params == {"STOREMIRROR_SQL_DSN": "secret", "STOREMIRROR_BUS_DSN": "secret"}


def test_the_drain_runs_every_minute(plain: Any) -> None:
    """One at a time, with time to end by itself before it is ended."""
    endpoint = plain["endpoints"][SCHEDULE]
    assert endpoint["scheduleTrigger"]["schedule"] == "* * * * *"
    assert endpoint["scheduleTrigger"]["retryConfig"]["retryCount"] == 0
    assert endpoint["timeoutSeconds"] == 110
    assert (endpoint["maxInstances"], endpoint["concurrency"]) == (1, 1)
    assert [api["api"] for api in plain["requiredAPIs"]] == ["cloudscheduler.googleapis.com"]


def test_settings_of_the_folder_are_deployed(functions_folder: Path, tmp_path: Path) -> None:
    """Declarations of your own, another database, place and size: one file beside main.py."""
    folder = built_folder(tmp_path / "deployed")
    (folder / "tags.toml").write_text(TAGS)
    (folder / "storemirror.toml").write_text(
        '[model]\nfiles = ["tags.toml"]\nwith_builtin = false\n'
        '[firestore]\ndatabase = "second"\n'
        '[functions]\nregion = "europe-west1"\nmemory_mb = 1024\nconcurrency = 7\n'
        'max_instances = 3\nmin_instances = 1\nservice_account = "mirror@demo"\n'
        'vpc_connector = "inner"\n'
    )
    endpoints = manifest(folder)["endpoints"]
    assert set(endpoints) == {"mirrorTags", SCHEDULE}
    tags = endpoints["mirrorTags"]
    assert tags["eventTrigger"]["eventFilters"]["database"] == "second"
    pattern = tags["eventTrigger"]["eventFilterPathPatterns"]["document"]
    assert pattern == "shops/{shopId}/tags/{tagId}"
    assert (tags["concurrency"], tags["minInstances"], tags["maxInstances"]) == (7, 1, 3)
    for endpoint in endpoints.values():
        assert endpoint["region"] == ["europe-west1"]
        assert endpoint["availableMemoryMb"] == 1024
        assert endpoint["serviceAccountEmail"] == "mirror@demo"
        assert endpoint["vpc"]["connector"] == "inner"


def test_the_package_goes_along(functions_folder: Path) -> None:
    """Google's build installs requirements.txt; StoreMirror is on no package index."""
    command = [str(PYTHON), "-c", "import storemirror; print(storemirror.__file__)"]
    environment = clean_environment({})
    elsewhere = subprocess.run(
        command, cwd=ROOT / "docs", env=environment, capture_output=True, text=True, check=False
    )
    assert "No module named 'storemirror'" in elsewhere.stderr
    here = subprocess.run(
        command, cwd=functions_folder, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(here.stdout.strip()).is_relative_to(functions_folder)


def test_a_wrong_setting_stops_the_deployment(functions_folder: Path) -> None:
    """Found by the developer, not by each instance at night."""
    read = read_by_firebase(functions_folder, STOREMIRROR_FUNCTIONS_CONCURRENCY="many")
    assert read.returncode != 0
    assert "STOREMIRROR_FUNCTIONS_CONCURRENCY" in read.stderr


def test_a_build_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    """A declaration that was taken back would go on being deployed."""
    folder = built_folder(tmp_path / "deployed")
    (folder / "old.toml").touch()
    built_folder(folder)
    assert not (folder / "old.toml").exists()
    assert (folder / "storemirror" / "model" / "social.toml").exists()
    assert (folder / "venv" / "bin" / "activate").exists()


def test_a_build_does_not_remove_what_is_not_its_own(tmp_path: Path) -> None:
    """A slip of the pen names somebody's folder."""
    (tmp_path / "thesis.md").touch()
    with pytest.raises(subprocess.CalledProcessError):
        built_folder(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.md"]  # noqa: PTH208 - names are the point
