"""
The house rules as functions: each takes text and gives what breaks the rule, one line each.

They take text, not the repository, so that each can be shown a violation and seen to find it.
"""

from __future__ import annotations

import ast
import fnmatch
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILE_LINES: Final = 500
FUNCTION_LINES: Final = 60
#: Names that say nothing of what is inside.
EMPTY_NAMES: Final = ("utils", "helpers", "common", "manager", "base")
#: Put together, so that this file does not name them itself.
REGISTRY_HOSTS: Final = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted"),
        ("registry", "npmjs"),
        ("registry", "yarnpkg"),
        ("proxy", "golang"),
    )
)
TIME_READERS: Final = ("now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp")


def tracked_files(pattern: str = "*", root: Path = ROOT) -> Iterator[Path]:
    """Walk the repository's own files: what .gitignore names is left out, as is .git."""
    ignored = [line.strip("/") for line in (root / ".gitignore").read_text().split()]
    for path in sorted(root.rglob(pattern)):
        parts = path.relative_to(root).parts
        is_ignored = any(fnmatch.fnmatch(part, name) for part in parts for name in ignored)
        if path.is_file() and not is_ignored and parts[0] != ".git":
            yield path


def python_files(*folders: str) -> Iterator[Path]:
    """Walk the Python files of some top folders."""
    for path in tracked_files("*.py"):
        if path.relative_to(ROOT).parts[0] in folders:
            yield path


def too_long(source: str) -> Iterator[str]:
    """Find a file or a function that is too long to be read at once."""
    count = len(source.splitlines())
    if count > FILE_LINES:
        yield f"{count} lines, at most {FILE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{node.name} has {length} lines, at most {FUNCTION_LINES}"


def empty_name(path: Path) -> Iterator[str]:
    """Find a file or folder whose name says nothing."""
    for part in (*path.parts[:-1], path.stem):
        if part in EMPTY_NAMES:
            yield f"the name {part!r} says nothing of what is inside"


def reads_time(source: str) -> Iterator[str]:
    """Find code that reads the time or sleeps by itself, where it should take a `Clock`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"imports {n.name}" for n in names if n.name in ("time", "sched"))
            case ast.ImportFrom(module="time" | "sched" as module):
                yield f"imports from {module}"
            case ast.ImportFrom(module="asyncio", names=names):
                yield from ("imports asyncio.sleep" for n in names if n.name == "sleep")
            case ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"):
                yield "uses asyncio.sleep"
            case ast.Attribute(value=value, attr=attr) if attr in TIME_READERS:
                owner = value.attr if isinstance(value, ast.Attribute) else ""
                owner = value.id if isinstance(value, ast.Name) else owner
                if owner in ("datetime", "date"):
                    yield f"uses {owner}.{attr}"


def sleeps_in_test(source: str) -> Iterator[str]:
    """Find a test that sleeps; giving way once, `asyncio.sleep(0)`, is no sleep."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        gives_way = [a.value for a in node.args if isinstance(a, ast.Constant)] == [0]
        if node.func.attr == "sleep" and owner in ("time", "asyncio") and not gives_way:
            yield f"line {node.lineno} sleeps"


def imported_packages(source: str) -> set[str]:
    """Give the packages of others that a module imports, by their import name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"storemirror"}


def declared_packages(pyproject: str) -> set[str]:
    """Give the import names of what the package is installed with."""
    project = tomllib.loads(pyproject)["project"]
    extras = itertools.chain.from_iterable(project.get("optional-dependencies", {}).values())
    listed = [*project["dependencies"], *extras]
    names = {re.split(r"[\[<>=!~; ]", entry)[0].lower().replace("-", "_") for entry in listed}
    # Azure's packages share one namespace.
    shared = {"azure" for name in names if name.startswith("azure_")}
    # Some are imported by another name than they are installed by.
    shared |= {"jwt"} & {name.removeprefix("py") for name in names}
    # pydantic's own core, and what Google's packages bring and document as theirs.
    return names | shared | {"pydantic_core", "google", "grpc"}


def swallows_all(source: str) -> Iterator[str]:
    """Find a handler that catches every error and keeps it; one that raises it again is none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            kind = node.type.id if isinstance(node.type, ast.Name) else None
            is_raised_again = _raises(node.body[-1], node.name)
            if (
                node.type is None or kind in ("Exception", "BaseException")
            ) and not is_raised_again:
                yield f"line {node.lineno} catches {kind or 'everything'}"


def _raises(last: ast.stmt, caught: str | None) -> bool:
    """Tell whether a handler's last statement raises what was caught, or another one from it."""
    if not isinstance(last, ast.Raise):
        return False
    return last.exc is None or (isinstance(last.cause, ast.Name) and last.cause.id == caught)


def todo_without_number(text: str) -> Iterator[str]:
    """Find a promise that nobody can look up."""
    word = "TO" + "DO"
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(rf"\b{word}\b(?!\(?\s*#\d+)", line):
            yield f"line {number} promises without an issue number"


def registry_host(text: str) -> Iterator[str]:
    """Find the host of a package registry: each machine has its own, set outside the project."""
    for host in REGISTRY_HOSTS:
        if host in text:
            yield f"names the registry {host}"


def broken_link(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Find a link of a Markdown page that leads nowhere: no such file, or no such heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or not linked.is_relative_to(root.resolve()):
            yield f"links to {target}: no such file"
        elif anchor and anchor not in anchors(linked):
            yield f"links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, spelled as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def _prose(page: Path) -> str:
    """Give a page's text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
