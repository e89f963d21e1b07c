"""Where the parser and the linter are, and what to do when they are not there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INSTALL_LINE: Final = "sh tools/venv.sh tsql"
_PACKAGES: Final = "lib/python3*/site-packages"


class ToolMissing(Exception):
    """The parser or the linter is not here; the message says which line installs it."""


@dataclass(frozen=True)
class Tools:
    """The programs of `.venv-tsql`."""

    #: SqlToolsService of Microsoft's, as it lies in the wheel of mssql-cli.
    service: Path
    #: Folder with an OpenSSL 1.1, as it lies in the wheel of pymssql.
    libraries: Path
    #: The Python that has sqlfluff.
    python: Path


def found_tools(folder: Path = ROOT / ".venv-tsql") -> Tools:
    """
    Find the programs.

    Raises:
        ToolMissing: the environment is not made, or this platform has no wheel of the parser.
    """
    stamp, python = folder / "storemirror-stamp", folder / "bin" / "python"
    if not stamp.exists() or not python.exists():
        raise ToolMissing(f"no {folder.name}: {INSTALL_LINE}")
    pattern = f"{_PACKAGES}/mssqlcli/mssqltoolsservice/bin/MicrosoftSqlToolsServiceLayer"
    service = next(folder.glob(pattern), None)
    libraries = next(folder.glob(f"{_PACKAGES}/pymssql.libs"), None)
    if service is None or libraries is None:
        machine = os.uname()
        raise ToolMissing(
            f"Microsoft's parser comes for Linux on x86_64 alone, not for {machine.sysname} on"
            f" {machine.machine}: run it there, {INSTALL_LINE}"
        )
    return Tools(service, libraries, python)
