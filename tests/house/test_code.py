"""The house rules hold in our code, and each of them is seen to catch what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house import rules

#: Files that meet errors nobody foresaw: they log, and re-raise or settle.
CATCHES_ALL = ("apply/writer.py", "apply/drain.py", "cli/main.py")


def found(rule: Callable[[str], Iterator[str]], files: Iterator[Path]) -> list[str]:
    """Give every breach of a rule, with its file."""
    return [
        f"{path.relative_to(rules.ROOT)}: {breach}"
        for path in files
        for breach in rule(path.read_text())
    ]


def test_files_and_functions_can_be_read_at_once() -> None:
    """What is longer than a screen or two is understood by nobody."""
    files = rules.python_files("src", "functions", "tests", "tools", "bench")
    assert found(rules.too_long, files) == []


def test_names_say_what_is_inside() -> None:
    """A file called for nothing in particular collects everything."""
    files = [
        path.relative_to(rules.ROOT)
        for path in rules.python_files("src", "functions", "tests", "tools", "bench")
    ]
    assert [breach for path in files for breach in rules.empty_name(path)] == []


def test_only_the_clock_reads_the_time() -> None:
    """Else a test could not say what time it is."""
    files = (p for p in rules.python_files("src", "functions") if p.name != "clock.py")
    assert found(rules.reads_time, files) == []


def test_no_test_sleeps() -> None:
    """A sleep is a guess: too long on one machine, too short on another."""
    assert found(rules.sleeps_in_test, rules.python_files("tests")) == []


def test_errors_are_caught_by_name() -> None:
    """A handler for everything hides the bug that nobody has met yet."""
    ours = rules.python_files("src", "functions")
    files = (p for p in ours if not p.as_posix().endswith(CATCHES_ALL))
    assert found(rules.swallows_all, files) == []


def test_promises_have_an_issue() -> None:
    """Without a number nobody knows whether the promise still stands."""
    files = (p for p in rules.tracked_files() if p.suffix in (".py", ".md", ".sh", ".sql", ".toml"))
    assert found(rules.todo_without_number, files) == []


def test_no_file_names_a_package_registry() -> None:
    """Which registry to use is the machine's setting; a lock file that names one breaks others."""
    texts = (p for p in rules.tracked_files() if p.suffix not in (".png", ".ico", ".whl"))
    assert found(rules.registry_host, texts) == []


#: Put together, so that this file does not hold what it looks for.
PROMISE = "# TO" + "DO"
LONG_FUNCTION = "def f():\n" + "    pass\n" * rules.FUNCTION_LINES


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (rules.too_long, "x = 1\n" * (rules.FILE_LINES + 1)),
        (rules.too_long, LONG_FUNCTION),
        (rules.too_long, LONG_FUNCTION.replace("def", "async def")),
        (rules.reads_time, "import time\n"),
        (rules.reads_time, "from time import monotonic\n"),
        (rules.reads_time, "from datetime import datetime\ndatetime.now()\n"),
        (rules.reads_time, "import datetime\ndatetime.datetime.utcnow()\n"),
        (rules.reads_time, "from datetime import date\ndate.today()\n"),
        (rules.reads_time, "import asyncio\nasyncio.sleep(1)\n"),
        (rules.reads_time, "from asyncio import sleep\n"),
        (rules.sleeps_in_test, "import time\ntime.sleep(1)\n"),
        (rules.sleeps_in_test, "import asyncio\nasyncio.sleep(0.1)\n"),
        (rules.swallows_all, "try:\n    pass\nexcept Exception:\n    pass\n"),
        (rules.swallows_all, "try:\n    pass\nexcept BaseException:\n    pass\n"),
        (rules.swallows_all, "try:\n    pass\nexcept:\n    pass\n"),
        (rules.swallows_all, "try:\n    pass\nexcept Exception as e:\n    raise x from None\n"),
        (rules.todo_without_number, PROMISE + ": later\n"),
        (rules.registry_host, "https://" + rules.REGISTRY_HOSTS[0] + "/simple\n"),
        (rules.registry_host, "https://" + rules.REGISTRY_HOSTS[2] + ".org/\n"),
    ],
    ids=lambda case: case.__name__ if callable(case) else case[-30:],
)
def test_a_rule_catches_what_it_is_for(rule: Callable[[str], Iterator[str]], planted: str) -> None:
    """A guard that nobody has seen fail is no guard."""
    assert list(rule(planted))


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (rules.too_long, LONG_FUNCTION.replace("    pass\n", "", 1)),
        (rules.reads_time, "from datetime import UTC, datetime\nx: datetime\nasyncio.timeout(1)\n"),
        (rules.reads_time, "def now() -> int:\n    return clock.now_us()\n"),
        (rules.sleeps_in_test, "import asyncio\nasyncio.sleep(0)\nclock.sleep(5)\n"),
        (rules.swallows_all, "try:\n    pass\nexcept ValueError:\n    pass\n"),
        (rules.swallows_all, "try:\n    pass\nexcept BaseException:\n    undo()\n    raise\n"),
        (rules.swallows_all, "try:\n    pass\nexcept* Exception as e:\n    raise x from e\n"),
        (rules.todo_without_number, PROMISE + "(#12): later\n"),
    ],
    ids=lambda case: case.__name__ if callable(case) else case[-30:],
)
def test_a_rule_lets_pass_what_it_is_not_for(
    rule: Callable[[str], Iterator[str]], allowed: str
) -> None:
    """A guard that cries at everything is switched off."""
    assert list(rule(allowed)) == []


@pytest.mark.parametrize("name", ["utils.py", "common/x.py", "sql/helpers.py"])
def test_empty_names_are_caught(name: str) -> None:
    """In files and in folders alike."""
    assert list(rules.empty_name(Path(name)))


def test_what_gitignore_names_is_not_ours(tmp_path: Path) -> None:
    """Caches and environments hold other people's code, with other people's habits."""
    (tmp_path / ".gitignore").write_text(".venv/\n*.egg-info/\n")
    for name in (".venv/a.py", "x.egg-info/a.py", ".git/a.py", "src/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert list(rules.tracked_files("*.py", tmp_path)) == [tmp_path / "src" / "a.py"]
