"""
A pytest plugin: what was skipped is named at the end, and in CI a skip fails the run.

A test that is skipped proves nothing; on a laptop that is said with the line that mends it, in CI
(`CI=true`) everything must be there.  Only what no machine of ours can hold may be skipped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import pytest

#: What a skip's reason starts with when it may stand in CI too.
ALLOWED_REASONS: Final = ("needs real Azure", "needs SQL Server")
_REASONS: Final = pytest.StashKey[dict[str, list[str]]]()


def is_strict(environment: Mapping[str, str]) -> bool:
    """Tell whether this run must not skip: CI systems set `CI=true`."""
    return environment.get("CI", "").lower() in ("true", "1")


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Give why a test or module was skipped, without pytest's own first word."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def refused(reasons: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Keep the reasons that may not stand in CI, with the tests skipped for them."""
    return {
        reason: tests for reason, tests in reasons.items() if not reason.startswith(ALLOWED_REASONS)
    }


class SkipWatch:
    """Collects skips; with xdist in the process that starts the workers."""

    def __init__(self, config: pytest.Config) -> None:
        """Keep what is collected where the end of the run finds it."""
        self.reasons: dict[str, list[str]] = {}
        config.stash[_REASONS] = self.reasons

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped; an expected failure is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons.setdefault(reason_of(report), []).append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole module that was skipped."""
        if report.skipped:
            self.reasons.setdefault(reason_of(report), []).append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in CI that skipped what it should have run."""
        if is_strict(os.environ) and refused(self.reasons) and session.exitstatus in (0, 5):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run, but not inside xdist's workers: they report to the one that started them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipWatch(config), "storemirror-skips")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what did not run; the reason says which line installs it."""
    reasons = config.stash.get(_REASONS, {})
    if not reasons:
        return
    terminalreporter.section("not run")
    for reason, tests in sorted(reasons.items()):
        terminalreporter.write_line(f"{len(tests)} skipped: {reason}")
    if is_strict(os.environ) and refused(reasons):
        terminalreporter.write_line("CI=true: a skip is a failure", red=True)
