"""sqlfluff, run over batches: a second opinion on what can be parsed, and some rules."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.tsql.environment import Tools
from tests.tsql.script import Batch, Finding

CONFIG: Final = Path(__file__).with_name("sqlfluff.cfg")
TIMEOUT_S: Final = 500.0


class LinterFailed(Exception):
    """The linter did not judge."""


def lint(batches: tuple[Batch, ...], tools: Tools) -> list[Finding]:
    """
    Give what sqlfluff finds, batch by batch: what it cannot parse in one hides no other.

    Raises:
        LinterFailed: it ended otherwise than with a judgement of every batch.
    """
    with tempfile.TemporaryDirectory(prefix="storemirror-tsql-") as folder:
        for number, batch in enumerate(batches):
            (Path(folder) / f"{number}.sql").write_text(f"{batch.text}\n")
        # --config: of the project alone, whatever lies in the folders above.
        options = ["--ignore-local-config", "--config", str(CONFIG), "--format", "json"]
        command = [str(tools.python), "-m", "sqlfluff", "lint", *options, folder]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=folder
        )
    if run.returncode not in (0, 1):
        raise LinterFailed(f"sqlfluff ended with {run.returncode}: {run.stderr.strip()[-500:]}")
    judged = {
        int(Path(file["filepath"]).stem): file["violations"] for file in json.loads(run.stdout)
    }
    if set(judged) != set(range(len(batches))):
        raise LinterFailed(f"sqlfluff judged {len(judged)} of {len(batches)} batches")
    return [
        Finding(
            batches[number].first_line + violation["start_line_no"] - 1,
            violation["start_line_pos"],
            f"{violation['code']} {violation['description']}",
            "linter",
        )
        for number, violations in judged.items()
        for violation in violations
    ]
