"""The pages say what the code does: generated parts are fresh, links lead somewhere."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from storemirror.telemetry import LogEvent
from tests.house.rules import ROOT, anchors, broken_link, tracked_files

REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(REFERENCE.glob("*.md"))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """Load the generator of the pages."""
    return from_tools("reference")


def from_tools(name: str) -> ModuleType:
    """Load a module of the folder `tools`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module(name)


def cog_check(*pages: Path) -> subprocess.CompletedProcess[str]:
    """Tell whether the generated parts of pages are what would be generated."""
    command = [sys.executable, "-m", "cogapp", "--check", "-U", "-I", str(ROOT / "tools")]
    return subprocess.run([*command, *map(str, pages)], capture_output=True, text=True, check=False)


def test_generated_pages_are_fresh() -> None:
    """A page that lags behind is worse than none: it is believed."""
    checked = cog_check(*PAGES)
    assert checked.returncode == 0, f"run: make docs\n{checked.stdout}{checked.stderr}"


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    """The freshness test must be able to fail."""
    page = tmp_path / "exit-statuses.md"
    page.write_text((REFERENCE / page.name).read_text().replace("| 0 |", "| 00 |"))
    assert cog_check(page).returncode != 0


def test_the_event_schema_is_fresh(reference: ModuleType) -> None:
    """Consumers validate with this file."""
    published = (REFERENCE / "event.schema.json").read_text()
    assert published == reference.event_schema(), "run: make docs"


def test_the_openapi_document_is_fresh() -> None:
    """Client teams make their code from this file."""
    published = (REFERENCE / "callables.openapi.json").read_text()
    assert published == from_tools("callables_reference").openapi_text(), "run: make docs"


def test_every_error_is_in_the_reference(reference: ModuleType) -> None:
    """Who meets an error looks it up by name."""
    page = (REFERENCE / "errors.md").read_text()
    names = [error.__name__ for error in reference.error_classes()]
    assert len(names) > 20
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_the_drawn_tree_is_the_tree(reference: ModuleType) -> None:
    """The drawing at the top of errors.py is made by hand, so it may be forgotten."""
    drawn = reference.errors_tree()
    assert [e.__name__ for e in reference.error_classes() if e.__name__ not in drawn] == []


def test_every_hint_has_a_section_in_the_runbook(reference: ModuleType) -> None:
    """A hint names what to do; the runbook says how, and what else may be wrong."""
    sections = anchors(ROOT / "docs" / "runbook" / "errors.md")
    hinting = [e.__name__ for e in reference.error_classes() if reference.has_own_hint(e)]
    assert len(hinting) > 10
    assert [name for name in hinting if name.lower() not in sections] == []


def test_the_runbook_has_no_section_of_an_error_that_is_gone(reference: ModuleType) -> None:
    """Advice for what cannot happen sends people the wrong way."""
    hinting = {e.__name__.lower() for e in reference.error_classes() if reference.has_own_hint(e)}
    assert anchors(ROOT / "docs" / "runbook" / "errors.md") - hinting == {"runbook-errors"}


def test_every_command_is_in_the_reference(reference: ModuleType) -> None:
    """An undocumented command is found by nobody."""
    page = (REFERENCE / "commands.md").read_text()
    expected = {"demo", "writer", "drain", "check", "schema render", "schema apply"}
    expected |= {"schema status", "dlq list", "dlq show", "dlq resubmit", "dlq ack"}
    names = set(reference.command_names())
    assert names >= expected
    assert [name for name in names if f"## `storemirror {name}`" not in page] == []


def test_every_setting_is_in_the_reference(reference: ModuleType) -> None:
    """A setting that is not listed is set by nobody."""
    page = (REFERENCE / "settings.md").read_text()
    docs = reference.settings_reference()
    assert len(docs) > 10
    assert [doc.name for doc in docs if f"`{doc.variable}`" not in page or not doc.what] == []


def test_every_metric_and_log_event_is_in_the_reference(reference: ModuleType) -> None:
    """Dashboards are built from this page."""
    page = (REFERENCE / "telemetry.md").read_text()
    telemetry = reference.telemetry
    names = [value for name, value in vars(telemetry).items() if name.startswith("SQL_MIRROR_")]
    names += [event.value for event in telemetry.LogEvent]
    assert len(names) > 10
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_links_of_all_pages_lead_somewhere() -> None:
    """A dead link is where a reader gives up."""
    breaches = [
        f"{page.relative_to(ROOT)} {breach}"
        for page in tracked_files("*.md")
        for breach in broken_link(page)
    ]
    assert breaches == []


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    """To a missing file, a missing heading, and to what lies outside the checkout."""
    (tmp_path / "there.md").write_text("# It is here, really\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n[a](gone.md) [b](there.md#nowhere) [c](#no) [d](../../etc/passwd)\n"
        "[e](there.md) [f](there.md#it-is-here-really) [g](#page) [h](mailto:a@example.org)\n"
        "```\n[i](in-a-code-block.md)\n```\n"
    )
    assert len(list(broken_link(page, tmp_path))) == 4


def test_hints_name_pages_that_exist(reference: ModuleType) -> None:
    """An error that sends the reader to a missing page adds to the trouble."""
    named = [
        word.strip(".,;`")
        for error in reference.error_classes()
        for word in error.hint.split()
        if word.startswith("docs/")
    ]
    assert named
    assert [page for page in named if not (ROOT / page).exists()] == []


def test_every_event_of_the_gateway_has_its_line_in_the_runbook() -> None:
    """Whoever is woken by one looks there for what it means and what to do."""
    page = (ROOT / "docs" / "runbook" / "gateway.md").read_text()
    events = [event.value for event in LogEvent if event.value.startswith("gateway.")]
    assert len(events) > 10
    assert [event for event in events if f"`{event}`" not in page] == []
