"""In CI nothing may be skipped in silence: the plugin is run in a test session of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.rules import ROOT

SKIPS = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason={reason!r})
def test_skipped():
    pass
"""


def run_in(folder: Path, reason: str, ci: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a session in which one test passes and one is skipped for a reason."""
    (folder / "test_sample.py").write_text(SKIPS.format(reason=reason))
    plugin = ["-p", "tests.support.strict_skips", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *plugin, *options],
        cwd=folder,
        # Without the plugins that are installed here, which take seconds to load.
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("-p", "xdist.plugin", "-n", "1")], ids=["alone", "xdist"])
def test_a_skip_fails_the_run_in_ci(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A server that is missing in CI must not turn into a green run."""
    run = run_in(tmp_path, "no PostgreSQL: pip install it", "true", *options)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 skipped: no PostgreSQL: pip install it" in run.stdout
    assert "CI=true: a skip is a failure" in run.stdout


@pytest.mark.parametrize("reason", ["needs real Azure: an account", "needs SQL Server: a licence"])
def test_what_no_machine_of_ours_can_hold_may_be_skipped(tmp_path: Path, reason: str) -> None:
    """It is still named at the end."""
    run = run_in(tmp_path, reason, "true")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"1 skipped: {reason}" in run.stdout


def test_on_a_laptop_a_skip_is_named_and_passes(tmp_path: Path) -> None:
    """The reason says which line installs what is missing."""
    run = run_in(tmp_path, "no PostgreSQL: pip install it", "")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 skipped: no PostgreSQL: pip install it" in run.stdout


def test_a_skipped_module_counts_too(tmp_path: Path) -> None:
    """`importorskip` at the top of a module would else hide all of its tests."""
    (tmp_path / "test_module.py").write_text(
        'import pytest\npytest.importorskip("no_such_thing")\n'
    )
    run = run_in(tmp_path, "needs real Azure", "true")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "no_such_thing" in run.stdout
